"""Two rounds on a miniature of every dataset, through train.py's own flags."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import args as flags
import train
from datasets.cityscapes import CITYSCAPES
from datasets.classes import KEYS
from datasets.images import IGNORE, read_label, resize_label
from datasets.points import VOID
from tests.conftest import quick_flags
from tests.datasets.miniatures import (
    SBD_TRAIN,
    SBD_VAL,
    VOC_TRAIN,
    VOC_VAL,
    camvid_with_val,
    label_ids_of,
    sbd_label,
    voc_label,
    write_cityscapes,
    write_own,
    write_sbd,
    write_voc,
)
from utils.errors import InputError
from utils.inference import Predictor

Run = Callable[..., Path]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(*flags)` is train.py with quick flags but without a dataset; the run's folder."""
    quick = quick_flags(without=["--dataset_name", "--downsample", "--n_epochs"])

    def main(*more: str, code: int = 0) -> Path:
        words = [*quick, "--n_epochs", "1", "--dir_checkpoints", str(tmp_path / "runs"), *more]
        assert train.main(words) == code
        return tmp_path / "runs" / flags.experiment_name(flags.parse_arguments(words))

    return main


def check(folder: Path, *, truth: Callable[[str], np.ndarray], names: set[str],
          n_classes: int) -> None:
    """Two rounds: 4 new pixels of every image, each on its grid and with the true label that
    `truth(name)`, the classes at the original size, has under its centre; and scores."""
    seen: set[tuple[str, int, int]] = set()
    for r in (0, 1):
        images = json.loads((folder / f"{r}_query/query.json").read_text())["images"]
        grid = {entry["image"]: (entry["h"], entry["w"]) for entry in images}
        assert grid.keys() == names
        answers = rows(folder / f"{r}_query/labels.csv")
        assert len(answers) == 4 * len(names)
        for row in answers:
            name, y, x = row["image"], int(row["y"]), int(row["x"])
            assert (name, y, x) not in seen
            seen.add((name, y, x))
            assert resize_label(truth(name), grid[name])[y, x] == int(row["label"]) < n_classes
        masks = np.load(folder / f"{r}_query/query.npy", allow_pickle=False)
        assert masks.sum() == len(answers) and len(masks) == len(names)
    table = rows(folder / "metrics.csv")
    assert [row["pixels_per_image"] for row in table] == ["4.000000", "8.000000"]
    for row in table:
        assert 0 <= float(row["miou_last"]) <= float(row["miou_best"]) <= 1
        assert sum(name.startswith("iou_") for name in row) == n_classes
    assert np.asarray(Image.open(folder / "1_query/qualitative.png")).std() > 10


def cityscapes_truth(data: Path) -> Callable[[str], np.ndarray]:
    return lambda name: read_label(data / label_ids_of(name), spec=CITYSCAPES)


def test_cityscapes(run: Run, tmp_path: Path) -> None:
    data = write_cityscapes(tmp_path / "cityscapes")
    names = {path.relative_to(data).as_posix() for path in (data / "leftImg8bit/train").rglob(
        "*.png")}
    words = ["--dataset_name", "cityscapes", "--dir_dataset", str(data), "--downsample", "32"]
    folder = run(*words)
    check(folder, truth=cityscapes_truth(data), names=names, n_classes=19)
    grids = {(entry["h"], entry["w"]) for entry in json.loads(
        (folder / "0_query/query.json").read_text())["images"]}
    assert grids == {(32, 64)} and len(list((tmp_path / "cityscapes_d32").rglob("*.png"))) == 16
    # The reduced copy is all that is needed to go on.
    shutil.rmtree(data)
    run(*words, "--max_budget", "12")
    assert len(rows(folder / "metrics.csv")) == 3


