"""Files from the web: whole, checked, kept; what goes wrong is one line and leaves nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from utils.downloads import local_file
from utils.errors import InputError

CONTENT = bytes(range(256)) * 9000  # more than two blocks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Web:
    """A server of `files`, path -> content; `asked` are the requests, `tokens` what they carried.
    `promised`: path -> a Content-Length that is not so; `moved`: path -> where to."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.promised: dict[str, int] = {}
        self.moved: dict[str, str] = {}
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                web.tokens.append(self.headers.get("Authorization"))
                content = web.files.get(self.path)
                if self.path in web.moved:
                    self.send_response(302)
                    self.send_header("Location", web.moved[self.path])
                elif content is None:
                    self.send_response(404)
                else:
                    self.send_response(200)
                    length = web.promised.get(self.path, len(content))
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def webs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Web, Web]]:
    """Two servers; the cache is in `tmp_path`."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    both = Web(), Web()
    yield both
    for web in both:
        web.stop()


@pytest.fixture
def web(webs: tuple[Web, Web]) -> Web:
    webs[0].files["/a/model.pt"] = CONTENT
    return webs[0]


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]


def assert_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        local_file(source)
    assert "\n" not in str(caught.value)
    assert not kept(tmp_path)


def test_a_path_is_a_path(tmp_path):
    assert local_file(tmp_path / "model.pt") == tmp_path / "model.pt"
    assert local_file("a/model.pt") == Path("a/model.pt")


def test_downloaded_once(web, tmp_path, capsys):
    path = local_file(f"{web.url}/a/model.pt")
    assert path.name == "model.pt" and path.read_bytes() == CONTENT
    assert web.asked == ["/a/model.pt.sha256", "/a/model.pt"]
    assert f"SHA-256 {DIGEST} was compared with nothing" in capsys.readouterr().err
    web.stop()
    assert local_file(f"{web.url}/a/model.pt") == path and kept(tmp_path) == [path]


def test_files_of_one_name_are_kept_apart(web):
    web.files["/b/model.pt"] = b"other"
    assert local_file(f"{web.url}/a/model.pt") != local_file(f"{web.url}/b/model.pt")


def test_hash_behind_the_address(web, tmp_path):
    path = local_file(f"{web.url}/a/model.pt#sha256={DIGEST.upper()}")
    assert path.read_bytes() == CONTENT and web.asked == ["/a/model.pt"]
    path.write_bytes(b"broken since")
    assert local_file(f"{web.url}/a/model.pt#sha256={DIGEST}").read_bytes() == CONTENT


def test_wrong_hash(web, tmp_path):
    assert_refused(f"{web.url}/a/model.pt#sha256={'0' * 64}",
                   f"cannot get .*invalid hash value.*{DIGEST}", tmp_path)


def test_hash_beside_the_file(web, tmp_path, capsys):
    web.files["/a/model.pt.sha256"] = f"{'0' * 64}  model.pt\n".encode()
    assert_refused(f"{web.url}/a/model.pt", "invalid hash value", tmp_path)
    web.files["/a/model.pt.sha256"] = b"<html>"
    assert_refused(f"{web.url}/a/model.pt", "holds no SHA-256", tmp_path)
    web.files["/a/model.pt.sha256"] = f"{DIGEST}  model.pt\n".encode()
    assert local_file(f"{web.url}/a/model.pt").read_bytes() == CONTENT
    assert "compared with nothing" not in capsys.readouterr().err


def test_broken_connection(web, tmp_path):
    web.promised["/a/model.pt"] = len(CONTENT) + 1
    assert_refused(f"{web.url}/a/model.pt", "connection broke", tmp_path)


def test_no_such_file_and_no_server(web, tmp_path):
    assert_refused(f"{web.url}/a/none.pt", "cannot get .*/a/none.pt .*404.*give its path", tmp_path)
    web.stop()
    assert_refused(f"{web.url}/a/model.pt", "cannot get .*refused", tmp_path)


@pytest.mark.parametrize(("source", "message"), [
    ("http://127.0.0.1/model.pt#sha256=12", "64 hexadecimal digits"),
    ("http://127.0.0.1/model.pt#part", "64 hexadecimal digits"),
    ("http://127.0.0.1/", "names no file"),
    ("http://127.0.0.1/a/%2E%2E", "names no file"),
    ("http://[/model.pt", "cannot get"),
    ("hf://owner/repo", "expected hf://OWNER/REPO/PATH"),
])
def test_addresses_that_are_none(source, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert_refused(source, message, tmp_path)


def test_hugging_face(webs, monkeypatch):
    hub, store = webs
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.files["/me/zoo/resolve/main/camvid/a%20b.pt"] = CONTENT
    assert local_file("hf://me/zoo/camvid/a b.pt").name == "a b.pt"
    assert set(hub.tokens) == {"Bearer secret"}
    # As the hub does: renamed on the same host, then stored on another one.
    hub.moved["/me/zoo/resolve/v%2F1/c.pt"] = "/we/zoo/resolve/v1/c.pt"
    hub.moved["/we/zoo/resolve/v1/c.pt"] = f"{store.url}/stored"
    store.files["/stored"] = CONTENT
    path = local_file(f"hf://me/zoo/c.pt@v/1#sha256={DIGEST}")
    assert path.name == "c.pt" and path.read_bytes() == CONTENT
    assert set(hub.tokens) == {"Bearer secret"} and store.tokens == [None]


def test_token_is_for_the_hub_alone(web, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    local_file(f"{web.url}/a/model.pt")
    assert set(web.tokens) == {None}
