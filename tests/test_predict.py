"""predict.py as a user calls it, on a miniature and a network of a few steps."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.optim.swa_utils import update_bn

import predict
import train
from datasets.camvid import CAMVID
from datasets.images import read_image, read_label, resize_label
from datasets.split import load_split
from tests.conftest import RUN, quick_flags
from utils.checkpoints import cpu_state, load_checkpoint, save_checkpoint
from utils.device import select_autocast
from utils.errors import InputError
from utils.models import load_model
from utils.outputs import overlay, palette_of

PALETTE = palette_of(CAMVID)


@pytest.fixture(scope="module")
def run_folder(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`0_query` of a run in float32."""
    out = tmp_path_factory.mktemp("run")
    assert train.main([*quick_flags(), "--dir_dataset", str(tiny_camvid), "--dir_checkpoints",
                       str(out), "--max_budget", "4", "--amp", "off", "--lr", "5e-3",
                       "--n_epochs", "4", "--eval_interval", "4"]) == 0
    return out / RUN / "0_query"


@pytest.fixture(scope="module")
def checkpoint(run_folder: Path, tiny_camvid: Path) -> Path:
    """The run's network with batch statistics and a classifier fitted to the test images, so that
    each class has logits of mean 0 and deviation 1: what four epochs leave may, by the machine's
    rounding, be one class everywhere."""
    content = load_checkpoint(run_folder / "last.pt")
    network = load_model(run_folder / "last.pt", device=torch.device("cpu")).network
    images = torch.stack([torch.from_numpy(read_image(path)).permute(2, 0, 1) / 128 - 1
                          for path in sorted((tiny_camvid / "test").glob("*.png"))])
    update_bn([images], network)
    classifier = network.decoder.classifier
    with torch.no_grad():
        std, mean = torch.std_mean(network.eval()(images), dim=(0, 2, 3))
        classifier.weight /= std[:, None, None, None]
        classifier.bias.sub_(mean).div_(std)
    save_checkpoint(run_folder / "varied.pt", content | {"network": cpu_state(network)})
    return run_folder / "varied.pt"


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """`run(input, ..., *flags)` is predict.py; the output folder."""
    def main(*words: object, code: int = 0, out: str = "out", n_workers: int = 1,
             checkpoint: Path = checkpoint) -> Path:
        assert predict.main(["--checkpoint", str(checkpoint), "--output",
                             str(tmp_path / out), "--device", "cpu", "--amp", "off", "--n_workers",
                             str(n_workers), "--input", *map(str, words)]) == code
        return tmp_path / out

    return main


@pytest.fixture
def mixed(tiny_camvid: Path, tmp_path: Path) -> Path:
    """Images of many kinds and sizes, in folders."""
    scene = Image.open(tiny_camvid / "test/scene_0000.png").convert("RGB")
    folder = tmp_path / "mixed"
    (folder / "a/deep").mkdir(parents=True)
    scene.save(folder / "a/scene.png")
    scene.resize((130, 50)).convert("L").save(folder / "a/grey.JPG")
    scene.quantize(16).save(folder / "a/deep/palette.gif")
    scene.convert("RGBA").save(folder / "rgba.webp")
    scene.convert("CMYK").save(folder / "cmyk.tiff")
    scene.resize((1, 1)).save(folder / "one.bmp")
    scene.resize((300, 3)).save(folder / "wide.ppm")
    turned = Image.Exif()
    turned[0x0112] = 6
    scene.save(folder / "turned.jpg", exif=turned)
    (folder / "notes.txt").write_text("no image")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


STEMS = {"a/scene", "a/grey", "a/deep/palette", "rgba", "cmyk", "one", "wide", "turned"}


