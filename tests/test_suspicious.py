"""utils/suspicious.py: what it lists, the second look, and the way back into training."""

from __future__ import annotations

import csv
import json
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import train
from annotation_tool import options
from annotation_tool.launch_gui import dataset_to_paths
from annotation_tool.session import Session
from annotation_tool.store import Store
from benchmarks import suspicious as benchmark
from datasets.annotations import Annotation
from datasets.camvid import CAMVID
from datasets.points import VOID, Points
from datasets.queries import load_query
from tests.conftest import RUN, quick_flags
from utils import suspicious
from utils.answered import finished_round
from utils.contradictions import JUDGES, SCORES, judged, margin, rank, self_confidence
from utils.errors import InputError
from utils.suspicious_page import Entry, window, write_page

FLAGS = [*quick_flags(), "--n_epochs", "1"]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def points_of(*labels: int) -> Points:
    n = len(labels)
    return Points(np.zeros(n, np.int64), np.zeros(n, np.int64), np.arange(n), np.array(labels))


# --- scores -------------------------------------------------------------------------------------


def test_scores_of_distributions_made_by_hand() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)
    labels = np.array([0, 2, 1])
    np.testing.assert_allclose(margin(p, labels), [-0.5, 0.6, 0.3], atol=1e-6)
    np.testing.assert_allclose(self_confidence(p, labels), [0.3, 0.9, 0.7], atol=1e-6)
    assert p[1, 2] == np.float32(0.1)  # they leave the probabilities alone


def test_ranking_lists_contradicted_answers_only() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.9, 0.1], [0.2, 0.8]], np.float32)
    points = points_of(1, 0, 0, VOID, 1)  # the last one is confirmed, void cannot be
    found = rank(p, points, score="margin", min_confidence=0.0)
    assert found.index.tolist() == [0, 1, 2] and found.predicted.tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.label_probability, [0.1, 0.2, 0.4], atol=1e-6)
    np.testing.assert_allclose(found.probability, [0.9, 0.8, 0.6], atol=1e-6)
    assert rank(p, points, score="margin", min_confidence=0.7).index.tolist() == [0, 1]
    assert rank(p, points, score="margin", min_confidence=0.0, n=1).index.tolist() == [0]
    left_out = np.array([True, False, False, False, False])
    assert rank(p, points, score="self_confidence", min_confidence=0.0,
                left_out=left_out).index.tolist() == [1, 2]


def test_which_networks_judge() -> None:
    of_round = {r: np.full((4, 1), float(r)) for r in range(3)}
    asked = np.array([0, 0, 1, 2])
    for judge, expected in (("last", [2, 2, 2, 2]), ("before", [2, 2, 0, 1]),
                            ("all", [1, 1, 1, 1])):
        assert judged(of_round, asked, judge=judge, last=2).ravel().tolist() == expected
    assert JUDGES.keys() == {"last", "before", "all"}


# --- a run, a second look, the way back ---------------------------------------------------------


