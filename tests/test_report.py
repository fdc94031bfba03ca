"""report.py: the page of a real run in a real browser, and of runs that lack something."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import report
import train
from datasets.annotations import Annotation, log_path, log_text
from datasets.queries import load_query
from tests.annotation_tool.chromium import Chromium, find_chromium
from tests.conftest import RUN, quick_flags
from utils.errors import InputError
from utils.files import read_csv, write_csv, write_json, write_text
from utils.report.cost import Rate, annotation_rate
from utils.report.recorded import read_record
from utils.run_groups import read_run


@pytest.fixture(scope="module")
def runs(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds, and full masks. Not to be changed; see `run`."""
    folder = tmp_path_factory.mktemp("runs")
    for flags in ([], ["--n_pixels_by_us", "0"]):
        words = [*quick_flags(without=["--n_pixels_by_us", "--max_budget"] if flags else []),
                 "--n_epochs", "1", "--dir_dataset", str(tiny_camvid), "--dir_checkpoints",
                 str(folder), *flags]
        assert train.main(words) == 0
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A copy of the run on points to break."""
    return Path(shutil.copytree(runs / RUN, tmp_path / RUN))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are composed, but what is written is none: drawing takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write(b"no picture"))


def page_of(*runs: Path, output: Path, more: tuple[str, ...] = ()) -> str:
    assert report.main([*map(str, runs), "--output", str(output), "--device", "cpu", *more]) == 0
    return (output / "report.html").read_text(encoding="utf-8")


def change_flags(run: Path, **flags: object) -> None:
    content = json.loads((run / "args.json").read_text())
    content["flags"] |= flags
    write_json(run / "args.json", content)


@pytest.mark.skipif(find_chromium() is None and not os.environ.get("CI"),
                    reason="Chromium is not installed")
def test_in_a_browser(runs: Path, tmp_path: Path) -> None:
    text = page_of(*runs.iterdir(), output=tmp_path / "out", more=("--seconds_per_pixel", "3"))
    assert "2.0 (assumed)" in text  # 2 rounds of 4 pixels in 5 images, 3 s each
    assert "http" not in text and "<script" not in text
    miou = float(read_csv(runs / RUN / "metrics.csv")[-1]["miou_last"])
    assert f"mIoU {100 * miou:.1f} %, {100 * miou:.1f} % in metrics.csv" in text
    with Chromium(width=400, height=800) as browser:
        page = browser.page((tmp_path / "out" / "report.html").as_uri())
        pictures = page.run("[...document.images].map((image) => [image.complete, "
                            "image.naturalWidth, image.getBoundingClientRect().width])")
        assert len(pictures) == 1 + 7 + 3  # the curve, the run's, the full one's
        assert all(complete and 100 < natural and 100 < shown
                   for complete, natural, shown in pictures)
        for width in (400, 1200):
            page.resize(width, 800)
            assert page.run("document.documentElement.scrollWidth") <= width
        page.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark"}])
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(23, 23, 23)"
        links = page.run("[...document.querySelectorAll('nav a')].map((a) => "
                         "document.querySelector(a.getAttribute('href')) !== null)")
        assert links == [True] * 4 and page.problems == []


@pytest.mark.usefixtures("undrawn")
def test_a_second_report_evaluates_nothing(run: Path, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    first = page_of(run, output=tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("utils.inference.ConfusionMatrix", None)
        patch.setattr("utils.report.evaluation.Calibration", None)
        assert page_of(run, output=tmp_path / "out") == first
    change_flags(run, dir_dataset=str(tmp_path / "gone"))
    again = page_of(run, output=tmp_path / "out")  # what it knows, it knows without data
    assert "expected calibration error" in again and "The pictures of the run itself" in again


@pytest.mark.usefixtures("undrawn")
def test_runs_that_lack_more_and_more(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    change_flags(run, dir_dataset="gone")
    (run / "1_query" / "labels.csv").unlink()
    text = page_of(run, output=out)
    assert "expected calibration error" not in text and "1_query/labels.csv" in text
    assert "Left out: no folder gone; --dir_dataset names where" in text
    for number in (0, 1):
        for path in (run / f"{number}_query").iterdir():
            path.unlink()
    text = page_of(run, output=out)
    assert "no query.json can be read" in text and "has kept its network" in text
    (run / "metrics.csv").unlink()
    assert "in progress: 0 of 2 rounds" in page_of(run, output=out)


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_network_stands_beside_its_own_figure(run: Path, tmp_path: Path) -> None:
    (run / "1_query" / "last.pt").unlink()
    first, second = read_csv(run / "metrics.csv")
    second["miou_last"] = "0.999"
    write_csv(run / "metrics.csv", list(first), [list(row.values()) for row in (first, second)])
    text = page_of(run, output=tmp_path / "out")
    assert "The network of round 1 on" in text
    assert f", {100 * float(first['miou_last']):.1f} % in metrics.csv." in text


@pytest.mark.usefixtures("undrawn")
def test_in_progress_and_without_validation(run: Path, tmp_path: Path) -> None:
    lines = (run / "metrics.csv").read_text().splitlines()
    write_text(run / "metrics.csv", "\n".join(lines[:2]) + "\n")
    (run / "1_query" / "labels.csv").unlink()
    assert "in progress: 1 of 2 rounds" in page_of(run, output=tmp_path / "a")
    names = lines[0].split(",")
    unknown = [["nan" if "miou" in name or "iou_" in name else cell for name, cell in
                zip(names, line.split(","), strict=True)] for line in lines[1:]]
    write_text(run / "metrics.csv", "\n".join([lines[0], *map(",".join, unknown)]) + "\n")
    change_flags(run, dir_dataset="gone")
    text = page_of(run, output=tmp_path / "b")
    assert "no run has finished a round with an mIoU" in text
    assert "no round has been evaluated" in text and "What was asked" in text


def test_images_of_different_sizes_and_broken_files(run: Path, tmp_path: Path) -> None:
    path = run / "0_query" / "query.json"
    content = json.loads(path.read_text())
    content["images"][0]["h"], content["images"][1]["w"] = 300, 300
    write_json(path, content)
    write_text(run / "1_query" / "query.json", "{")
    write_text(run / "1_query" / "query_stats.json", "[]")
    (run / "1_query" / "last.pt").write_bytes(b"no checkpoint")
    text = page_of(run, output=tmp_path / "out")
    assert "cannot be read as a checkpoint" in text and "left out: cannot read" in text


@pytest.mark.usefixtures("undrawn")
def test_text_of_files_is_escaped(run: Path, tmp_path: Path) -> None:
    content = json.loads((run / "args.json").read_text())
    bad = "<img src=x onerror=alert(1)>"
    content["command"].append(bad)
    content["machine"] = {"device": bad, "cpu_cores": bad}
    content["versions"] = {bad: bad}
    content["git_commit"] = content["flags"]["suffix"] = content["flags"]["backbone"] = bad
    write_json(run / "args.json", content)
    header = (run / "metrics.csv").read_text().replace("iou_sky", f"iou_{bad}")
    write_text(run / "metrics.csv", header)
    for number in (0, 1):
        (run / f"{number}_query" / "last.pt").unlink()
        (run / f"{number}_query" / "query_stats.json").unlink()
    text = page_of(run.rename(run.with_name("a <b> & run")), output=tmp_path / "out")
    assert bad not in text and "<b>" not in text and "&lt;img src=x" in text


def test_annotation_time(run: Path, tmp_path: Path) -> None:
    def rate(assumed: float | None = None) -> Rate:
        return annotation_rate(read_record(read_run(run)), assumed=assumed)

    assert math.isnan(rate().seconds)
    assert "not measured: the answers came from label maps" in rate().source
    assert rate(3.0).seconds == 3 and "assumed: 3 s per pixel" in rate(3.0).source
    query = load_query(run / "0_query" / "query.json")
    folder = tmp_path / "logs" / "camvid_ann"
    for name, (h, w), pixels in zip(query.names, query.sizes.tolist(), query.pixels, strict=True):
        write_text(log_path(folder, Path(name).name), log_text(
            Annotation(image=Path(name).name, y=y, x=x, h=h, w=w, label="sky", elapsed_time=1.5,
                       total_time=1.5) for y, x in pixels.tolist()))
    change_flags(run, labeller="human", dir_annotations=[str(tmp_path / "logs")])
    assert rate(3.0) == Rate(1.5, "measured: mean of 20 answers")
    change_flags(run, dir_annotations=[str(tmp_path / "nowhere")])
    assert "logs are not at hand" in rate().source


def test_flags_that_differ_from_the_recipe(run: Path) -> None:
    recorded = json.loads((run / "args.json").read_text())["flags"]
    found = dict(report.unusual_flags(recorded))
    assert found["downsample"] == "12" and found["n_epochs"] == "1"
    assert not found.keys() & {"lr", "dir_dataset", "device", "network_name", "scale"}


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        report.main([str(tmp_path), "--dir_dataset", str(tmp_path / "gone")])
    with pytest.raises(InputError, match="folder of a run"):
        report.main([str(tmp_path)])
