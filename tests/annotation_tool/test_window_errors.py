"""What goes wrong around the annotation window: one clear line, and no answer is ever lost."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_tool import launch_gui
from annotation_tool.store import Store
from annotation_tool.truth import GroundTruth
from datasets.camvid import DEMO
from tests.annotation_tool.display import NAMES, App, Work, answer, wait_until
from tests.annotation_tool.shown import Shown
from utils.errors import run_program

pytest_plugins = ("tests.annotation_tool.display", "tests.annotation_tool.shown")

Starter, Opener, Worker = Callable[..., App], Callable[..., Shown], Callable[..., Work]


def one_line(app: App) -> str:
    """The error line of a program that ends with one."""
    code, out, error = app.end()
    assert code == 2, (code, out, error)
    assert error.count("\n") == 1 and error.startswith("error: "), error
    return error


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
            ) -> Callable[..., str]:
    """`refused(work, *flags)`: the error line of launch_gui.py, run in this process (faster) where
    no window can be opened."""
    monkeypatch.setenv("DISPLAY", ":99999")

    def run(work: Work, *flags: object) -> str:
        with pytest.raises(SystemExit) as ended:
            run_program(lambda: launch_gui.main(work.arguments(*flags)))
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert error.count("\n") == 1 and error.startswith("error: "), error
        assert "no window" not in error, "it was not refused"
        return error

    return run


# --- ends without warning -----------------------------------------------------------------------


@pytest.mark.parametrize("kill", [lambda app: app.process.send_signal(signal.SIGKILL),
                                  lambda app: app.display.xdotool("windowkill", app.window)],
                         ids=["kill -9", "connection to the screen lost"])
def test_killed_while_typing(work: Worker, start: Starter,
                             kill: Callable[[App], None]) -> None:
    task = work()
    app = start(task).ready()
    with subprocess.Popen(["xdotool", "key", "--delay", "40", *"kbprvtsf"],
                          env=app.display.environment):
        wait_until(lambda: len(task.lines()) >= 3, "three answers")
        acknowledged = task.lines()
        kill(app)
        assert app.end()[0] != 0
    after = task.lines()
    typed = [answer(i, key) for i, key in enumerate("kbprvtsf")]
    assert after[:len(acknowledged)] == acknowledged and after == typed[:len(after)]
    assert 3 <= len(after) < 8
    app = start(task).ready()  # the lock is free
    app.key("d")
    task.wait_for([*after, answer(len(after), "d")])
    app.leave()
    check = [line.split(",")[2] for line in
             (task.answers / "train/scene_0000.txt").read_text().splitlines()[1:]]
    assert check == [label for *_, label in after] + ["pedestrian"]


def test_torn_last_line(work: Worker, start: Starter) -> None:
    task = work()
    app = start(task).ready()
    app.key("k")
    task.wait_for([answer(0, "k")])
    app.leave()
    journal = task.answers / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.replace(b'"seq": 1', b'"seq": 2')[:len(whole) // 2])
    app = start(task).ready()
    assert journal.read_bytes() == whole
    app.key("b", "Escape")
    code, out, error = app.end()
    assert (code, out.split(" pixels")[0]) == (0, "2 of 30") and "torn last line" in error
    assert task.lines() == [answer(0, "k"), answer(1, "b")]


def test_starts_without_what_only_training_needs(work: Worker, start: Starter,
                                                 tmp_path: Path) -> None:
    absent = ["torch", "torchvision", "scipy", "matplotlib", "cv2", "yaml", "tqdm"]
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nfor name in {absent}:\n    sys.modules[name] = None\n"
        f"open({str(tmp_path / 'was here')!r}, 'w').close()\n")
    task = work()
    app = start(task, PYTHONPATH=str(tmp_path)).ready()
    app.key("k")
    task.wait_for([answer(0, "k")])
    assert app.leave().startswith("1 of 30") and (tmp_path / "was here").exists()


# --- the place for the answers ------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, to fill."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
                             capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_disk_full(show: Opener, work: Worker, small_disk: Path) -> None:
    """Keys that cannot be saved do not count and say so; with room again the same key works."""
    task = work()
    task.dir_logs = small_disk / "logs"
    shown = show(task.session()).ready()
    shown.key("k")
    filler, typed = fill(small_disk), [answer(0, "k")]
    while "NOT SAVED" not in shown.text:  # the journal's last block has some room left
        typed.append(answer(len(typed), "b"))
        assert len(typed) < 30
        shown.key("b")
    typed.pop()
    journal = (task.answers / "journal.jsonl").read_bytes()
    assert task.lines() == typed and journal.endswith(b"\n")
    cursor = shown.session.cursor
    assert cursor == len(typed) and "No space left on device" in shown.text
    shown.key("r", "BackSpace", "Delete", "space")
    assert "NOT SAVED" in shown.text and shown.session.cursor == cursor
    assert (task.answers / "journal.jsonl").read_bytes() == journal
    filler.unlink()
    shown.key("r", "BackSpace", "v")
    assert shown.text.endswith("saved") and "NOT SAVED" not in shown.text
    typed += [answer(cursor, "r"), ("undo", cursor + 1), answer(cursor, "v")]
    assert task.lines() == typed
    shown.session.store.flush()
    logged = [row.split(",")[2] for name in NAMES[:1 + cursor // 10] for row in
              (task.answers / name).with_suffix(".txt").read_text().splitlines()[1:]]
    assert logged == ["sky", *["building"] * (cursor - 1), "pavement"]


def test_leaving_while_the_disk_is_full(start: Starter, work: Worker, small_disk: Path) -> None:
    """The logs cannot be brought up to date, the answers are in the journal, and that is said."""
    task = work()
    task.flags["--dir_logs"] = task.dir_logs = small_disk / "logs"
    app = start(task).ready()
    app.key("k")
    log = (task.answers / NAMES[0]).with_suffix(".txt")
    task.wait_for([answer(0, "k")])
    wait_until(log.exists, "the log")
    filler = fill(small_disk)
    app.key("b")
    task.wait_for([answer(0, "k"), answer(1, "b")])
    app.key("Escape")
    error = one_line(app)
    assert "No space left on device" in error and "the answers are safe in journal.jsonl" in error
    filler.unlink()
    app = start(task).ready()
    assert app.leave().startswith("2 of 30")
    assert [row.split(",")[2] for row in log.read_text().splitlines()] == [
        "label", "sky", "building"]


def test_starting_while_the_disk_is_full(work: Worker, small_disk: Path,
                                         refused: Callable[..., str]) -> None:
    task = work()
    task.flags["--dir_logs"] = task.dir_logs = small_disk / "logs"
    filler = fill(small_disk)
    assert "No space left on device; make room" in refused(task)
    filler.unlink()
    Store(task.answers).close()  # the lock was not kept


def test_unwritable_folder(work: Worker, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "taken").write_text("a file")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "logs"):
        error = refused(work(), "--dir_logs", folder)
        assert f"cannot write {folder}" in error and "--dir_logs" in error


def test_read_only_folder(start: Starter, work: Worker, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    app = start(work(), "--dir_logs", small_disk / "logs")
    assert "Read-only file system" in one_line(app)


def test_second_window(start: Starter, work: Worker) -> None:
    task = work()
    first = start(task).ready()
    error = one_line(start(task))
    assert "is open in another window" in error and f"process {first.process.pid} on" in error
    assert "--annotator" in error
    first.key("k")
    task.wait_for([answer(0, "k")])
    other = start(task, "--annotator", "another")
    wait_until((task.dir_logs / "demo_another" / "journal.jsonl").exists, "a folder of its own")
    other.process.kill()
    first.focus()
    first.leave()


@pytest.mark.parametrize("display", ["", ":99999"], ids=["none", "dead"])
def test_no_display(work: Worker, display: str, capfd: pytest.CaptureFixture[str],
                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", display)
    if not display:
        monkeypatch.delenv("DISPLAY")
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: launch_gui.main(work().arguments()))
    error = capfd.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    assert "no window can be opened here" in error and "annotation_tool.serve" in error


# --- images -------------------------------------------------------------------------------------


@pytest.fixture
def own_streets(streets: Path, tmp_path: Path) -> Path:
    """A copy of the images to break."""
    return Path(shutil.copytree(streets, tmp_path / "own"))


def test_unreadable_image(show: Opener, own_streets: Path, tmp_path: Path) -> None:
    """The others can be annotated; its pixels cannot, and are skipped."""
    broken = own_streets / NAMES[1]
    broken.write_bytes(broken.read_bytes()[:200])
    task = Work(tmp_path, own_streets, n_pixels=2)
    shown = show(task.session()).ready()
    typed = [answer(0, "k"), answer(1, "k")]
    shown.key("k", "k")
    canvas = shown.window.view.canvas
    shown.wait_until(lambda: any("cannot be read as an image" in canvas.itemcget(item, "text")
                                 for item in canvas.find_all() if canvas.type(item) == "text"),
                     "what is wrong")
    shown.key("k")
    assert "this image cannot be read" in shown.text and task.lines() == typed
    shown.key("Delete")
    assert task.lines() == typed
    for _ in range(2):
        shown.key("space")
    shown.wait_until(lambda: "image 3/3" in shown.text, "the third image")
    shown.key("b", "b")
    typed += [("skip", 2), ("skip", 3), answer(4, "b"), answer(5, "b")]
    assert task.lines() == typed and shown.session.cursor == 2


def test_unreadable_label_map_while_practising(show: Opener, own_streets: Path, tmp_path: Path
                                               ) -> None:
    """The answer is saved, so the window must not say otherwise, and shows the next pixel."""
    label_map = own_streets / "trainannot" / "scene_0000.png"
    label_map.write_bytes(label_map.read_bytes()[:60])
    task = Work(tmp_path, own_streets)
    shown = show(task.session(), truth=GroundTruth(own_streets / "trainannot", DEMO)).ready()
    before = shown.grab(shown.window.view.canvas)
    shown.key("k")
    assert task.lines() == [answer(0, "k")]
    assert "NOT SAVED" not in shown.text and "pixel 2/10" in shown.text
    assert "scene_0000.png: cannot be read as an image" in shown.text
    assert (shown.grab(shown.window.view.canvas) != before).any()


def test_missing_image(work: Worker, own_streets: Path, refused: Callable[..., str]) -> None:
    (own_streets / NAMES[2]).unlink()
    error = refused(work(), "--dir_imgs", own_streets / "train")
    assert "1 of its 3 images are not in" in error and NAMES[2] in error


@pytest.mark.parametrize(("shape", "message"), [
    ((2, 48, 64), "2 masks, but 3 images"), ((4, 48, 64), "4 masks, but 3 images"),
    ((3, 64, 48), "masks of 64x48 do not fit"), ((3, 48, 72), "masks of 48x72 do not fit"),
    ((48, 64), "expected bool (images, height, width)")])
def test_masks_of_another_shape(work: Worker, tmp_path: Path, refused: Callable[..., str],
                                shape: tuple[int, ...], message: str) -> None:
    np.save(tmp_path / "masks.npy", np.ones(shape, bool))
    assert message in refused(work(), "--path_query", tmp_path / "masks.npy")


# --- flags, classes, project files --------------------------------------------------------------


@pytest.mark.parametrize(("flags", "message"), [
    (["--dataset_name", "kitti"], "unknown dataset 'kitti'; choose from camvid"),
    (["--n_imgs", "0"], "--n_imgs 0"), (["--n_imgs", "-2"], "--n_imgs -2"),
    (["--n_imgs", "many"], "invalid int value: 'many'"),
    (["--marker_size", "0"], "--marker_size 0: expected 6 to 400"),
    (["--edge_size", "0"], "--edge_size 0"), (["--ui_scale", "nan"], "--ui_scale nan"),
    (["--order", "uncertainty"], "--order uncertainty needs the scores"),
    (["--order", "random"], "invalid choice: 'random'"),
    (["--practice"], "give --dir_gts"),
    (["--dir_gts", "/nowhere"], "no folder /nowhere"),
    (["--dir_imgs", "/nowhere"], "no folder /nowhere"),
    (["--path_query", "/nowhere/query.json"], "no file /nowhere/query.json"),
    (["--annotator", "../me"], "--annotator '../me'"), (["--annotator", ""], "--annotator ''"),
    (["--colour", "red"], "unrecognized arguments: --colour red")], ids=lambda value: str(value))
def test_flags(work: Worker, refused: Callable[..., str], flags: list[str], message: str) -> None:
    assert message in refused(work(), *flags)


@pytest.mark.parametrize(("classes", "message"), [
    ("[{name: a, key: x}, {name: b, key: X}]", "'a' and 'b' have the same key 'x'"),
    ("[{name: a, key: ' '}]", "class 'a' has the key ' '"),
    ("[{name: a, key: F1}]", "class 'a' has the key 'F1'"),
    ("[{name: a, key: '+'}]", "class 'a' has the key '+'"),
    ("[{name: a, key: Escape}]", "the others are reserved"),
    ("[{name: a, key: \u00e9}]", "class 'a' has the key"),
    ("[a, a]", "'a' and 'a' have the same name"), ("[void]", "'void' is the answer"),
    ("[]", "0 classes"), ("[", "cannot read"), ("7", "expected `classes:`")], ids=str)
def test_classes(work: Worker, tmp_path: Path, refused: Callable[..., str], classes: str,
                 message: str) -> None:
    (tmp_path / "classes.yaml").write_text(f"classes: {classes}", encoding="utf-8")
    error = refused(work(), "--classes", tmp_path / "classes.yaml")
    assert message in error and "classes.yaml" in error


def changed(**entry: object) -> str:
    """A query.json whose first image has other entries."""
    first = {"image": NAMES[0], "h": 48, "w": 64, "pixels": [[1, 2]]} | entry
    return json.dumps({"format": "pixelpick-query-1", "strategy": "random", "seed": 0,
                       "images": [first]})


OUTSIDE = "is no path inside a folder of images"
HOSTILE = [
    *((changed(image=name), OUTSIDE) for name in (
        "../../x.png", "/etc/passwd", "train/../../x.png", "..\\..\\x.png", "C:/x.png",
        "train//scene_0000.png", "./x.png", "", "a\0b.png", "a\nb.png", 7, None, ["x"])),
    *((changed(pixels=pixels), "") for pixels in (
        [[-1, 2]], [[48, 2]], [[1, 64]], [[1, 2], [1, 2]], [[float("nan"), 1]],
        [[float("inf"), 1]], [[10**30, 1]], "ab", {"y": 1}, [[1]], [[1, [2]]], [None], 3,
        [[1.5, 2]], [["1", "2"]], [1, 2, 3, 4], [[1, 2, 3], [4, 5, 6]], [[True, False]], [])),
    *((changed(**{key: value}), "") for key in ("h", "w")
      for value in (10**30, -1, 0, "48", 48.5, None, float("nan"))),
    *((changed(**{key: value}), "") for key in ("scores", "predictions", "probabilities")
      for value in (["a"], ["1"], [None], [True], [1, 2], [[1]], {"a": 1}, "x")),
    (changed(predictions=[1.5]), ""),
    *((text, "") for text in (
        "", "{", "[]", "7", "null", '"x"', "{}", '{"format": "pixelpick-query-1"}', "[" * 100_000,
        '{"a":' * 100_000, "1" * 5000, "\ufeff{}", '{"format": "pixelpick-query-2"}',
        '{"format": "pixelpick-query-1", "strategy": "s", "seed": 0, "images": 3}',
        '{"format": "pixelpick-query-1", "strategy": "s", "seed": 0, "images": [3]}',
        '{"format": "pixelpick-query-1", "strategy": "s", "seed": 0, "images": []}')),
]


@pytest.mark.parametrize(("text", "message"), HOSTILE,
                         ids=[f"{i} {text[:1] and text[75:140]}" for i, (text, _) in
                              enumerate(HOSTILE)])
def test_hostile_query(work: Worker, tmp_path: Path, refused: Callable[..., str], text: str,
                       message: str) -> None:
    """Refused with one line that names the file."""
    (tmp_path / "hostile.json").write_text(text, encoding="utf-8")
    error = refused(work(), "--path_query", tmp_path / "hostile.json")
    assert message in error and "hostile.json" in error and len(error) < 1000


def test_query_that_is_no_text(start: Starter, work: Worker, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    assert "picture.png" in one_line(start(work(), "--path_query", tmp_path / "picture.png"))