@pytest.fixture(scope="module")
def noisy(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds on label maps of which every pixel may be wrong."""
    data = tmp_path_factory.mktemp("noisy") / "CamVid"
    benchmark.spoil(tiny_camvid, data, spec=CAMVID, share=0.3)
    out = data.parent / "runs"
    assert train.main([*FLAGS, "--dir_dataset", str(data), "--dir_checkpoints", str(out)]) == 0
    return out / RUN


def open_second_look(printed: str, annotator: str | None = None) -> Session:
    """What the printed command opens, by the flags of launch_gui.py."""
    (command,) = [line for line in printed.splitlines() if "launch_gui.py" in line]
    parser = options.parser("test")
    parser.add_argument("--annotator", default="anna")
    args = parser.parse_args(shlex.split(command)[2:])
    return options.prepare(args, dataset_to_paths).open(annotator or args.annotator)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources, self.tags, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_from_the_list_to_a_corrected_run(noisy: Path, tiny_camvid: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in noisy.rglob("*.csv")}
    out = tmp_path / "list"
    flags = [str(noisy), "--output", str(out), "--min_confidence", "0", "--n", "6"]
    assert suspicious.main(flags) == 0
    printed = capsys.readouterr().out
    listed = rows(out / "suspicious.csv")
    assert len(listed) == 6 and all(row["label"] != row["predicted"] for row in listed)
    scores = [float(row["score"]) for row in listed]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0
    given = {(row["image"], row["y"], row["x"]): CAMVID.class_names[int(row["label"])]
             for r in (0, 1) for row in rows(noisy / f"{r}_query" / "labels.csv")}
    assert all(given[row["image"], row["y"], row["x"]] == row["label"] for row in listed)
    query = load_query(out / "query.json")
    assert query.n_pixels == 6 and query.names[0] == listed[0]["image"]
    page = Page((out / "suspicious.html").read_text())
    assert page.tags.count("img") == 12 and page.tags.count("li") == 6
    assert all(source.startswith("data:image/") for source in page.sources)

    session = open_second_look(printed)  # the tool opens it, in a fresh folder
    assert session.store.folder == out / "answers" / "camvid_anna" and not session.n_answered
    first = (listed[0]["image"], int(listed[0]["y"]), int(listed[0]["x"]))
    assert (session.asked.image, session.asked.y, session.asked.x) == first
    assert session.suggestion[0] == listed[0]["predicted"]
    changed = {}
    while session.n_answered < 5:  # the last one is left for another day
        a = session.asked
        key, old = (a.image, str(a.y), str(a.x)), given[a.image, str(a.y), str(a.x)]
        now = ("void", session.suggestion[0], old)[session.n_answered % 3]
        changed |= {key: now} if now != old else {}
        session.answer(now, seconds=1.0)
    session.close()

    assert suspicious.main([str(noisy), "--apply", str(out / "answers")]) == 0
    printed = capsys.readouterr().out
    assert "5 answers were looked at again, 4 of them are another one now" in printed
    assert all(path.read_bytes() == content for path, content in before.items())  # a record
    folder = noisy.with_name(f"{RUN}_corrected")
    again = {(row["image"], row["y"], row["x"]): row["label"]
             for row in rows(folder / "0_query" / "labels.csv")}
    index = {name: str(i) for i, name in enumerate(CAMVID.class_names)} | {"void": "-1"}
    assert again == {key: index[label] for key, label in (given | changed).items()}
    with pytest.raises(InputError, match="is there already; give another --suffix"):
        suspicious.main([str(noisy), "--apply", str(out / "answers")])

    words = shlex.split(printed.splitlines()[-1])  # the printed command; pytest's own before it
    ours = words[words.index("--dir_checkpoints"):]
    assert train.main([*FLAGS, "--dir_dataset", str(tiny_camvid), *ours, "--max_budget", "12"]) == 0
    metrics = rows(folder / "metrics.csv")
    assert [row["pixels_total"] for row in metrics] == ["40", "60"]  # and it goes on asking
    assert [row["void_answers"] for row in metrics] == ["2", "2"]

    assert suspicious.main([str(folder), "--round", "0", "--min_confidence", "0"]) == 0
    done = {(row["image"], str(row["y"]), str(row["x"]))
            for row in json.loads((folder / "corrections.json").read_text())["looked_at"]}
    assert len(done) == 5  # and nobody is asked a third time
    assert not done & {(row["image"], row["y"], row["x"])
                       for row in rows(folder / "suspicious" / "suspicious.csv")}
    assert "had their second look" in (folder / "suspicious" / "suspicious.html").read_text()


def test_the_network_before_is_the_one_that_asked(noisy: Path) -> None:
    """Its class and probability stand in the query.json of the round."""
    flags = json.loads((noisy / "args.json").read_text())["flags"]
    _, answered, (found,) = suspicious.judge(
        noisy, flags, last=1, judges=["before"], dir_dataset=flags["dir_dataset"],
        device_name="cpu", batch_size=2, n_workers=1)
    query = load_query(noisy / "1_query" / "query.json")
    said = {(name, *pixel): (label, p) for name, *of_image in zip(
        query.names, query.pixels, query.predictions, query.probabilities, strict=True)
        for pixel, label, p in zip(*(values.tolist() for values in of_image), strict=True)}
    mine = np.flatnonzero(answered.rounds == 1)
    assert len(mine) == len(said) == 20
    for i in mine.tolist():
        label, probability = said[answered.key(i)]
        assert found[i].argmax() == label
        assert found[i].max() == pytest.approx(probability, abs=1e-5)


def test_nothing_changed_and_nothing_listed(noisy: Path, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    assert suspicious.main([str(noisy), "--networks", "last", "--min_confidence", "1",
                            "--output", str(tmp_path / "list")]) == 0
    assert "nothing was written" in capsys.readouterr().out and not (tmp_path / "list").exists()
    row = rows(noisy / "0_query" / "labels.csv")[0]
    store = Store(tmp_path / "logs" / "camvid_me")
    store.add("answer", Annotation(image=row["image"], y=int(row["y"]), x=int(row["x"]), h=30, w=40,
                                   label=CAMVID.class_names[int(row["label"])]))
    store.close()
    assert suspicious.main([str(noisy), "--apply", str(tmp_path / "logs")]) == 0
    assert "1 answers were looked at again and none is another one" in capsys.readouterr().out
    with pytest.raises(InputError, match="no folder .*the annotation tool writes"):
        suspicious.main([str(noisy), "--apply", str(tmp_path / "nowhere")])


def test_a_persons_run_names_the_annotator(noisy: Path, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    """And the second look is theirs, unless several people are in the list."""
    run = tmp_path / "run"
    for path in noisy.rglob("*"):
        if path.is_file():
            (run / path.relative_to(noisy)).parent.mkdir(parents=True, exist_ok=True)
            (run / path.relative_to(noisy)).symlink_to(path)
    record = json.loads((run / "args.json").read_text())
    record["flags"] |= {"labeller": "human", "dir_annotations": [str(tmp_path / "logs")]}
    (run / "args.json").unlink()
    (run / "args.json").write_text(json.dumps(record))
    answers = [row for r in (0, 1) for row in rows(run / f"{r}_query" / "labels.csv")]
    store = Store(tmp_path / "logs" / "camvid_bob")
    for row in answers:
        store.add("answer", Annotation(
            image=row["image"], y=int(row["y"]), x=int(row["x"]), h=30, w=40,
            label=CAMVID.class_names[int(row["label"])]))
    store.close()
    assert suspicious.main([str(run), "--min_confidence", "0"]) == 0
    session = open_second_look(capsys.readouterr().out)
    session.close()
    assert session.store.folder == run / "suspicious" / "answers" / "camvid_bob"
    assert {row["annotator"] for row in rows(run / "suspicious" / "suspicious.csv")} == {"bob"}


def test_mistakes_that_were_trained_on_are_listed(noisy: Path) -> None:
    """With --label_noise the labels.csv are those of the ground truth; the networks saw others."""
    flags = json.loads((noisy / "args.json").read_text())["flags"]
    _, plain, _ = suspicious.judge(
        noisy, flags, last=1, judges=["last"], dir_dataset=flags["dir_dataset"],
        device_name="cpu", batch_size=8, n_workers=1)
    _, wrong, _ = suspicious.judge(
        noisy, flags | {"label_noise": 1.0}, last=1, judges=["last"],
        dir_dataset=flags["dir_dataset"], device_name="cpu", batch_size=8, n_workers=1)
    changed = plain.points.label != wrong.points.label
    assert changed.tolist() == (plain.rounds == 1).tolist()


# --- the page, bad input, the benchmark ---------------------------------------------------------


def test_the_page_escapes_names(tiny_camvid: Path, tmp_path: Path) -> None:
    info = CAMVID.classes[0]
    entry = Entry(path=sorted((tiny_camvid / "train").iterdir())[0], image="a<b>&.png", y=47, x=0,
                  grid=(48, 64), round_index=0, given=info, predicted=CAMVID.classes[1],
                  probability=0.9, given_probability=0.05, annotator="<i>eve</i>")
    write_page(tmp_path / "page.html", [entry], title="<script>", paragraphs=["1 < 2"],
               commands=[("do", "cp 'a&b'")])
    page = Page((tmp_path / "page.html").read_text())
    assert not {"script", "i"} & set(page.tags)
    for text in ("<script>", "a<b>&.png", "<i>eve</i>", "1 < 2", "cp 'a&b'", "sky", "90.0 %"):
        assert text in page.text


@pytest.mark.parametrize(("centre", "start"), [(0, 0), (4, 0), (50, 45), (99, 90)])
def test_a_crop_stays_in_the_image(centre: int, start: int) -> None:
    assert window(centre, side=10, length=100) == start


def test_bad_input(noisy: Path, tmp_path: Path) -> None:
    assert (finished_round(noisy, -1), finished_round(noisy, 0)) == (1, 0)
    with pytest.raises(InputError, match="--round 2: .* has 2 finished rounds, 0 to 1"):
        suspicious.main([str(noisy), "--round", "2"])
    with pytest.raises(InputError, match="--suffix has no meaning without --apply"):
        suspicious.main([str(noisy), "--suffix", "x"])
    with pytest.raises(InputError, match="no folder of a run"):
        suspicious.main([str(tmp_path)])
    run = tmp_path / "full"
    run.mkdir()
    (run / "args.json").write_text('{"flags": {"n_pixels_by_us": 0}}')
    with pytest.raises(InputError, match="full masks: there are no answers"):
        suspicious.main([str(run)])
    with pytest.raises(InputError, match="unknown score 'x'; choose from self_confidence, margin"):
        suspicious.main([str(noisy), "--score", "x"])


def test_the_benchmark_knows_what_is_wrong(noisy: Path, tiny_camvid: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    scores, wrong = np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, False, False, True])
    assert benchmark.area_under_roc(scores, wrong) == 0.5
    assert benchmark.main(["measure", str(noisy), "--truth", str(tiny_camvid)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| margin |") == len(JUDGES) and len(SCORES) == 2
    n_wrong = int(printed.split(": ")[1].split()[0])
    assert 4 <= n_wrong <= 22  # 40 answers, 3 in 10
