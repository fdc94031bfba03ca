"""The browser version's routes, with Flask's client in place of a browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_tool import serve
from annotation_tool.store import Store
from datasets.images import read_image
from tests.annotation_tool.sites import (
    N_IMAGES,
    N_PIXELS,
    Annotator,
    asked,
    full_disk,
    logged,
    make_site,
)
from utils.errors import InputError

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
