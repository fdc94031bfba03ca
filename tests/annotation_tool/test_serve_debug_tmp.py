"""The browser version: every route with Flask's client, and whole sessions in real Chromium."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_tool import options, serve
from annotation_tool.store import Store
from datasets.annotations import read_logs
from datasets.queries import Query, write_query
from datasets.synthetic import write_street_scenes
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
from utils.errors import InputError
from utils.geometry import pixel_under

pytest.importorskip("flask")
pytest.importorskip("waitress")
make_server = pytest.importorskip("werkzeug.serving").make_server

ROOT = Path(__file__).resolve().parents[2]
N_IMAGES, N_PIXELS = 3, 10
GRID = (45, 60)  # the files have 48x64
LOOK = {"ui_scale": 1.0, "marker_size": 24, "edge_size": 2, "show_others": False}


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """`train/`, `trainannot/` and a `query.json` with predictions."""
    folder = tmp_path / "scenes"
    write_street_scenes(folder, n_train=N_IMAGES, n_test=1, height=48, width=64)
    names = sorted(path.relative_to(folder).as_posix() for path in (folder / "train").iterdir())
    rng = np.random.default_rng(0)
    h, w = GRID
    pixels = [np.stack(np.unravel_index(rng.choice(h * w, N_PIXELS, replace=False), GRID), axis=1)
              for _ in names]
    write_query(folder, Query(
        names=names, sizes=np.tile(GRID, (len(names), 1)), pixels=pixels, strategy="entropy",
        seed=0, scores=[np.ones(N_PIXELS)] * N_IMAGES,
        predictions=[np.full(N_PIXELS, 3)] * N_IMAGES,
        probabilities=[np.full(N_PIXELS, 0.75)] * N_IMAGES), max_mask_gb=1)
    return folder


def flags(scenes: Path, *more: str) -> list[str]:
    return ["--dataset_name", "cv", "--dir_imgs", str(scenes / "train"), "--path_query",
            str(scenes / "query.json"), "--dir_logs", str(scenes.parent / "logs"), *more]


def make_site(scenes: Path, *more: str, token: str | None = None, practice: bool = False,
              hosts: frozenset[str] | None = frozenset({"localhost", "127.0.0.1"})) -> serve.Site:
    task = options.prepare(serve.parse(flags(scenes, *more)), {})
    return serve.Site(task, look=LOOK, practice=practice, token=token, hosts=hosts)


@pytest.fixture
def site(scenes: Path) -> Iterator[serve.Site]:
    site = make_site(scenes)
    yield site
    site.desks.close()


class Annotator:
    """A page without a browser; `state` is the last one it was sent."""

    def __init__(self, site: serve.Site, name: str, *, window: str = "w") -> None:
        self.client = site.app().test_client()
        self.name, self.window, self.state = name, window, {}

    def post(self, path: str, **body: object) -> tuple[int, dict]:
        reply = self.client.post(path, json={"annotator": self.name, "window": self.window, **body},
                                 headers={"Origin": "http://localhost"})
        self.state = reply.json.get("state", self.state)
        return reply.status_code, reply.json

    def open(self) -> Annotator:
        status, reply = self.post("/open")
        assert status == 200, reply
        return self

    def act(self, do: str, **body: object) -> tuple[int, dict]:
        shown = {key: self.state[key] for key in ("index", "actions")}
        return self.post("/act", **{"do": do, **shown, **body})

    def answer(self, label: str) -> tuple[int, dict]:
        return self.act("answer", label=label, seconds=1.5)


def logged(scenes: Path, name: str) -> dict[tuple[str, int, int], str]:
    folder = scenes.parent / "logs" / f"camvid_{name}"
    return {(a.image, a.y, a.x): a.label for a in read_logs(folder)}


def asked(scenes: Path) -> list[tuple[str, int, int]]:
    images = json.loads((scenes / "query.json").read_text())["images"]
    return [(image["image"], y, x) for image in images for y, x in image["pixels"]]


# --- routes -------------------------------------------------------------------------------------


def test_page_is_one_document_that_fetches_nothing_foreign(site: serve.Site) -> None:
    reply = site.app().test_client().get("/")
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", reply.headers["Content-Security-Policy"])[1]
    text = reply.text
    assert text.count(f'nonce="{nonce}"') == 2 and "NONCE" not in text
    assert "SCRIPT" not in text and "STYLE" not in text and "keydown" in text
    assert not re.search(r"https?://|innerHTML|\ssrc=|@import", text)
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"
    assert site.app().test_client().get("/").text != text  # the nonce


def test_a_session_of_answers_skip_undo_redo_looks(site: serve.Site, scenes: Path) -> None:
    ann = Annotator(site, "ann").open()
    assert ann.state["index"] == 0 and ann.state["position"] == [1, 3, 1, 10]
    assert ann.state["suggestion"] == ["road", 0.75] and len(ann.state["others"]) == 9
    assert ann.answer("sky")[0] == 200
    journal = scenes.parent / "logs" / "camvid_ann" / "journal.jsonl"
    assert json.loads(journal.read_text())["label"] == "sky"  # on the disk with the reply
    assert ann.state["index"] == 1 and ann.state["used"] == {"sky": 1}
    assert ann.act("undo")[1]["message"] == "undo" and ann.state["index"] == 0
    assert ann.act("undo")[1]["message"] == "! nothing to undo"
    assert ann.act("redo")[0] == 200 and ann.state["label"] == "sky"
    assert ann.act("redo")[1]["message"] == "! nothing to redo"
    assert ann.act("look", step=1)[0] == 200 and ann.state["index"] == 1
    assert ann.act("skip", seconds=0)[0] == 200 and ann.state["n_skipped"] == 1
    assert ann.act("look_image", step=1)[0] == 200 and ann.state["image"] == 1
    assert ann.act("go_to", text="3")[0] == 200 and ann.state["image"] == 2
    assert ann.act("go_to", text="no such")[1]["message"].startswith("! no image")
    assert ann.answer("void")[0] == 200
    status, reply = ann.post("/leave")
    assert status == 200 and "2 of 30 pixels are answered" in reply["farewell"]
    pixels = asked(scenes)
    assert logged(scenes, "ann") == {pixels[0]: "sky", pixels[20]: "void"}


def test_resumes_where_it_stopped(site: serve.Site, scenes: Path) -> None:
    ann = Annotator(site, "ann").open()
    for label in ("sky", "road", "car"):
        ann.answer(label)
    site.desks.close()  # the program ends
    again = Annotator(make_site(scenes), "ann").open()
    assert again.state["index"] == 3 and again.state["n_answered"] == 3
    assert again.act("undo")[0] == 200 and again.state["index"] == 2


def test_a_second_post_of_one_answer_labels_nothing(site: serve.Site, scenes: Path) -> None:
    ann = Annotator(site, "ann").open()
    first = dict(ann.state)
    ann.answer("sky")
    status, reply = ann.act("answer", label="sky", seconds=1, index=first["index"],
                            actions=first["actions"])
    assert status == 409 and reply["state"]["index"] == 1 and reply["state"]["n_answered"] == 1
    ann.act("look", step=-1)  # the same pixel, but the page has not seen that it is answered
    assert ann.act("undo", index=0, actions=0)[0] == 409
    assert ann.state["n_answered"] == 1


@pytest.mark.parametrize("body", [
    {"do": "answer", "label": "sky", "seconds": float("nan")},
    {"do": "answer", "label": "sky", "seconds": float("inf")},
    {"do": "answer", "label": "sky", "seconds": -1},
    {"do": "answer", "label": "sky", "seconds": True},
    {"do": "answer", "label": "sky", "seconds": "1"},
    {"do": "answer", "label": "sky"},
    {"do": "answer", "label": "no class", "seconds": 1},
    {"do": "answer", "label": ["sky"], "seconds": 1},
    {"do": "look", "step": 0.5}, {"do": "look"}, {"do": "go_to", "text": "x" * 2000},
    {"do": "close"}, {"do": None}, {"do": "undo", "index": "0"}, {"do": "undo", "index": True},
    {"do": "undo", "annotator": 5}, {"do": "undo", "window": None},
])
def test_bad_requests_are_refused_in_one_line(site: serve.Site, body: dict) -> None:
    ann = Annotator(site, "ann").open()
    status, reply = ann.act(body.pop("do"), **body)
    assert status == 400 and "\n" not in reply["error"]
    assert ann.open().state["actions"] == 0


def test_bodies_that_are_no_json_object(site: serve.Site) -> None:
    client, origin = site.app().test_client(), {"Origin": "http://localhost"}
    for data, kind, status in (("[1]", "application/json", 400), ("{", "application/json", 400),
                               ("{}", "text/plain", 415), ("x" * 70000, "application/json", 413)):
        reply = client.post("/act", data=data, content_type=kind, headers=origin)
        assert reply.status_code == status and reply.json["error"]
    assert client.get("/act").status_code == 405
    assert client.get("/nothing").status_code == 404


# --- who may ask --------------------------------------------------------------------------------


def test_every_route_needs_the_token(scenes: Path) -> None:
    client = make_site(scenes, token="abc123", hosts=None).app().test_client()
    for path in ("/", "/picture/0", "/picture/99", "/nothing"):
        for token in ("", "?token=", "?token=abc124", "?token=%C3%A4"):
            assert client.get(path + token).status_code == 403
    for path in ("/open", "/act", "/leave"):
        assert client.post(path, json={}, headers={"Origin": "http://localhost"}).status_code == 403
    assert client.get("/?token=abc123").status_code == 200
    assert client.get("/picture/0?token=abc123").status_code == 200
    reply = client.post("/open?token=abc123", json={"annotator": "a", "window": "w"},
                        headers={"Origin": "http://localhost"})
    assert reply.status_code == 200


def test_a_name_that_was_made_to_lead_here_is_refused(site: serve.Site) -> None:
    client = site.app().test_client()
    for host, status in (("127.0.0.1:8765", 200), ("localhost", 200), ("evil.example", 403),
                         ("127.0.0.1.evil.example:8765", 403), ("[::1", 403)):
        assert client.get("/", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(("headers", "status"), [
    ({"Origin": "http://localhost"}, 200),
    ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "http://localhost:81"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, 403),
    ({}, 403),
])
def test_other_websites_cannot_post(site: serve.Site, headers: dict, status: int) -> None:
    body = {"annotator": "ann", "window": "w"}
    reply = site.app().test_client().post("/open", json=body, headers=headers)
    assert reply.status_code == status


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", "a\nb", "<b>", ".hidden", "a b",
                                  "x" * 65, "nul\0"])
def test_names_that_are_no_folders(site: serve.Site, scenes: Path, name: str) -> None:
    status, reply = Annotator(site, name).post("/open")
    assert status == 400 and "make a name" in reply["error"] and "--" not in reply["error"]
    assert not (scenes.parent / "logs").exists()


# --- annotators and windows ---------------------------------------------------------------------


def test_two_annotators_at_once(site: serve.Site, scenes: Path) -> None:
    def work(name: str, label: str) -> None:
        annotator = Annotator(site, name).open()
        for _ in range(N_IMAGES * N_PIXELS):
            assert annotator.answer(label)[0] == 200
        assert annotator.state["finished"]

    threads = [threading.Thread(target=work, args=of) for of in (("ann", "sky"), ("bob", "car"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    site.desks.close()
    assert logged(scenes, "ann") == dict.fromkeys(asked(scenes), "sky")
    assert logged(scenes, "bob") == dict.fromkeys(asked(scenes), "car")


def test_the_newest_window_of_a_name_has_the_session(site: serve.Site) -> None:
    old, new = Annotator(site, "ann").open(), Annotator(site, "ann", window="new")
    assert new.post("/open")[0] == 200
    for path, more in (("/act", {"do": "undo", "index": 0, "actions": 0}), ("/leave", {})):
        status, reply = old.post(path, **more)
        assert status == 423 and "another browser window" in reply["error"]
    assert new.answer("sky")[0] == 200
    assert old.open().state["n_answered"] == 1


def test_a_folder_that_another_program_has(site: serve.Site, scenes: Path) -> None:
    folder = scenes.parent / "logs" / "camvid_ann"
    store = Store(folder)
    status, reply = Annotator(site, "ann").post("/open")
    assert status == 423 and "is open in another window" in reply["error"]
    store.close()
    ann = Annotator(site, "ann").open()
    with pytest.raises(InputError, match="open in another window"):
        Store(folder)
    assert ann.post("/leave")[0] == 200
    Store(folder).close()
    assert ann.act("undo")[0] == 410


def test_idle_sessions_are_closed_and_open_again(site: serve.Site, scenes: Path) -> None:
    ann = Annotator(site, "ann").open()
    ann.answer("sky")
    site.desks.close(idle_seconds=60)
    assert ann.answer("sky")[0] == 200  # it was not idle
    site.desks.close()
    assert ann.answer("sky")[0] == 410
    assert Annotator(site, "nobody").post("/leave")[0] == 410
    assert ann.open().state["n_answered"] == 2


def test_what_cannot_be_saved_changes_nothing(site: serve.Site,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    ann = Annotator(site, "ann").open()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", full_disk)
        for do, more in (("answer", {"label": "sky", "seconds": 1}), ("skip", {"seconds": 1})):
            status, reply = ann.act(do, **more)
            assert status == 507 and "No space left" in reply["error"]
    assert ann.answer("sky")[0] == 200 and ann.state["n_answered"] == 1


def full_disk(*_: object, **__: object) -> None:
    raise InputError("cannot write journal.jsonl: No space left on device; make room there")


# --- pictures -----------------------------------------------------------------------------------


def save_turned(path: Path, image: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, "JPEG", exif=exif)


@pytest.mark.parametrize(("save", "own"), [
    (lambda path, image: image.save(path, "PNG"), True),
    (lambda path, image: image.save(path, "JPEG"), True),
    (lambda path, image: image.save(path, "WEBP"), True),
    (lambda path, image: image.save(path, "BMP"), True),
    (lambda path, image: image.convert("L").save(path, "PNG"), True),
    (lambda path, image: image.quantize(16).save(path, "PNG"), True),
    (lambda path, image: image.save(path, "TIFF"), False),
    (lambda path, image: image.save(path, "PPM"), False),
    (lambda path, image: image.convert("CMYK").save(path, "JPEG"), False),
    (lambda path, image: image.convert("RGBA").save(path, "PNG"), False),
    (save_turned, False),
])
def test_pictures_are_the_file_or_what_training_sees(site: serve.Site, save: Callable,
                                                     own: bool) -> None:
    path = site.task.images[0].path
    image = Image.open(path).convert("RGB")
    image.load()
    save(path, image)
    content, mime_type = serve.picture(path)
    assert (content == path.read_bytes()) == own
    assert own or mime_type == "image/png"
    reply = site.app().test_client().get("/picture/0")
    assert (reply.data, reply.mimetype) == (content, mime_type)
    if not own:
        from io import BytesIO

        from datasets.images import read_image

        assert (np.array(Image.open(BytesIO(content))) == read_image(path)).all()


def test_an_image_that_cannot_be_read_is_skipped_not_labelled(site: serve.Site) -> None:
    path = site.task.images[0].path
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    ann = Annotator(site, "ann").open()
    reply = ann.client.get("/picture/0")
    assert reply.status_code == 422 and path.name in reply.json["error"]
    assert ann.answer("sky")[0] == 422 and ann.state["actions"] == 0
    assert ann.act("skip", seconds=1)[0] == 200
    path.write_bytes(content)  # repaired
    assert ann.client.get("/picture/0").status_code == 200
    assert ann.answer("sky")[0] == 200
    path.unlink()
    assert ann.client.get("/picture/0").status_code == 422


def test_pictures_go_by_number(site: serve.Site) -> None:
    client = site.app().test_client()
    for path in ("/picture/3", "/picture/-1", "/picture/x", "/picture/..%2f..%2fquery.json",
                 "/picture/"):
        assert client.get(path).status_code == 404


# --- ground truth -------------------------------------------------------------------------------


def test_the_score_comes_when_leaving(scenes: Path) -> None:
    site = make_site(scenes, "--dir_gts", str(scenes / "trainannot"))
    ann = Annotator(site, "ann").open()
    assert ann.answer("sky")[1]["message"] == ""
    assert "ground truth: " in ann.post("/leave")[1]["farewell"]
    ann.open().answer("sky")
    for path in (scenes / "trainannot").iterdir():
        path.write_bytes(b"no label map")
    site = make_site(scenes, "--dir_gts", str(scenes / "trainannot"))
    ann.post("/leave")
    ann = Annotator(site, "ann").open()
    farewell = ann.post("/leave")[1]["farewell"]
    assert "2 of 30 pixels are answered" in farewell and "cannot be read" in farewell


def test_practice_says_at_once_what_was_right(scenes: Path) -> None:
    site = make_site(scenes, "--dir_gts", str(scenes / "trainannot"), practice=True)
    ann = Annotator(site, "ann").open()
    messages = [ann.answer("sky")[1]["message"] for _ in range(20)]
    assert "right" in messages
    assert any(re.fullmatch(r"wrong: it was [\w ]+, not sky", message) for message in messages)
    site.desks.close()


# --- the program --------------------------------------------------------------------------------


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The running program, and the address that it printed."""
    process = subprocess.Popen([sys.executable, "-m", "annotation_tool.serve", *arguments],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("annotate at "), line + process.stderr.read()
        yield process, line.split()[2]
    finally:
        process.kill()
        process.communicate()


def run_badly(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "annotation_tool.serve", *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_bad_flags_are_one_line(scenes: Path) -> None:
    assert "cannot listen" in run_badly(*flags(scenes, "--port", "99999"))
    assert "cannot listen" in run_badly(*flags(scenes, "--host", "no.such.host.invalid"))
    assert "letters and digits" in run_badly(*flags(scenes, "--token", "a b"))


def test_without_flask_it_says_what_to_install(scenes: Path) -> None:
    code = ("import sys; sys.modules['flask'] = None; from utils.errors import run_program; "
            "from annotation_tool.serve import main; run_program(lambda: main(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", code, *flags(scenes)], cwd=ROOT, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 2 and "pip install flask waitress" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_with_all_logs_written_and_says_a_taken_port(scenes: Path, number: int) -> None:
    import urllib.request

    with program(*flags(scenes, "--port", "0")) as (process, url):
        port = url.rstrip("/").rpartition(":")[2]
        assert url == f"http://127.0.0.1:{port}/"
        assert f"port {port}" in run_badly(*flags(scenes, "--port", port))

        def post(path: str, **body: object) -> dict:
            request = urllib.request.Request(url + path, json.dumps(
                {"annotator": "ann", "window": "w", **body}).encode(),
                {"Content-Type": "application/json", "Origin": url.rstrip("/")})
            with urllib.request.urlopen(request, timeout=20) as reply:
                return json.load(reply)

        state = post("open")["state"]
        post("act", do="answer", label="sky", seconds=1, index=state["index"],
             actions=state["actions"])
        process.send_signal(number)
        assert process.wait(20) in (0, 130)
        assert "Traceback" not in process.stderr.read()
    assert list(logged(scenes, "ann").values()) == ["sky"]


def test_beyond_this_machine_there_is_a_token(scenes: Path) -> None:
    import urllib.error
    import urllib.request

    with program(*flags(scenes, "--port", "0", "--host", "0.0.0.0")) as (_, url):
        port, token = re.fullmatch(r"http://[^/]+:(\d+)/\?token=([0-9a-f]{32})", url).groups()
        here = f"http://127.0.0.1:{port}/"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(here, timeout=20)
        with urllib.request.urlopen(f"{here}?token={token}", timeout=20) as reply:
            assert reply.status == 200


# --- in Chromium --------------------------------------------------------------------------------

in_chromium = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@contextlib.contextmanager
def serving(site: serve.Site) -> Iterator[str]:
    """The site's address, served from this process."""
    import flask
    app = site.app()
    app.before_request(lambda: print(time.monotonic(), flask.request.path, flask.request.get_data(), flush=True))
    server = make_server("127.0.0.1", 0, app, threaded=True)
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


@in_chromium
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


@in_chromium
def test_every_key_that_only_looks(browser: Chromium, site: serve.Site) -> None:
    with serving(site) as url:
        page = open_annotation(browser, url, annotator="ann")
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


@in_chromium
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


@in_chromium
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


@in_chromium
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


@in_chromium
def test_two_windows_and_a_closed_one(browser: Chromium, site: serve.Site, scenes: Path) -> None:
    folder = scenes.parent / "logs" / "camvid_ann"
    with serving(site) as url:
        first = open_annotation(browser, url, annotator="ann")
        second = open_annotation(browser, url, annotator="ann")
        print("SECOND", second.run("me"), second.run("mode"))
        first.press("k")
        time.sleep(1)
        print("FIRST", first.run("me"), first.run("mode"), first.run("performance.getEntriesByType('navigation').length"), first.run("location.href"), second.run("mode"), second.run("state.n_answered"))
        assert first.run("mode === 'taken'")
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


@in_chromium
def test_key_to_paint_is_measured(browser: Chromium, site: serve.Site) -> None:
    with serving(site) as url:
        page = open_annotation(browser, url, annotator="ann")
        for _ in range(2 * N_PIXELS):
            press_and_wait(page, "k")
        times = paint_times(page)
        assert [other for _, other in times].count(True) == 2
        assert all(0 < ms < 2000 for ms, _ in times)
        page.go("about:blank")
