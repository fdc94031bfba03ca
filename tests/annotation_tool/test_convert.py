"""Between formats: everything comes back as it was, and nothing is spoilt on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_tool import convert
from datasets import DATASETS
from datasets.annotations import COLUMNS, Annotation, read_logs, read_table
from datasets.classes import VOID_NAME, read_classes
from datasets.queries import Query, write_query
from utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = DATASETS["camvid"]
# Names that are hard on some format, each with the (height, width) of its file and of its grid.
IMAGES = {
    "train/plain.png": ((36, 48), (36, 48)),
    "train/plain.jpg": ((30, 30), (12, 20)),
    'deep/er/größe, "50%" #1? 日本.png': ((37, 53), (18, 24)),
    " lead/it's & <b>.webp": ((11, 7), (22, 21)),
}


def write_images(root: Path) -> Path:
    for name, ((h, w), _) in IMAGES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((h, w, 3), np.uint8)).save(root / name)
    return root


@pytest.fixture(scope="module")
def dir_imgs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def drawn(seed: int, *, labels: Sequence[str | None] = (*CLASSES.class_names, VOID_NAME, None),
          n: int = 20) -> list[Annotation]:
    """`n` pixels of each image in random order, with random answers and times."""
    rng = np.random.default_rng(seed)
    found = []
    for name, (_, (h, w)) in IMAGES.items():
        for flat in rng.choice(h * w, size=n, replace=False).tolist():
            label = labels[rng.integers(len(labels))]
            seconds = round(float(rng.uniform(0, 60)), 3) if label else 0.0
            found.append(Annotation(image=name, y=flat // w, x=flat % w, h=h, w=w, label=label,
                                    elapsed_time=seconds, total_time=round(10 * seconds, 3)))
    return found


def write_csv(path: Path, annotations: Sequence[Annotation]) -> Path:
    convert.WRITERS["csv"](path, annotations, classes=CLASSES, dir_imgs=None)
    return path


def run(source: str, target: str, input_: Path, output: Path, *flags: str) -> Path:
    assert convert.main(["--from", source, "--to", target, "--input", str(input_), "--output",
                         str(output), *flags]) == 0
    return output


def fails(match: str, *arguments: object) -> None:
    with pytest.raises(InputError, match=match):
        run(*arguments)


def untimed(annotations: Sequence[Annotation]) -> list[Annotation]:
    return [replace(a, elapsed_time=0.0, total_time=0.0) for a in annotations]


def by_pixel(annotations: Sequence[Annotation]) -> list[Annotation]:
    return sorted(annotations, key=lambda a: a.pixel)


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_csv_keeps_everything_in_order(seed: int, tmp_path: Path) -> None:
    annotations = drawn(seed)
    first = write_csv(tmp_path / "a.csv", annotations)
    assert read_table(first) == annotations
    second = run("csv", "csv", first, tmp_path / "new folder" / "b.csv")
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_coco_keeps_everything_in_order(seed: int, tmp_path: Path, dir_imgs: Path) -> None:
    annotations = drawn(seed)
    annotations = [annotations[i] for i in np.random.default_rng(seed).permutation(80)]
    first = write_csv(tmp_path / "a.csv", annotations)
    coco = run("csv", "coco", first, tmp_path / "a.json", "--dir_imgs", str(dir_imgs))
    back = run("coco", "csv", coco, tmp_path / "b.csv")
    assert back.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_via_keeps_everything_but_times(seed: int, tmp_path: Path, dir_imgs: Path) -> None:
    annotations = drawn(seed)
    first = write_csv(tmp_path / "a.csv", annotations)
    via = run("csv", "via", first, tmp_path / "a.json", "--dir_imgs", str(dir_imgs))
    back = run("via", "csv", via, tmp_path / "b.csv")
    assert read_table(back) == untimed(annotations)


def test_logs_keep_the_answered_ones(tmp_path: Path) -> None:
    annotations = drawn(0)
    logs = run("csv", "logs", write_csv(tmp_path / "a.csv", annotations), tmp_path / "logs")
    assert {path.relative_to(logs).as_posix() for path in logs.rglob("*") if path.is_file()} == {
        "train/plain.txt", 'deep/er/größe, "50%" #1? 日本.txt', " lead/it's & <b>.txt"}
    answered = [a for a in annotations if a.label is not None]
    assert by_pixel(read_logs(logs)) == by_pixel(answered)
    again = run("logs", "csv", logs, tmp_path / "b.csv")
    assert by_pixel(read_table(again)) == by_pixel(answered)
    assert len(answered) < len(annotations)


def test_a_way_through_all_formats(tmp_path: Path, dir_imgs: Path) -> None:
    flags = "--dir_imgs", str(dir_imgs)
    annotations = drawn(4, labels=(*CLASSES.class_names, VOID_NAME))
    path = write_csv(tmp_path / "0.csv", annotations)
    for i, (a, b) in enumerate([("csv", "coco"), ("coco", "logs"), ("logs", "via"),
                                ("via", "logs"), ("logs", "csv")]):
        path = run(a, b, path, tmp_path / f"step{i}.x", *flags)
    assert by_pixel(read_table(path)) == by_pixel(untimed(annotations))


def test_own_classes(tmp_path: Path, dir_imgs: Path) -> None:
    pytest.importorskip("yaml")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("classes: [{name: '<i>Wasser</i> & Eis, fest', key: '1'}, {name: '0', key: V},"
                    " {name: größe, key: '0'}]\nignore: 9\n", encoding="utf-8")
    classes = read_classes(yaml, name="mine")
    flags = "--classes", str(yaml), "--dataset_name", "mine", "--dir_imgs", str(dir_imgs)
    annotations = drawn(5, labels=(*classes.class_names, VOID_NAME, None))
    path = first = write_csv(tmp_path / "0.csv", untimed(annotations))
    for i, (a, b) in enumerate([("csv", "via"), ("via", "coco"), ("coco", "csv")]):
        path = run(a, b, path, tmp_path / f"step{i}.x", *flags)
    assert path.read_bytes() == first.read_bytes()
    fails("no class of camvid; give --dataset_name", "csv", "csv", first, tmp_path / "b.csv")


def query_of(annotations: Sequence[Annotation]) -> Query:
    names = list(IMAGES)
    return Query(names=names, sizes=np.array([IMAGES[name][1] for name in names]), seed=0,
                 strategy="random", pixels=[np.array([(a.y, a.x) for a in annotations
                                                      if a.image == name]) for name in names])


def test_query_is_all_unanswered_in_order(tmp_path: Path, dir_imgs: Path) -> None:
    annotations = drawn(6, labels=(None,))
    write_query(tmp_path, query_of(annotations), max_mask_gb=1)
    paths = [run("query", "csv", tmp_path / "query.json", tmp_path / "a.csv"),
             run("query", "csv", tmp_path, tmp_path / "b.csv"),
             run("query", "csv", tmp_path / "query.json", tmp_path / "c.csv", "--dir_imgs",
                 str(dir_imgs))]
    assert all(read_table(path) == annotations for path in paths)


def test_bare_masks_need_their_images(tmp_path: Path, dir_imgs: Path) -> None:
    own = {name: replace(a, image=name, y=3, x=5, h=h, w=w)
           for name, ((h, w), _) in IMAGES.items() for a in drawn(0)[:1]}
    masks = np.zeros((4, 37, 53), bool)
    masks[:, 3, 5] = True
    np.save(tmp_path / "query.npy", masks)
    fails("sorted order; give that folder with --dir_imgs", "query", "csv",
          tmp_path / "query.npy", tmp_path / "a.csv")
    path = run("query", "csv", tmp_path / "query.npy", tmp_path / "a.csv", "--dir_imgs",
               str(dir_imgs))
    assert [a.pixel for a in read_table(path)] == [own[name].pixel for name in sorted(IMAGES)]


# --- bad input ----------------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", drawn(0))
    (tmp_path / "full.csv").write_text("mine")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.md").write_text("mine")
    fails("full.csv exists; .* --overwrite", "csv", "csv", table, tmp_path / "full.csv")
    fails("full exists; .* --overwrite", "csv", "logs", table, tmp_path / "full")
    assert (tmp_path / "full.csv").read_text() == "mine"
    run("csv", "csv", table, tmp_path / "empty.csv")
    run("csv", "logs", table, tmp_path / "folder")
    run("csv", "csv", table, tmp_path / "full.csv", "--overwrite")
    run("csv", "logs", table, tmp_path / "full", "--overwrite")
    run("csv", "logs", table, tmp_path / "full", "--overwrite")
    assert read_table(tmp_path / "full.csv") == read_table(tmp_path / "empty.csv") == drawn(0)
    assert read_logs(tmp_path / "full") == read_logs(tmp_path / "folder")
    assert (tmp_path / "full" / "notes.md").read_text() == "mine"
    fails("expected a folder", "csv", "logs", table, tmp_path / "empty.csv", "--overwrite")
    fails("expected a file", "csv", "csv", table, tmp_path / "full", "--overwrite")


def test_stale_logs_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", drawn(0))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "other.txt").write_text(",".join(COLUMNS) + "\n")
    fails("1 other .txt files: other.txt", "csv", "logs", table, tmp_path / "logs", "--overwrite")
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["other.txt"]


@pytest.mark.parametrize("target", ["logs", "png"])
@pytest.mark.parametrize("place", ["logs/me", "logs/me/inside", "logs"])
def test_an_annotators_folder_is_never_written_to(tmp_path: Path, target: str, place: str) -> None:
    table = write_csv(tmp_path / "a.csv", drawn(0))
    (tmp_path / "logs" / "me").mkdir(parents=True)
    (tmp_path / "logs" / "me" / "journal.jsonl").write_text("")
    fails("me is an annotator's folder", "csv", target, table, tmp_path / place, "--overwrite")
    fails("annotator's folder", "csv", "csv", table, tmp_path / "logs" / "me" / "a.txt")
    assert [path.name for path in (tmp_path / "logs").rglob("*")] == ["me", "journal.jsonl"]


def test_the_image_folder_is_never_written_to(tmp_path: Path, dir_imgs: Path) -> None:
    table = write_csv(tmp_path / "a.csv", drawn(0))
    link = tmp_path / "link"
    link.symlink_to(dir_imgs)
    before = sorted(dir_imgs.rglob("*"))
    for target, place in (("logs", dir_imgs), ("png", dir_imgs / "train"), ("logs", link / "x"),
                          ("csv", dir_imgs / "train" / "a.csv"), ("png", dir_imgs.parent)):
        fails("would be in one folder", "csv", target, table, place, "--dir_imgs", str(dir_imgs),
              "--overwrite")
    logs = run("csv", "logs", table, tmp_path / "logs")
    fails("is in the input", "logs", "logs", logs, logs / "b", "--overwrite")
    fails("is in the input", "logs", "csv", logs, logs / "b.txt")
    fails("is in the input", "csv", "csv", table, table, "--overwrite")
    assert sorted(dir_imgs.rglob("*")) == before


@pytest.mark.parametrize(("row", "message"), [
    ("0,0,water,0,0,9,9,0,a.png", "a.png .0, 0. has the label 'water', which is no class"),
    ("1,2,sky,0,0,9,9,0,a.png\n1,2,sky,0,0,9,9,0,a.png", "a.png .1, 2. stands there twice"),
    ("1,2,sky,nan,0,9,9,0,a.png", "row 2: a time is no number"),
    ("1,2,sky,0,inf,9,9,0,a.png", "row 2: a time is no number"),
    ("1,2,sky,-1,0,9,9,0,a.png", "row 2: a time is no number"),
    (f"1,2,sky,0,0,{10**30},9,0,a.png", "larger than any image"),
    ("9,2,sky,0,0,9,9,0,a.png", "outside its grid"),
    ("1,2,sky,0,0,9,9,0,../a.png", "'../a.png' is no path inside"),
    ("1,2,sky,0,0,9,9,0,C:\\a.png", "is no path inside"),
    ("1,2", "'None' is no path inside"),
    ("1,b,sky,0,0,9,9,0,a.png", "row 2 is no answer"),
    ("", "there is no pixel in it"),
])
def test_rows_that_cannot_be_used(tmp_path: Path, dir_imgs: Path, row: str, message: str) -> None:
    table = tmp_path / "a.csv"
    table.write_text(",".join(COLUMNS) + "\n" + row + "\n")
    for target in convert.WRITERS:
        fails(message, "csv", target, table, tmp_path / "out", "--dir_imgs", str(dir_imgs))
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_used(tmp_path: Path, dir_imgs: Path) -> None:
    for name, message in (("gone.png", "1 of its 1 images are not in"),
                          ("x" * 300 + ".png", "xxx")):
        table = write_csv(tmp_path / "a.csv", [replace(drawn(0)[0], image=name)])
        for target in ("via", "coco"):
            fails("sizes of the image files; give their folder with --dir_imgs", "csv", target,
                  table, tmp_path / "out")
            fails(message, "csv", target, table, tmp_path / "out", "--dir_imgs", str(dir_imgs))
            fails("no folder", "csv", target, table, tmp_path / "out", "--dir_imgs", "nowhere")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("no image")
    write_csv(table, [replace(drawn(0)[0], image="a.png", label=None)])
    fails("a.png: cannot be read as an image", "csv", "coco", table, tmp_path / "out",
          "--dir_imgs", str(tmp_path / "bad"))
    fails("none of the 1 is answered", "csv", "logs", table, tmp_path / "out")
    write_csv(table, [replace(drawn(0)[0], image="x" * 300)])
    for target in ("logs", "png"):
        fails("cannot write .*File name too long", "csv", target, table, tmp_path / target)


@pytest.mark.parametrize("content", [
    b"", b"[]", b"3", b"null", b'{"images": 3}', b"\xff\xfe", b"[" * 100_000, b'{"project": 1}',
    b'{"format": "pixelpick-query-1"}', b'{"metadata": {}, "project": {}}', b"\x00" * 100,
])
def test_files_that_are_nothing(tmp_path: Path, dir_imgs: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    for source in convert.READERS:
        for flags in ((), ("--dir_imgs", str(dir_imgs))):
            fails("x.json|no pixel", source, "csv", path, tmp_path / "out", *flags)


def test_flags_that_are_wrong(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", drawn(0))
    fails("unknown dataset 'kitti'; choose from camvid", "csv", "csv", table, tmp_path / "b.csv",
          "--dataset_name", "kitti")
    fails("'a/b': letters", "csv", "csv", table, tmp_path / "b.csv", "--dataset_name", "a/b",
          "--classes", "x.yaml")
    pytest.importorskip("yaml")
    fails("cannot read x.yaml", "csv", "csv", table, tmp_path / "b.csv", "--classes", "x.yaml")
    fails("no file or folder .*gone.csv", "csv", "csv", tmp_path / "gone.csv", tmp_path / "b.csv")
    fails("no file or folder", "csv", "csv", Path("x" * 300), tmp_path / "b.csv")
    fails("invalid choice: 'xml'", "csv", "xml", table, tmp_path / "b.csv")
    fails("File name too long", "csv", "csv", table, tmp_path / ("x" * 300))


def test_as_a_program_without_torch_and_tkinter(tmp_path: Path, dir_imgs: Path) -> None:
    """One line on stderr and exit code 2; what is not needed is not imported."""
    program = ("import runpy, sys; sys.modules |= dict.fromkeys(['torch', 'tkinter', 'yaml'])\n"
               "runpy.run_module('annotation_tool.convert', run_name='__main__')")
    command = [sys.executable, "-c", program, "--from", "csv", "--input",
               str(write_csv(tmp_path / "a.csv", drawn(0))), "--dir_imgs", str(dir_imgs)]
    done = subprocess.run([*command, "--to", "via", "--output", str(tmp_path / "via.json")],
                          cwd=REPOSITORY, capture_output=True, text=True)
    n_open = sum(a.label is None for a in drawn(0))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{80 - n_open} answered pixels and {n_open} unanswered ones" in done.stdout
    done = subprocess.run([*command, "--to", "via", "--output", str(tmp_path / "via.json")],
                          cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --output ") and done.stderr.count("\n") == 1
