"""Headless Chromium, driven with real key events over the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType

import websocket

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--remote-debugging-port=0")
ALT, CONTROL, META, SHIFT = 1, 2, 4, 8  # of a key event's modifiers
# What a key is called -> its virtual key code.
_CODES = {"Backspace": 8, "Enter": 13, "Shift": 16, "Control": 17, "Escape": 27, " ": 32,
          "PageUp": 33, "PageDown": 34, "ArrowLeft": 37, "ArrowRight": 39, "Delete": 46,
          "F1": 112, "F2": 113, "F3": 114, "+": 187, "-": 189}
_SECONDS = 20.0  # that anything may take


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Chromium:
    """A browser with a fresh profile; `with Chromium() as browser: page = browser.page()`."""

    def __init__(self, *, width: int = 1280, height: int = 800) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="chromium-"))
        self._process = subprocess.Popen(
            [find_chromium(), *FLAGS, f"--user-data-dir={self._profile}",
             f"--window-size={width},{height}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._size = width, height
        self._pages: list[Page] = []
        try:
            self._port = self._wait_for_port()
        except BaseException:
            self.close()
            raise

    def _wait_for_port(self) -> int:
        path = self._profile / "DevToolsActivePort"
        end = time.monotonic() + 3 * _SECONDS
        while time.monotonic() < end:
            if path.exists() and path.read_text().count("\n"):
                return int(path.read_text().split("\n")[0])
            if self._process.poll() is not None:
                raise RuntimeError(f"Chromium ended with {self._process.returncode}")
            time.sleep(0.05)
        raise TimeoutError("Chromium does not listen")

    def page(self, url: str = "about:blank") -> Page:
        """A new tab."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank",
                                         method="PUT")
        with urllib.request.urlopen(request, timeout=_SECONDS) as reply:
            page = Page(json.load(reply)["webSocketDebuggerUrl"], size=self._size)
        self._pages.append(page)
        page.go(url)
        return page

    def close(self) -> None:
        for page in self._pages:
            page.close()
        self._process.terminate()
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class Page:
    """A tab. `problems`: what its console called an error, and exceptions nobody caught."""

    def __init__(self, socket_url: str, *, size: tuple[int, int]) -> None:
        self._socket = websocket.create_connection(socket_url, timeout=_SECONDS,
                                                   suppress_origin=True)
        self._number = 0
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.resize(*size)

    def call(self, method: str, **params: object) -> dict:
        """A command of the DevTools protocol. Raises RuntimeError with what it answers."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, event: dict) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        if url != "about:blank":
            self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def run(self, expression: str) -> object:
        """The value of a JavaScript expression, or of its promise. Raises RuntimeError."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(json.dumps(reply["exceptionDetails"])[:500])
        return reply["result"].get("value")

    def wait(self, condition: str, *, seconds: float = _SECONDS) -> None:
        """Until a JavaScript expression is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):  # while a page is being replaced
                if self.run(f"Boolean({condition})"):
                    return
            time.sleep(0.01)
        raise TimeoutError(f"never true: {condition}; the page says {self.text('body')!r}")

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def down(self, key: str, *, modifiers: int = 0, repeat: bool = False) -> None:
        """Press a key (by the DOM's name for it) and keep it held; `repeat`: it was held."""
        self._key("rawKeyDown", key, modifiers=modifiers, autoRepeat=repeat)
        text = "\r" if key == "Enter" else key
        if len(text) == 1 and not modifiers & ~SHIFT:
            self._key("char", key, modifiers=modifiers, text=text, autoRepeat=repeat)

    def up(self, key: str, *, modifiers: int = 0) -> None:
        self._key("keyUp", key, modifiers=modifiers)

    def press(self, key: str, *, modifiers: int = 0) -> None:
        self.down(key, modifiers=modifiers)
        self.up(key, modifiers=modifiers)

    def type(self, text: str) -> None:
        for key in text:
            self.press(key)

    def _key(self, kind: str, key: str, **params: object) -> None:
        code = _CODES.get(key, ord(key.upper()) if len(key) == 1 else 0)
        name = f"Key{key.upper()}" if key.isalpha() and len(key) == 1 else key
        self.call("Input.dispatchKeyEvent", type=kind, key=key, code=name,
                  windowsVirtualKeyCode=code, **params)

    def screenshot(self, path: str | Path) -> None:
        content = self.call("Page.captureScreenshot", format="png")["data"]
        Path(path).write_bytes(base64.b64decode(content))

    def close(self) -> None:
        self._socket.close()


# --- the annotation page ------------------------------------------------------------------------


def open_annotation(browser: Chromium, url: str, *, annotator: str) -> Page:
    """Open the page that annotation_tool.serve printed, and begin as `annotator`."""
    page = browser.page(url)
    page.wait("document.activeElement.id === 'name'")  # autofocus comes after loading
    page.type(annotator)
    page.wait(f"document.activeElement.value === {json.dumps(annotator)}")
    page.press("Enter")
    wait_until_painted(page)
    return page


def wait_until_painted(page: Page) -> None:
    """Until the page takes the next key."""
    page.wait("mode === 'work' && painted")


def press_and_wait(page: Page, key: str, *, modifiers: int = 0) -> None:
    """Press a key that leads to another pixel, and wait until that one is painted."""
    before = page.run("window.paints.length")
    page.press(key, modifiers=modifiers)
    page.wait(f"window.paints.length > {before} && painted")


def paint_times(page: Page) -> list[tuple[float, bool]]:
    """Of every key since the page was opened: ms from the key's event to the next pixel painted
    (saving included), and whether that one is in another image."""
    return [(ms, other) for ms, other in page.run("window.paints")]
