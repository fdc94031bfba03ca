"""Score, report and agreement of annotators: numbers checked by hand on made-up answers."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_tool import agree, report
from annotation_tool.agree import cohens_kappa, compare, kappa_interval
from annotation_tool.scoring import Pace, pace, score, score_lines
from annotation_tool.truth import GroundTruth
from datasets.annotations import Annotation, log_path, log_text
from datasets.spec import ClassInfo, ClassSet
from utils.errors import InputError
from utils.files import write_text

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ClassSet(name="three", ignore_index=9, classes=tuple(
    ClassInfo(name=name, key=name[0], colour=(0, 0, 0)) for name in ("sky", "road", "car")))
YAML = "classes: [sky, road, car]\nignore: 9\n"


def answer(label: str | None, *, y: int = 0, x: int = 0, seconds: float = 1.0, total: float = 0.0,
           image: str = "train/a.png", size: tuple[int, int] = (4, 6)) -> Annotation:
    return Annotation(image=image, y=y, x=x, h=size[0], w=size[1], label=label,
                      elapsed_time=seconds, total_time=total)


def row_of(labels: str, *, names: str = "sky road car void", **kwargs: object) -> list[Annotation]:
    """Answers by their initials, one pixel each, along the rows of a 4x6 grid."""
    by_initial = {name[0]: name for name in names.split()}
    return [answer(by_initial[c], y=i // 6, x=i % 6, **kwargs) for i, c in enumerate(labels)]


def write_annotator(folder: Path, answers: Iterable[Annotation]) -> Path:
    logs = defaultdict(list)
    for a in answers:
        logs[log_path(folder, a.image)].append(a)
    for path, of_image in logs.items():
        write_text(path, log_text(of_image))
    return folder


def write_truth(folder: Path, label_map: Sequence[Sequence[int]], name: str = "a.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(label_map, np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def truth(tmp_path: Path) -> GroundTruth:
    """A 4x6 map: columns sky sky road road car void."""
    return GroundTruth(write_truth(tmp_path / "truth", [[0, 0, 1, 1, 2, 9]] * 4), CLASSES)


# --- score ---------------------------------------------------------------------------------------


def test_score_by_hand(truth: GroundTruth) -> None:
    answers = [*row_of("ssrsvs"),  # right, right, right, wrong, void for a car, void is not scored
               answer("car", y=1, x=4, seconds=3.0),
               answer("sky", image="train/without.png"), answer(None, y=2)]
    found = score(answers, truth, CLASSES)
    assert (found.n_answered, found.n_scored, found.n_truth_void) == (8, 6, 1)
    assert found.accuracy == 4 / 6
    assert found.confusion.dtype == np.int64
    assert found.confusion.tolist() == [[2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert found.class_accuracy.tolist() == [1, 0.5, 0.5]
    assert found.class_seconds.tolist() == [1, 1, 2]
    assert found.pace == Pace(mean=10 / 8, median=1, n_slow=0)
    text = "\n".join(score_lines(found, CLASSES))
    assert "4 of 6 answers are right, 66.7 %" in text
    assert "not scored: 1 where it is void, 1 without a label map" in text
    assert "1 of the wrong ones are void" in text
    assert "road -> sky  1" in text and "car -> void  1" in text


def test_void_answers(truth: GroundTruth) -> None:
    """Wrong where ground truth is a class; not scored, not right either, where it is void."""
    found = score([answer("void", x=0), answer("void", x=5)], truth, CLASSES)
    assert (found.n_answered, found.n_scored, found.n_truth_void, found.accuracy) == (2, 1, 1, 0)
    assert found.confusion[:, 3].tolist() == [1, 0, 0]


@pytest.mark.parametrize("answers", [[], [answer("sky", x=5)], [answer("sky", image="b.png")]])
def test_nothing_to_score(truth: GroundTruth, answers: list[Annotation]) -> None:
    found = score(answers, truth, CLASSES)
    assert found.accuracy is None and found.n_scored == 0 and not found.confusion.any()
    assert np.isnan(found.class_accuracy).all() and np.isnan(found.class_seconds).all()
    assert "0 of 0 answers are right, -" in score_lines(found, CLASSES)[0]


def test_truth_of_another_size(tmp_path: Path) -> None:
    """The answer is compared with the map's pixel under the centre of the grid's."""
    label_map = np.full((12, 18), 9, np.uint8)
    label_map[10, 7] = 2  # under (3, 2) of 4x6: floor(3.5 * 3), floor(2.5 * 3)
    truth = GroundTruth(write_truth(tmp_path, label_map), CLASSES)
    assert score([answer("car", y=3, x=2)], truth, CLASSES).accuracy == 1
    assert score([answer("car", y=3, x=3)], truth, CLASSES).n_truth_void == 1


def test_foreign_labels(truth: GroundTruth) -> None:
    with pytest.raises(InputError, match=r"train/a.png \(0, 0\): the answer 'boat' is no class"):
        score([answer("boat")], truth, CLASSES)


def test_pace() -> None:
    """Slow answers are counted apart, 30 s is not slow yet; 0 is an unknown time."""
    seconds = (1.0, 2.0, 9.0, 30.0, 30.5, 4000.0, 0.0)
    assert pace(answer("sky", seconds=s) for s in seconds) == Pace(42 / 4, 5.5, 2)
    assert pace([]) == Pace(None, None, 0)
    assert pace([answer("sky", seconds=31.0)]) == Pace(None, None, 1)


def test_numpy_and_pillow_suffice() -> None:
    others = "torch", "torchvision", "scipy", "matplotlib", "yaml", "tkinter"
    program = (f"import sys; sys.modules.update(dict.fromkeys({others}))\n"
               "import annotation_tool.scoring, annotation_tool.report, annotation_tool.agree")
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


# --- report --------------------------------------------------------------------------------------


@pytest.fixture
def anna(tmp_path: Path) -> Path:
    """Six answers in two images; 90 s of work, 40 of which are one flagged answer."""
    return write_annotator(tmp_path / "logs" / "three_anna", [
        *row_of("srsv", seconds=5.0), answer("sky", y=1, seconds=40.0, total=60.0),
        answer("car", image="train/b.png", seconds=10.0, total=90.0)])


def test_report_by_hand(anna: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(anna)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "6 answers in 2 images, 1 of them void",
        "4.0 labels per minute, in 1.5 minutes of work",
        "answer pixels share seconds",
        "car 1 16.7 % 10.00", "road 1 16.7 % 5.00", "sky 3 50.0 % 5.00", "void 1 16.7 % 5.00",
        "slowest pixels y x seconds answer",
        "train/a.png 1 0 40.00 sky flagged", "train/b.png 0 0 10.00 car",
        "train/a.png 0 0 5.00 sky", "train/a.png 0 1 5.00 road", "train/a.png 0 2 5.00 sky",
        "seconds per pixel: mean 6.00, median 5.00; flagged and left out, because over 30 s: 1",
        f"histogram of the seconds: {anna / 'report.png'}"]


def test_histogram(anna: Path, tmp_path: Path) -> None:
    """There, not blank, and in no other place; other times draw another picture."""
    report.main([str(anna)])
    assert [path.name for path in anna.rglob("*.png")] == ["report.png"]
    with Image.open(anna / "report.png") as image:
        assert image.size == (720, 480)
        picture = np.array(image.convert("RGB"))
    assert (picture == (31, 119, 180)).all(axis=-1).mean() > 0.01  # bars, matplotlib's tab:blue
    other = write_annotator(tmp_path / "other", row_of("srsv", seconds=2.0))
    report.main([str(other), "--output", str(tmp_path / "pictures" / "other.png")])
    assert not (other / "report.png").exists()
    with Image.open(tmp_path / "pictures" / "other.png") as image:
        assert (np.array(image.convert("RGB")) != picture).any()


def test_report_without_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_annotator(tmp_path / "imported", row_of("sr", seconds=0.0))
    assert report.main([str(folder)]) == 0
    text = capsys.readouterr().out
    assert "the working time is unknown" in text and "mean -, median -" in text


def test_an_empty_label_is_no_answer(anna: Path) -> None:
    with open(anna / "train" / "b.txt", "a", encoding="utf-8") as log:
        log.write("1,1,,2.0,92.0,4,6,0,train/b.png\n")
    assert len(report.read_annotator(anna, classes=CLASSES)) == 6


def test_report_as_a_program(anna: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "three.yaml", YAML)
    write_truth(tmp_path / "gts", [[0, 0, 1, 1, 2, 9]] * 4)
    done = run_module("report", anna, "--classes", tmp_path / "three.yaml", "--dir_gts",
                      tmp_path / "gts")
    assert done.returncode == 0 and done.stderr == ""
    assert "2 of 5 answers are right, 40.0 %" in done.stdout
    assert (anna / "report.png").exists()


def run_module(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", f"annotation_tool.{name}", *map(str, arguments)],
                          cwd=REPOSITORY, capture_output=True, text=True)


def without_answers(anna: Path) -> Path:
    (anna.parent / "three_empty").mkdir()
    return anna.parent / "three_empty"


def without_journals(anna: Path) -> Path:
    write_annotator(anna.parent / "three_ben", row_of("s"))
    return anna.parent


def with_journals(anna: Path) -> Path:
    for name in ("three_anna", "three_ben"):
        write_text(anna.parent / name / "journal.jsonl", "")
    return anna.parent


def with_endless_time(anna: Path) -> Path:
    return write_annotator(anna, [answer("sky", seconds=float("inf"))])


@pytest.mark.parametrize("make, flags, message", [
    (lambda anna: anna / "nowhere", (), "no folder .*nowhere"),
    (without_answers, (), "three_empty: no answers"),
    (with_journals, (), "others inside: three_anna, three_ben"),
    (without_journals, (), r"train/a.png \(0, 0\) is answered twice"),
    (with_endless_time, (), "a time is no number of seconds"),
    (lambda anna: anna, ("--dir_gts", "."), "give --dataset_name or --classes"),
    (lambda anna: anna, ("--dataset_name", "kitti"), "unknown dataset 'kitti'; choose from camvid"),
    (lambda anna: anna, ("--dataset_name", "cv", "--dir_gts", "nowhere"), "no folder nowhere"),
    (lambda anna: anna, ("--dataset_name", "cv", "--classes", "c.yaml"), "cannot read c.yaml"),
    (lambda anna: anna, ("--output", "/dev/null/x.png"), "cannot write /dev/null/x.png"),
    (lambda anna: anna, ("--dataset_name", "cv", "--dir_gts", "data", "--output", "data/a.png"),
     "nothing is written to the label maps' folder"),
])
def test_unusable_report(anna: Path, make: Callable[[Path], Path], flags: tuple[str, ...],
                         message: str) -> None:
    with pytest.raises(InputError, match=message):
        report.main([str(make(anna)), *flags])


def test_label_that_is_no_class(tmp_path: Path) -> None:
    folder = write_annotator(tmp_path / "boats", [answer("boat")])
    with pytest.raises(InputError, match="the answer 'boat' is no class of camvid"):
        report.main([str(folder), "--dataset_name", "cv"])


def test_one_line_and_exit_code_2(anna: Path, tmp_path: Path) -> None:
    other = write_annotator(tmp_path / "other", [answer("sky", image="train/c.png")])
    for done in (run_module("report", tmp_path / "nowhere"), run_module("agree", anna, other),
                 run_module("agree", anna)):
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


# --- agreement -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table, kappa", [
    ([[20, 5], [10, 15]], 0.4),  # p_o 0.7, p_e 0.5
    ([[4, 1, 0], [0, 3, 1], [1, 0, 0]], 14 / 29),  # p_o 0.7, p_e (25 + 16 + 1) / 100
    ([[4, 2], [2, 1]], 0.0),  # independent: p_o = p_e = 5 / 9
    ([[3, 0, 0], [0, 4, 0], [0, 0, 5]], 1.0),
    ([[0, 5], [5, 0]], -1.0),
    ([[0, 7], [0, 0]], 0.0),  # each always the same label, but not the same one
])
def test_kappa_by_hand(table: list[list[int]], kappa: float) -> None:
    assert cohens_kappa(np.array(table)) == pytest.approx(kappa, abs=1e-15)
    assert cohens_kappa(np.array(table).T) == cohens_kappa(np.array(table))


def test_kappa_undefined() -> None:
    assert math.isnan(cohens_kappa(np.array([[7]])))
    assert math.isnan(cohens_kappa(np.array([[0, 0], [0, 7]])))


def test_interval_of_kappa() -> None:
    """Near kappa -+ 1.96 standard errors as Cohen gives them: sqrt(p_o (1 - p_o) / n) / (1 - p_e)
    = 0.0410 for this table; the same at every call."""
    table = np.array([[200, 50], [100, 150]])
    low, high = kappa_interval(table)
    assert low == pytest.approx(0.4 - 1.96 * 0.041, abs=0.02)
    assert high == pytest.approx(0.4 + 1.96 * 0.041, abs=0.02)
    assert kappa_interval(table) == (low, high)


@pytest.mark.parametrize("table", [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[5, 0], [0, 5]],
                                   [[1, 0], [1, 1]]])
@pytest.mark.filterwarnings("error")
def test_no_interval(table: list[list[int]]) -> None:
    assert kappa_interval(np.array(table)) is None


def test_compare_by_hand() -> None:
    """Pixels are the same by image, grid, y and x; void is a label of its own."""
    first = [*row_of("srvs"), answer("car", y=3), answer("car", y=3, size=(8, 12))]
    second = [*row_of("svvr"), answer("car", y=3, image="a.png")]
    found = compare(first, second)
    assert (len(found.pairs), found.n_only) == (4, (2, 1))
    assert found.labels == ["road", "sky", "void"]
    assert found.table.tolist() == [[0, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert compare(first, second, CLASSES).labels == ["sky", "road", "void"]
    assert cohens_kappa(compare(first, second, CLASSES).table) == cohens_kappa(found.table)


def test_agree_as_a_program(tmp_path: Path) -> None:
    anna = write_annotator(tmp_path / "three_anna", [*row_of("ssssrrrrvvcc", seconds=2.0),
                                                     answer("car", y=3, seconds=9.0)])
    ben = write_annotator(tmp_path / "three_ben", row_of("sssrrrrrvccc", seconds=4.0))
    done = run_module("agree", anna, ben)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:2] == ["12 pixels are answered by both, 1 only by three_anna, 0 only by "
                         "three_ben", "the same answer: 10 of 12, 83.3 %"]
    # p_o 120 / 144, p_e (4 * 3 + 4 * 5 + 2 * 1 + 2 * 3) / 144
    assert lines[2].startswith(f"Cohen's kappa: {80 / 104:.3f} (95 % interval 0.")
    assert lines[3:] == [
        "mean seconds per pixel (of these 12): three_anna 2.00, three_ben 4.00",
        "answers of three_anna (rows) and three_ben (columns):",
        "        1  2  3  4", "1 car   2  0  0  0", "2 road  0  4  0  0", "3 sky   0  1  3  0",
        "4 void  1  0  0  1",
        "disagreements: 2", "  train/a.png (0, 3): three_anna sky, three_ben road",
        "  train/a.png (1, 3): three_anna void, three_ben car"]


@pytest.mark.parametrize("other, words", [
    ("ssss", "kappa: undefined"), ("rrrr", "kappa: 0.000"), ("sssv", "disagreements: 1")])
def test_agreement_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str,
                            words: str) -> None:
    """Two folders of one name are told apart by their paths."""
    folders = [write_annotator(tmp_path / place / "three_x", row_of(labels))
               for place, labels in (("a", "ssss"), ("b", other))]
    assert agree.main([str(folder) for folder in folders]) == 0
    text = capsys.readouterr().out
    assert words in text and f"0 only by {folders[0]}" in text


def test_many_disagreements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_annotator(tmp_path / name, row_of(12 * name)) for name in "sr"]
    agree.main([str(folder) for folder in folders])
    assert capsys.readouterr().out.splitlines()[-1] == "  and 2 more"


@pytest.mark.parametrize("other, message", [
    (answer("sky", image="b.png"), "no image is in both .one has train/a.png, the other b.png"),
    (answer("sky", size=(8, 12)), "the grids differ .4x6 and 8x12"),
    (answer("sky", y=3), "the images are the same, the pixels are not"),
    (answer(None), "no answers"),
])
def test_nothing_in_common(tmp_path: Path, other: Annotation, message: str) -> None:
    anna = write_annotator(tmp_path / "anna", [answer("sky")])
    ben = write_annotator(tmp_path / "ben", [other])
    with pytest.raises(InputError, match=message):
        agree.main([str(anna), str(ben)])


def test_one_folder_twice(anna: Path) -> None:
    with pytest.raises(InputError, match="both folders are"):
        agree.main([str(anna), f"{anna.parent}/../logs/three_anna"])
