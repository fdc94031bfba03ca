"""Sessions in real Chromium, with real key events."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from werkzeug.serving import make_server

from annotation_tool import serve
from annotation_tool.store import Store
from tests.annotation_tool.chromium import (
    ALT,
    CONTROL,
    META,
    SHIFT,
    Chromium,
    Page,
    find_chromium,
    open_annotation,
    paint_times,
    press_and_wait,
    wait_until_painted,
)
from tests.annotation_tool.sites import (
    N_IMAGES,
    N_PIXELS,
    asked,
    flags,
    full_disk,
    logged,
    make_site,
    program,
)
from utils.errors import InputError
from utils.geometry import pixel_under

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@contextlib.contextmanager
def serving(site: serve.Site) -> Iterator[str]:
    """The site's address, served from this process."""
    server = make_server("127.0.0.1", 0, site.app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        site.desks.close()


def progress(page: Page) -> str:
    return page.run("`${state.index} ${state.n_answered} ${state.n_skipped}`")


def nothing_happens(page: Page, key: str, *, modifiers: int = 0) -> None:
    before = page.run("state.actions")
    page.press(key, modifiers=modifiers)
    page.wait("document.querySelector('#bar').classList.contains('flash')")
    assert page.run("queue.then(() => state.actions)") == before and page.run("painted")
    assert "does nothing here" in page.text("#message")


def test_a_whole_session_with_the_server_killed_in_it(browser: Chromium, scenes: Path) -> None:
    with program(*flags(scenes, "--port", "0")) as (process, url):
        page = open_annotation(browser, url, annotator="ann")
        press_and_wait(page, "k")
        press_and_wait(page, "b")
        press_and_wait(page, "z", modifiers=CONTROL)
        assert progress(page) == "1 1 0"
        press_and_wait(page, "y", modifiers=CONTROL)
        assert progress(page) == "1 2 0" and "Answered: building" in page.text("#message")
        press_and_wait(page, "ArrowRight")
        press_and_wait(page, " ")
        press_and_wait(page, "Delete")
        assert progress(page) == "4 3 1"
        nothing_happens(page, "%")
        nothing_happens(page, "k", modifiers=CONTROL)
        nothing_happens(page, "k", modifiers=ALT)
        nothing_happens(page, "k", modifiers=META)
        press_and_wait(page, "R", modifiers=SHIFT)
        before = page.run("window.paints.length")
        page.down("k")
        page.wait(f"window.paints.length > {before} && painted")
        for _ in range(5):
            page.down("k", repeat=True)
        page.up("k")
        assert page.run("queue.then(() => state.index)") == 6  # a held key is one press
        press_and_wait(page, "Backspace")
        press_and_wait(page, "t")
        assert progress(page) == "6 5 1" and page.problems == []
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.press("v")
        page.wait("document.querySelector('#saved').textContent === 'NOT SAVED'")
        assert "the server does not answer" in page.text("#message") and progress(page) == "6 5 1"
    port = url.rstrip("/").rpartition(":")[2]
    with program(*flags(scenes, "--port", port)):
        page.press("v")  # finds a new server, looks at it anew
        wait_until_painted(page)
        assert progress(page) == "6 5 1"
        for _ in range(24):
            press_and_wait(page, "v")
        assert progress(page) == "2 29 1"
        press_and_wait(page, "c")
        assert "Everything is answered" in page.text("#message")
        page.press("Escape")
        page.wait("mode === 'left' && document.querySelector('#farewell').textContent")
        assert "30 of 30 pixels are answered" in page.text("#farewell")
        Store(scenes.parent / "logs" / "camvid_ann").close()  # it is free now
        labels = ["sky", "building", "car", "void", "road", "tree", *["pavement"] * 24]
        assert logged(scenes, "ann") == dict(zip(asked(scenes), labels, strict=True))
        page.press("Enter")
        wait_until_painted(page)
        assert page.run("state.finished")
        press_and_wait(page, "Backspace")
        assert progress(page) == "2 29 1"
        refused, gone = page.problems  # nothing else went wrong: no server, then another one
        assert "CONNECTION_REFUSED" in refused and "410" in gone
    page.go("about:blank")


def test_every_key_that_only_looks(browser: Chromium, scenes: Path) -> None:
    with serving(make_site(scenes, token="abc123")) as url:
        page = open_annotation(browser, f"{url}?token=abc123", annotator="ann")
        page.press("F1")
        assert "hide the marker" in page.text("#help")
        page.press("F1")
        page.press("Enter")
        assert "no suggestion is shown" in page.text("#message")
        page.press("F2")
        assert page.text("#suggestion") == "model: road (R), 75 %"
        press_and_wait(page, "Enter")
        assert page.run("state.used.road") == 1
        for key, index in (("PageDown", 10), ("ArrowRight", 11), ("PageUp", 1), ("ArrowLeft", 0)):
            press_and_wait(page, key)
            assert page.run("state.index") == index
        page.press("g", modifiers=CONTROL)
        page.type("3")
        before = page.run("window.paints.length")
        page.press("Enter")
        page.wait(f"window.paints.length > {before} && painted")
        assert page.run("state.index") == 20 and page.run("state.n_answered") == 1
        page.press("g", modifiers=CONTROL)
        page.type("k")
        page.press("Escape")  # of the field, not of the session
        assert page.run("mode") == "work" and page.run("state.n_answered") == 1
        page.down("Shift", modifiers=SHIFT)
        assert page.run("document.querySelector('#marks').hidden")
        page.up("Shift")
        assert not page.run("document.querySelector('#marks').hidden")
        marks = "document.querySelector('#marks').toDataURL()"
        before = page.run(marks)
        page.press("F3")
        assert page.run(marks) != before
        inset = "document.querySelector('#inset').toDataURL()"
        before = page.run(inset)
        page.press("+")
        assert page.run(inset) != before
        page.press("-")
        assert page.run(inset) == before
        assert page.problems == []
        page.press("q", modifiers=CONTROL)
        page.wait("mode === 'left'")
        page.go("about:blank")


def test_the_asked_pixel_is_in_the_box_and_nothing_covers_it(browser: Chromium, site: serve.Site
                                                             ) -> None:
    files = [np.array(Image.open(image.path).convert("RGB")) for image in site.task.images]
    with serving(site) as url:
        page = open_annotation(browser, url, annotator="ann")
        for _ in range(N_IMAGES * N_PIXELS):
            state = page.run("state")
            pixels = files[state["image"]]
            y, x = (int(pixel_under(c, size_from=n, size_to=n0)) for c, n, n0 in
                    zip(state["pixel"], state["grid"], pixels.shape, strict=False))
            look = "document.querySelector('{}').getContext('2d').getImageData({}, {}, 1, 1).data"
            inset = page.run(f"[...{look.format('#inset', 115, 115)}]")
            assert inset == [*pixels[y, x], 255]
            place = page.run("onScreen(state.pixel).map(Math.floor)")
            assert page.run(f"[...{look.format('#image', *place)}]") == [*pixels[y, x], 255]
            assert page.run(f"[...{look.format('#marks', *place)}]") == [0, 0, 0, 0]
            press_and_wait(page, " ")
        page.go("about:blank")


def test_the_flags_of_how_it_looks(browser: Chromium, scenes: Path) -> None:
    site = make_site(scenes, ui_scale=1.5, marker_size=60, edge_size=4, show_others=True)
    with serving(site) as url:
        page = open_annotation(browser, url, annotator="ann")
        assert page.run("document.querySelector('#inset').width") == 330
        assert page.run("showOthers")
        place = page.run("onScreen(state.pixel)")
        row = ("[...document.querySelector('#marks').getContext('2d')"
               f".getImageData({place[0] + 30}, {place[1]}, 30, 1).data]")
        r, _, _, alpha = np.array(page.run(row)).reshape(-1, 4).T
        ring = np.flatnonzero(alpha == 255)  # white from 45 - 3 to 45 + 3, black outside it
        assert r[ring].max() == 255 and r[ring].min() == 0 and 10 <= len(ring) <= 13
        assert abs(ring[0] + 30 - 42) <= 1
        page.go("about:blank")


def test_nobody_labels_what_they_have_not_seen(browser: Chromium, site: serve.Site) -> None:
    with serving(site) as url:
        page = open_annotation(browser, url, annotator="ann")
        page.run("window.quick = post, post = (...all) => new Promise((go) => "
                 "setTimeout(() => go(quick(...all)), 400)), 1")
        page.press("k")
        page.press("b")
        assert "before the pixel was shown" in page.text("#message")
        page.press("z", modifiers=CONTROL)  # comes after the answer
        page.wait("window.paints.length === 2 && painted")
        assert progress(page) == "0 0 0"
        page.run("document.hasFocus = () => false, dispatchEvent(new Event('blur')), 1")
        time.sleep(1)
        page.run("document.hasFocus = () => true, dispatchEvent(new Event('focus')), 1")
        press_and_wait(page, "k")
        assert site.desks._desks["ann"].session.answers()[0].elapsed_time < 0.9
        page.go("about:blank")


def test_not_saved_unreadable_and_hostile(browser: Chromium, scenes: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    path = scenes / "classes.yaml"
    path.write_text("classes: ['<img src=x onerror=hacked=1>', '</script><script>hacked=1']\n")
    site = make_site(scenes, "--classes", str(path))
    site.task.images[1].path.write_bytes(b"no image")
    with serving(site) as url:
        page = open_annotation(browser, url, annotator="ann")
        assert "<img src=x" in page.text("#classes") and "hacked" not in page.run(
            "Object.keys(window)")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "add", full_disk)
            page.press("i")
            page.wait("document.querySelector('#saved').textContent === 'NOT SAVED'")
            assert "No space left" in page.text("#message") and progress(page) == "0 0 0"
        press_and_wait(page, "i")
        assert progress(page) == "1 1 0" and "saved" in page.text("#saved")
        press_and_wait(page, "PageDown")
        assert site.task.images[1].path.name in page.text("#notice")
        page.press("i")
        assert "cannot be read" in page.text("#message") and page.run("state.n_answered") == 1
        press_and_wait(page, " ")
        assert page.run("state.n_skipped") == 1
        page.go("about:blank")


def open_when_free(folder: Path) -> Store:
    for _ in range(500):
        with contextlib.suppress(InputError):
            return Store(folder)
        time.sleep(0.02)
    raise TimeoutError(f"{folder} is never free")


def test_two_windows_and_a_closed_one(browser: Chromium, site: serve.Site, scenes: Path) -> None:
    folder = scenes.parent / "logs" / "camvid_ann"
    with serving(site) as url:
        first = open_annotation(browser, url, annotator="ann")
        second = open_annotation(browser, url, annotator="ann")
        first.press("k")
        first.wait("mode === 'taken'")
        assert "another browser window" in first.text("#message")
        press_and_wait(second, "k")
        first.press("Enter")
        wait_until_painted(first)
        assert progress(first) == "1 1 0"
        site.desks.close()  # as after a long pause
        first.press("b")
        first.wait("painted && document.querySelector('#message').innerText.includes('again')")
        press_and_wait(first, "b")
        assert progress(first) == "2 2 0"
        with pytest.raises(InputError, match="another window"):
            Store(folder)
        first.go("about:blank")  # a page that goes away leaves
        store = open_when_free(folder)
        third = browser.page(url + "?annotator=ann")
        third.wait("document.querySelector('#problem').textContent")
        assert "open in another window" in third.text("#problem")
        store.close()
        for page in (second, third):
            page.go("about:blank")


def test_key_to_paint_is_measured(browser: Chromium, site: serve.Site) -> None:
    with serving(site) as url:
        page = open_annotation(browser, url, annotator="ann")
        for _ in range(2 * N_PIXELS):
            press_and_wait(page, "k")
        times = paint_times(page)
        assert [other for _, other in times].count(True) == 2
        assert all(0 < ms < 2000 for ms, _ in times)
        page.go("about:blank")