def test_a_folder_of_everything(run, mixed: Path) -> None:
    before = content(mixed)
    out = run(mixed, "--overlay", "--probabilities", "--uncertainty", "entropy", n_workers=3)
    assert content(mixed) == before
    assert content(out).keys() == {"predictions.json"} | {
        stem + ending for stem in STEMS
        for ending in (".png", ".overlay.png", ".npz", ".entropy.png")}
    for path in (path for path in mixed.rglob("*.*") if path.suffix != ".txt"):
        image, stem = read_image(path), path.relative_to(mixed).with_suffix("").as_posix()
        written = Image.open(out / f"{stem}.png")
        labels = np.array(written)
        assert written.mode == "P" and labels.shape == image.shape[:2] and labels.max() < 11
        assert written.getpalette("RGB")[:33] == PALETTE[:11].ravel().tolist()
        on_image = np.array(Image.open(out / f"{stem}.overlay.png"), int)
        assert np.abs(on_image - (image / 2 + PALETTE[labels] / 2)).max() <= 1
        with np.load(out / f"{stem}.npz", allow_pickle=False) as file:
            probabilities = file["probabilities"]
            assert file["classes"].tolist() == list(CAMVID.class_names)
        assert probabilities.dtype == np.float16 and probabilities.shape == (11, *labels.shape)
        np.testing.assert_allclose(probabilities.astype(float).sum(axis=0), 1, atol=5e-3)
        likeliest = np.take_along_axis(probabilities, labels[None].astype(int), axis=0)[0]
        assert (likeliest >= probabilities.max(axis=0) - 1e-3).all()
        assert np.array(Image.open(out / f"{stem}.entropy.png")).shape == labels.shape
    assert len(np.unique(np.array(Image.open(out / "a/scene.png")))) > 1


def test_neither_batches_nor_workers_matter(run, mixed: Path) -> None:
    first = run(mixed, "--batch_size", "1", out="first")
    second = run(mixed, "--batch_size", "5", out="second", n_workers=3)
    assert content(first) == content(second)