def test_cityscapes_evaluated_at_full_size(run: Run, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    data, counted = write_cityscapes(tmp_path / "cityscapes"), []
    evaluate = Predictor.evaluate

    def watched(*args, **kwargs) -> np.ndarray:
        counted.append(evaluate(*args, **kwargs))
        return counted[-1]

    monkeypatch.setattr(Predictor, "evaluate", watched)
    words = ["--dataset_name", "cs", "--dir_dataset", str(data), "--downsample", "32",
             "--max_budget", "4"]
    small, full = run(*words), run(*words, "--eval_full", "--suffix", "full")
    truth = cityscapes_truth(data)
    labels = [truth(path.relative_to(data).as_posix())
              for path in sorted((data / "leftImg8bit/val").rglob("*.png"))]
    for confusion, shape in zip(counted, ((32, 64), (64, 128)), strict=True):
        at_shape = np.stack([resize_label(label, shape) for label in labels])
        assert confusion.sum(axis=1).tolist() == \
            np.bincount(at_shape[at_shape != IGNORE], minlength=19).tolist()
    for name in ("labels.csv", "query.json"):  # all but the evaluation is the same
        assert (small / "0_query" / name).read_bytes() == (full / "0_query" / name).read_bytes()
    assert len({rows(folder / "0_query/log_train.csv")[0]["loss"] for folder in (small, full)}) == 1


VOC_FLAGS = ["--dataset_name", "voc", "--downsample", "8", "--crop", "32", "32"]


def voc_names(names: tuple[str, ...]) -> set[str]:
    return {f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg" for name in names}


def test_voc_from_its_tar_file(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "VOC"
    data.mkdir()
    source = write_voc(tmp_path / "source")
    with tarfile.open(data / "VOCtrainval_11-May-2012.tar", "w") as archive:
        archive.add(source / "VOCdevkit", "VOCdevkit")
    folder = run(*VOC_FLAGS, "--dir_dataset", str(data))
    check(folder, truth=lambda name: voc_label(Path(name).stem), names=voc_names(VOC_TRAIN),
          n_classes=21)
    images = json.loads((folder / "0_query/query.json").read_text())["images"]
    assert len({(entry["h"], entry["w"]) for entry in images}) > 1
    assert {max(entry["h"], entry["w"]) for entry in images} == {50}


def test_voc_with_sbd(run: Run, tmp_path: Path) -> None:
    data = write_sbd(write_voc(tmp_path / "VOC"))
    folder = run(*VOC_FLAGS, "--dir_dataset", str(data), "--use_augmented_dataset")
    check(folder, names=voc_names(tuple({*VOC_TRAIN, *SBD_TRAIN, *SBD_VAL} - {*VOC_VAL})),
          truth=lambda name: (voc_label if Path(name).stem in VOC_TRAIN else sbd_label)(
              Path(name).stem), n_classes=21)


def test_voc_on_full_masks(run: Run, tmp_path: Path) -> None:
    """Images of different sizes: only what is inside one counts."""
    data = write_voc(tmp_path / "VOC")
    words = quick_flags(without=["--max_budget", "--dataset_name", "--downsample"])
    assert train.main([*words, *VOC_FLAGS, "--n_pixels_by_us", "0", "--n_epochs", "1",
                       "--dir_dataset", str(data), "--dir_checkpoints", str(tmp_path)]) == 0
    (row,) = rows(tmp_path / "voc_d8_deeplab_mobilenetv2_full_0" / "metrics.csv")
    assert float(row["percent"]) == 100 and 0 <= float(row["miou_last"]) <= 1


def test_camvid_on_another_split(run: Run, tiny_camvid: Path, tmp_path: Path) -> None:
    """train, val and test folders; the paper evaluates on test."""
    data = camvid_with_val(tmp_path / "CamVid", tiny_camvid)
    spec = flags.DATASETS["camvid"]
    words = ["--dataset_name", "camvid", "--dir_dataset", str(data), "--downsample", "12"]
    on_test, on_val = run(*words), run(*words, "--eval_split", "val", "--suffix", "val")
    for folder in (on_test, on_val):
        check(folder, truth=lambda name: read_label(
            data / name.replace("train/", "trainannot/"), spec=spec), n_classes=11,
            names={f"train/scene_{i:04}.png" for i in range(5)})
    assert (on_test / "1_query/labels.csv").read_bytes() == \
        (on_val / "1_query/labels.csv").read_bytes()
    assert rows(on_test / "metrics.csv")[0]["pixel_accuracy"] != \
        rows(on_val / "metrics.csv")[0]["pixel_accuracy"]
    for words in (["--eval_split", "nowhere"], ["--eval_split", ""]):
        with pytest.raises(InputError, match="camvid has train, val, test"):
            run("--dataset_name", "camvid", "--dir_dataset", str(data), *words)


def own(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text("train: {images: train/images, labels: train/labels}\n" + text)
    return str(path)


def test_a_dataset_of_ones_own(run: Run, tmp_path: Path) -> None:
    """Forty classes, more than there are keys."""
    data = write_own(tmp_path / "mine", classes=40)
    text = f"classes: [{', '.join(f'class {i}' for i in range(40))}]\nflags: {{lr: 0.002}}\n"
    assert len(KEYS) < 40
    path = own(data, text + "val: {images: val/images, labels: val/labels}\n")
    folder = run("--p_dataset_config", path)
    check(folder, truth=lambda name: np.array(Image.open(data / name.replace("images", "labels"))),
          names={f"train/images/{i}.png" for i in range(4)}, n_classes=40)
    assert json.loads((folder / "args.json").read_text())["flags"]["lr"] == 0.002
    assert folder.name.startswith("mine_deeplab")
    own(data, text)  # without val it is another experiment
    with pytest.raises(InputError, match="p_dataset_config"):
        run("--p_dataset_config", path, "--max_budget", "12")


def test_without_val_there_is_no_miou(run: Run, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    data = write_own(tmp_path / "mine")
    folder = run("--p_dataset_config", own(data, "classes: [a, b, c, d]\ngrid: [24, 32]\n"))
    said = capsys.readouterr()
    assert "no validation set with label maps" in said.err and "no mIoU" in said.err
    assert "no mIoU without a validation set" in said.out and "curve" not in said.out
    assert [row["miou_last"] for row in rows(folder / "metrics.csv")] == ["nan", "nan"]
    assert not (folder / "0_query/log_val.csv").exists()


def test_people_need_no_label_maps(run: Run, tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    data = write_own(tmp_path / "mine")
    shutil.rmtree(data / "train/labels")
    (data / "mine.yaml").write_text("classes: [a, b, c, d]\ntrain: {images: train/images}\n")
    words = ["--p_dataset_config", str(data / "mine.yaml")]
    with pytest.raises(InputError, match="no label maps are named.*--labeller human"):
        run(*words)
    folder = run(*words, "--labeller", "human", "--dir_annotations", str(tmp_path / "logs"),
                 code=train.WAITING)
    assert "16 of 16 asked pixels have no answer" in capsys.readouterr().out
    assert len(json.loads((folder / "0_query/query.json").read_text())["images"]) == 4


def test_void_is_never_asked(run: Run, tmp_path: Path) -> None:
    data = write_own(tmp_path / "mine", void=9)
    folder = run("--p_dataset_config", own(data, "classes: [a, b, c, d]\nignore: 9\n"))
    for r in (0, 1):
        for row in rows(folder / f"{r}_query/labels.csv"):
            assert int(row["label"]) not in (VOID, 9, IGNORE)


def subset(data: Path, n: int | None, seed: int = 0, *more: str) -> list[str]:
    words = ["--dataset_name", "cv", "--dir_dataset", str(data), "--downsample", "12",
             "--weight_type", "random", "--seed", str(seed), *more]
    args = flags.parse_arguments(words if n is None else [*words, "--n_images", str(n)])
    split, val = train.load_data(args, flags.spec_of(args), with_labels=True)
    assert len(val) == 3
    return split.names


def test_fewer_images_are_a_part_of_more(tiny_camvid: Path) -> None:
    whole = subset(tiny_camvid, None)
    for seed in (0, 1, 2):
        chosen = [subset(tiny_camvid, n, seed) for n in (2, 3, 4, 5)]
        assert [len(names) for names in chosen] == [2, 3, 4, 5] and chosen[-1] == whole
        for fewer, more in zip(chosen, chosen[1:], strict=False):
            assert set(fewer) < set(more) and more == sorted(more)
    assert len({tuple(subset(tiny_camvid, 2, seed)) for seed in range(8)}) > 1
    assert subset(tiny_camvid, 3) == subset(tiny_camvid, 3, 0, "--n_workers", "3")
    with pytest.raises(InputError, match="--n_images 6: .*CamVid has 5 images to train on"):
        subset(tiny_camvid, 6)


def test_a_run_on_fewer_images(run: Run, tiny_camvid: Path) -> None:
    words = ["--dataset_name", "cv", "--dir_dataset", str(tiny_camvid), "--downsample", "12"]
    folder = run(*words, "--n_images", "3")
    images = [entry["image"] for entry in json.loads(
        (folder / "1_query/query.json").read_text())["images"]]
    assert images == subset(tiny_camvid, 3)
    assert [row["pixels_total"] for row in rows(folder / "metrics.csv")] == ["12", "24"]
    with pytest.raises(InputError, match=r"n_images \(was 3, now 4\)"):
        run(*words, "--n_images", "4")
