"""The annotator's folder: what is on the disk after every action, crashes, damage, locks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from annotation_tool import store as store_module
from annotation_tool.store import Store
from datasets.annotations import Annotation, log_path, read_logs
from utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


def pixel(image: str = "train/a.png", y: int = 1, x: int = 2, **kwargs: object) -> Annotation:
    return Annotation(image=image, y=y, x=x, h=4, w=10, **kwargs)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_every_action_is_a_line_before_it_returns(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "me")) as store:
        store.add("answer", pixel(label="sky", elapsed_time=1.25, total_time=1.25))
        assert [line["label"] for line in lines(tmp_path / "me")] == ["sky"]
        store.add("undo", of=1)
        store.add("skip", pixel(x=3, elapsed_time=2.0, total_time=3.25))
    written = lines(tmp_path / "me")
    assert [(line["seq"], line["do"]) for line in written] == [(1, "answer"), (2, "undo"),
                                                               (3, "skip")]
    assert written[1]["of"] == 1 and "label" not in written[2]
    assert read_logs(tmp_path / "me") == []  # undone, and a skip is no answer


def test_the_log_has_the_documented_columns(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.add("answer", pixel("d/ü, b.jpg", label="sign symbol", elapsed_time=31.0,
                                  total_time=40.0))
    path = tmp_path / "d" / "ü, b.txt"
    assert path.read_text(encoding="utf-8") == (
        "y,x,label,elapsed_time,total_time,h,w,slow,image\n"
        '1,2,sign symbol,31.000,40.000,4,10,1,"d/ü, b.jpg"\n')


def test_images_that_share_a_log_keep_their_answers(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.add("answer", pixel("a.png", label="sky"))
        store.add("answer", pixel("a.jpg", label="road"))
    assert [(a.image, a.label) for a in read_logs(tmp_path)] == [("a.png", "sky"),
                                                                 ("a.jpg", "road")]


def test_logs_that_lag_behind_are_written_at_the_next_start(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.add("answer", pixel(label="sky"))
    log_path(tmp_path, "train/a.png").unlink()
    Store(tmp_path).close()
    assert [a.label for a in read_logs(tmp_path)] == ["sky"]


def test_equal_logs_are_left_alone(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.add("answer", pixel(label="sky"))
    before = log_path(tmp_path, "train/a.png").stat()
    Store(tmp_path).close()
    after = log_path(tmp_path, "train/a.png").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


@pytest.mark.parametrize("torn", [b'{"seq": 2, "do": "ans', b"\x00\x00\x00\n", b"{}\n",
                                  b'{"seq": 2, "do": "undo", "time": "", "of": 7}\n'])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     torn: bytes) -> None:
    with closing(Store(tmp_path)) as store:
        store.add("answer", pixel(label="sky"))
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    with closing(Store(tmp_path)) as store:
        assert journal.read_bytes() == whole and "torn" in capsys.readouterr().err
        assert store.add("answer", pixel(x=3, label="road")).seq == 2
    assert [a.label for a in read_logs(tmp_path)] == ["sky", "road"]


@pytest.mark.parametrize("damage", [
    "no json", '{"seq": 1}', "[]", '{"seq": 9, "do": "undo", "time": "", "of": 1}',
    '{"seq": 1, "do": "undo", "time": "", "of": 1}',
    '{"seq": 1, "do": "answer", "time": "", "image": "../a.png", "y": 0, "x": 0, "h": 1, "w": 1}',
    '{"seq": 1, "do": "answer", "time": "", "image": "a.png", "y": "0", "x": 0, "h": 1, "w": 1}',
    '{"seq": 1, "do": "answer", "time": "", "image": "a.png", "y": 0, "x": 0, "h": 1, "w": 1, '
    '"label": []}',
    "[" * 100000,
])
def test_a_damaged_journal_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    journal = tmp_path / "journal.jsonl"
    content = f'{damage}\n{{"seq": 2, "do": "undo", "time": "", "of": 1}}\n'
    journal.write_text(content)
    with pytest.raises(InputError, match=r"journal\.jsonl: line 1 is damaged"):
        Store(tmp_path)
    assert journal.read_text() == content
    journal.unlink()
    Store(tmp_path).close()  # the lock was given back


def test_a_second_window_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    with closing(Store(tmp_path)):
        with pytest.raises(InputError, match=f"open in another window.*process {os.getpid()}"):
            Store(tmp_path)
    Store(tmp_path).close()


def test_a_killed_process_leaves_no_lock_and_loses_nothing(tmp_path: Path) -> None:
    program = ("import sys; sys.path.insert(0, {!r})\n"
               "from tests.annotation_tool.test_store import Store, pixel\n"
               "store = Store(sys.argv[1])\n"
               "for x in range(10**6):\n"
               "    store.add('answer', pixel(x=x % 10, y=x // 10 % 4, label='sky'))\n"
               "    print(x, flush=True)\n")
    child = subprocess.Popen([sys.executable, "-c", program.format(str(REPOSITORY)),
                              str(tmp_path)], stdout=subprocess.PIPE, text=True)
    confirmed = [int(child.stdout.readline()) for _ in range(25)]
    child.send_signal(signal.SIGKILL)
    confirmed += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait()
    with closing(Store(tmp_path)) as store:
        assert len(store.actions) >= len(confirmed)
    expected = {(x // 10 % 4, x % 10) for x in confirmed}
    assert {(a.y, a.x) for a in read_logs(tmp_path)} >= expected


def test_what_cannot_be_written_changes_nothing(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Store(tmp_path)) as store:
        store.add("answer", pixel(label="sky"))
        before = (tmp_path / "journal.jsonl").read_bytes()
        real_write = os.write

        def full(file: int, content: bytes) -> int:
            real_write(file, content[:20])  # half a line gets through
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store_module.os, "write", full)
        with pytest.raises(InputError, match="No space left.*--dir_logs"):
            store.add("answer", pixel(x=5, label="road"))
        monkeypatch.undo()
        assert (tmp_path / "journal.jsonl").read_bytes() == before
        assert store.state(pixel(x=5).pixel) is None
        assert store.add("answer", pixel(x=5, label="road")).seq == 2
    assert [a.label for a in read_logs(tmp_path)] == ["sky", "road"]


def test_a_log_that_cannot_be_written_is_said_when_leaving(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "train").write_text("in the way of a folder")
    store.add("answer", pixel(label="sky"))
    with pytest.raises(InputError, match=r"safe in journal\.jsonl"):
        store.close()
    (tmp_path / "train").unlink()
    Store(tmp_path).close()
    assert [a.label for a in read_logs(tmp_path)] == ["sky"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*file.me.*--dir_logs"):
        Store(tmp_path / "file" / "me")