def test_the_evaluation_is_that_of_training(run, run_folder: Path, tiny_camvid: Path) -> None:
    out = run(tiny_camvid / "test", "--labels", tiny_camvid / "testannot",
              checkpoint=run_folder / "last.pt")
    scores = json.loads((out / "evaluation.json").read_text())
    with open(run_folder / "log_val.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert scores["miou"] == float(last["miou"]) > 0
    assert scores["pixel_accuracy"] == float(last["pixel_accuracy"])
    assert scores["n_images"] == 3 and scores["without_labels"] == []
    model = load_model(run_folder / "last.pt", device=torch.device("cpu"))
    split = load_split(CAMVID, "test", dir_dataset=tiny_camvid, grid=CAMVID.grid.divided(12),
                       n_workers=1)
    assert scores["confusion"] == model.predictor(batch_size=8).evaluate(
        model.network, split, n_classes=11,
        autocast=select_autocast("off", model.device)).tolist()


def test_label_maps_of_another_size_and_missing_ones(run, tiny_camvid: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture) -> None:
    labels = tmp_path / "labels"
    shutil.copytree(tiny_camvid / "testannot", labels)
    (labels / "scene_0002.png").unlink()
    (labels / "scene_0001.png").write_text("no picture")
    raw = Image.open(labels / "scene_0000.png")
    raw.resize((128, 96), Image.Resampling.NEAREST).save(labels / "scene_0000.png")
    out = run(tiny_camvid / "test", "--labels", labels, code=1)
    said = capsys.readouterr()
    assert "no label maps of 1 images: scene_0002.png" in said.err
    assert "scene_0001.png: cannot be read" in said.err and "mIoU" in said.out
    scores = json.loads((out / "evaluation.json").read_text())
    truth = read_label(labels / "scene_0000.png", spec=CAMVID)
    predicted = resize_label(np.array(Image.open(out / "scene_0000.png")), truth.shape)
    expected = np.zeros((11, 11), int)
    np.add.at(expected, (truth[truth < 11], predicted[truth < 11]), 1)
    assert scores["confusion"] == expected.tolist()
    assert scores["n_images"] == 1 and scores["without_labels"] == ["scene_0002.png"]
    assert None in scores["iou"].values() or all(
        0 <= value <= 1 for value in scores["iou"].values())


def test_broken_files_are_skipped_and_named(run, mixed: Path,
                                            capsys: pytest.CaptureFixture) -> None:
    (mixed / "empty.png").write_bytes(b"")
    picture = (mixed / "turned.jpg").read_bytes()
    (mixed / "a/torn.jpg").write_bytes(picture[:len(picture) // 2])
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(mixed / "deep.png")
    out = run(mixed, code=predict.SKIPPED)
    said = capsys.readouterr()
    assert "8 of 11 predicted" in said.out and "could not be read: 3 files" in said.err
    for name in ("empty.png", "torn.jpg", "deep.png"):
        assert name in said.err
    assert content(out).keys() == {"predictions.json"} | {f"{stem}.png" for stem in STEMS}


def test_an_interrupted_command_continues(run, mixed: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture) -> None:
    whole = content(run(mixed, "--overlay", out="whole"))
    write, written = predict.write_outputs, []

    def interrupted(*args: object) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(args[1])
        write(*args)

    monkeypatch.setattr(predict, "write_outputs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(mixed, "--overlay")
    monkeypatch.setattr(predict, "write_outputs", lambda *args: (written.append(args[1]),
                                                                 write(*args)))
    out = run(mixed, "--overlay")
    assert "8 of 8 predicted" in capsys.readouterr().out
    assert sorted(written) == sorted(STEMS) and content(out) == whole
    (out / "one.overlay.png").unlink()
    run(mixed, "--overlay")
    assert written[-1] == "one" and content(out) == whole
    written.clear()
    with pytest.raises(InputError, match="flip was False, is True.*--overwrite"):
        run(mixed, "--overlay", "--flip")
    run(mixed, "--overlay", "--flip", "--overwrite")
    assert sorted(written) == sorted(STEMS) and content(out) != whole


def test_predictions_made_otherwise_never_pass_for_new_ones(
        run, tiny_camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Neither those of other images with the same names, nor files that --overwrite did not make
    again."""
    for folder, number in (("one", 0), ("two", 1)):
        (tmp_path / folder).mkdir()
        shutil.copy(tiny_camvid / f"test/scene_000{number}.png", tmp_path / folder / "a.png")
    first = content(run(tmp_path / "one", "--probabilities"))
    with pytest.raises(InputError, match="input was .*one', is .*two'.; .*--overwrite"):
        run(tmp_path / "two")
    assert content(run(tmp_path / "two", "--overwrite")).keys() == {"a.png", "predictions.json"}
    assert f"were moved to {tmp_path / 'out.old-1'}" in capsys.readouterr().err
    assert content(tmp_path / "out.old-1") == first
    second = content(run(tmp_path / "two", "--probabilities"))
    assert second["a.npz"] != first["a.npz"]
    run(tmp_path / "two", "--probabilities", "--overwrite")
    assert content(tmp_path / "out") == second and not (tmp_path / "out.old-2").exists()


def test_files_above_pillows_limit_with_tiles(run, tiny_camvid: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 48x64 pixels are refused at 3 times it
    words = [tiny_camvid / "test", "--labels", tiny_camvid / "testannot"]
    run(*words, out="refused", code=1)
    out = run(*words, "--tile", "32", "32")
    assert json.loads((out / "evaluation.json").read_text())["n_images"] == 3


def test_inputs_by_file_and_pattern(run, mixed: Path, tmp_path: Path) -> None:
    scene = (mixed / "a/scene.png")
    assert content(run(scene, out="file")).keys() == {"predictions.json", "scene.png"}
    found = {"predictions.json", "a/scene.png", "a/grey.png", "a/deep/palette.png"}
    assert content(run(mixed / "a*", mixed / "one.bmp", out="both")).keys() == found | {"one.png"}
    assert content(run(mixed / "**/*.[Jg]*", out="glob")).keys() == found - {"a/scene.png"}
    shutil.copy(mixed / "one.bmp", tmp_path / "no_ending")
    assert "no_ending.png" in content(run(tmp_path / "no_ending", out="plain"))


def test_sizes_tiles_and_augmentation(run, tiny_camvid: Path) -> None:
    """That the flags reach where tests/utils/test_segmenter.py looks."""
    image = tiny_camvid / "test/scene_0000.png"
    plain = content(run(image, out="plain"))["scene_0000.png"]
    assert content(run(image, "--size", "30", "40", out="same"))["scene_0000.png"] == plain
    assert content(run(image, "--tile", "32", "64", out="small"))["scene_0000.png"] == plain
    seen = [plain]
    for number, words in enumerate((
            ["--size", "image"], ["--size", "image", "--tile", "32", "32", "--overlap", "0"],
            ["--flip"], ["--scales", "1", "1.5"], ["--size", "96", "128"])):
        seen.append(content(run(image, *words, out=str(number)))["scene_0000.png"])
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("words", "message"), [
    (["{tmp}/nowhere.png"], "nowhere.png: there is no such file"),
    (["{tmp}/*.nothing"], "no images or videos found"),
    (["{tmp}/void"], "no images or videos found"),
    (["{data}/test", "--output", "{data}/test"], "give a folder of its own"),
    (["{data}/test", "--output", "{data}/test/out"], "give a folder of its own"),
    (["{data}/test", "--output", "{data}"], "give a folder of its own"),
    (["{data}/test/scene_0000.png", "--output", "{data}/test"], "give a folder of its own"),
    (["{data}/test", "--output", "{data}/testannot"], "other things than predictions"),
    (["{data}/test", "--output", "{data}/test/scene_0000.png/out"], "cannot|own"),
    (["{data}/test", "{data}/test/../test/scene_0000.webp"], "both be written as scene_0000.png"),
    (["{data}/test", "--labels", "{data}"], "no label map of any of 3 images.*scene_0000"),
    (["{data}/test", "--checkpoint", "{data}/test/scene_0000.png"], "cannot be read as a check"),
    (["{data}/test", "--size", "0", "40"], "--size 0 40: choose from fit, grid, image"),
    (["{data}/test", "--tile", "100", "128"], "multiples of 32, for example 96 128"),
    (["{data}/test", "--tile", "64", "64", "--overlap", "40"], "at most 32"),
    (["{data}/test", "--overlap", "8"], "without --tile"),
    (["{data}/test", "--uncertainty", "bald"], "unknown uncertainty 'bald'"),
    (["{data}/test", "--device", "tpu"], "--device tpu cannot be used"),
])
def test_bad_input(run, own_camvid: Path, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "void").mkdir()
    shutil.copy(own_camvid / "test/scene_0000.png", own_camvid / "test/scene_0000.webp")
    if "both" not in message:
        (own_camvid / "test/scene_0000.webp").unlink()
    before = content(own_camvid)
    with pytest.raises(InputError, match=message):
        run(*(word.format(tmp=tmp_path, data=own_camvid) for word in words))
    assert content(own_camvid) == before and not (tmp_path / "out").exists()


def test_an_export_does_not_replace_its_checkpoint(run_folder: Path) -> None:
    before = (run_folder / "last.pt").read_bytes()
    with pytest.raises(InputError, match="is the checkpoint"):
        predict.main(["--checkpoint", str(run_folder / "last.pt"), "--export", "pt2", "--output",
                      str(run_folder / "../0_query/last.pt")])
    assert (run_folder / "last.pt").read_bytes() == before


# --- videos -------------------------------------------------------------------------------------


def test_a_video(run, tiny_camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path / "clips"
    folder.mkdir()
    scenes = [read_image(path) for path in sorted((tiny_camvid / "test").glob("*.png"))]
    frames = [np.array(Image.fromarray(scene).resize((128, 96))) for scene in scenes for _ in "ab"]
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12.5,
                             (128, 96))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    (folder / "torn.mp4").write_bytes(b"no video")
    out = run(folder, "--batch_size", "4", code=1)
    assert content(out).keys() == {"predictions.json", "clip.mp4"}
    assert "torn.mp4: cannot be read as a video" in capsys.readouterr().err

    def read(path: Path) -> list[np.ndarray]:
        capture, found = cv2.VideoCapture(str(path)), []
        assert capture.get(cv2.CAP_PROP_FPS) == 12.5
        while (answer := capture.read())[0]:
            found.append(cv2.cvtColor(answer[1], cv2.COLOR_BGR2RGB))
        return found

    shown, seen = read(out / "clip.mp4"), read(folder / "clip.avi")
    assert len(shown) == len(seen) == 6
    stills = tmp_path / "stills"
    stills.mkdir()
    for number, frame in enumerate(seen):
        Image.fromarray(frame).save(stills / f"{number}.png")
    predicted = run(stills, out="of_stills")
    for number, (frame, was) in enumerate(zip(shown, seen, strict=True)):
        labels = np.array(Image.open(predicted / f"{number}.png"))
        expected = overlay(was, labels, PALETTE).astype(int)
        assert frame.shape == was.shape == (96, 128, 3)
        error = np.abs(frame - expected).mean()  # what compression leaves
        assert error < 8 and error < 0.5 * np.abs(frame - was.astype(int)).mean()


def test_a_video_without_opencv_is_one_line(run, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        run(tmp_path / "clip.mp4")
    assert not (tmp_path / "out").exists()


def test_flags_for_images_with_a_video_only(run, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="are for images; --input has videos only"):
        run(tmp_path / "clip.mp4", "--probabilities")
