"""PASCAL VOC 2012: palette label maps, images of many sizes, the tar files, SBD's annotations."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import shutil
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import SBDataset
from torchvision.datasets import utils as downloads
from torchvision.datasets.voc import DATASET_YEAR_DICT

from datasets.images import IGNORE, list_samples, read_label
from datasets.prepare import prepare
from datasets.split import load_split
from datasets.voc import VOC, VOC_AUGMENTED, palette_colour
from datasets.voc_files import prepare_augmented, prepare_voc, unpack
from tests.datasets.miniatures import (
    SBD_TRAIN,
    SBD_VAL,
    VOC_TRAIN,
    VOC_VAL,
    sbd_label,
    voc_label,
    write_sbd,
    write_voc,
)
from utils.errors import InputError

TAR = "VOCtrainval_11-May-2012.tar"
IMAGES = "VOCdevkit/VOC2012/JPEGImages"


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def no_network(*_: object, **__: object) -> None:
    raise OSError("Name or service not known")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads.urllib.request, "urlopen", no_network)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "VOC")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A folder with the tar file and nothing else."""
    source, root = write_voc(tmp_path / "source"), tmp_path / "VOC"
    root.mkdir()
    with tarfile.open(root / TAR, "w") as archive:
        archive.add(source / "VOCdevkit", "VOCdevkit")
    return root


def test_the_colours_are_those_of_the_devkit() -> None:
    """VOClabelcolormap's first entries, as in the devkit's documentation, and void's."""
    assert [palette_colour(i) for i in (0, 1, 2, 3, 8, 15, 20, 255)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (64, 0, 0), (192, 128, 128),
        (0, 64, 128), (224, 224, 192)]
    assert len({info.colour for info in VOC.classes}) == VOC.n_classes == 21


def test_palette_label_maps_hold_indices(data: Path) -> None:
    samples = list_samples(data, VOC.splits["train"])
    assert [sample.name for sample in samples] == [f"{IMAGES}/{name}.jpg" for name in VOC_TRAIN]
    for sample, name in zip(samples, VOC_TRAIN, strict=True):
        assert Image.open(sample.label).mode == "P"
        label = read_label(sample.label, spec=VOC)
        assert np.array_equal(label, voc_label(name)) and (label == IGNORE).any()


def test_images_of_different_sizes(data: Path) -> None:
    split = load_split(VOC, "val", dir_dataset=data, grid=VOC.grid.divided(8), n_workers=2)
    assert len(split) == len(VOC_VAL) and split.canvas == tuple(split.sizes.max(axis=0))
    assert len({tuple(size) for size in split.sizes.tolist()}) > 1
    for name, size, label, image in zip(VOC_VAL, split.sizes.tolist(), split.labels, split.images,
                                        strict=True):
        assert label.shape == voc_label(name).shape  # validation at the original size
        assert max(size) == 50
        assert size[0] / size[1] == pytest.approx(label.shape[0] / label.shape[1], rel=0.03)
        assert not image[size[0]:].any() and not image[:, size[1]:].any()
        assert image[:size[0], :size[1]].any(axis=2).mean() > 0.5
    for index in split.batches(8):
        assert len({split.labels[i].shape for i in index}) == 1


@pytest.mark.parametrize(("size", "grid"), [((375, 500), (300, 400)), ((500, 333), (400, 266)),
                                            ((100, 80), (400, 320)), ((300, 400), (300, 400))])
def test_the_longer_side_is_400(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert VOC.grid.of(size) == grid


def test_a_listed_image_that_is_missing_is_named(data: Path) -> None:
    (data / IMAGES / f"{VOC_VAL[1]}.jpg").unlink()
    with pytest.raises(InputError, match=rf"1 images of .*val\.txt are not in .*{VOC_VAL[1]}"):
        list_samples(data, VOC.splits["val"])


def test_the_tar_file_that_lies_there_is_used(packed: Path, data: Path) -> None:
    expected = everything(data / "VOCdevkit")
    shutil.rmtree(data / "VOCdevkit")
    folder = prepare(VOC, dir_dataset=packed, downsample=2, n_workers=0, splits={"train": True})
    assert folder == packed and everything(packed / "VOCdevkit") == expected
    assert {path.name for path in packed.iterdir()} == {TAR, "VOCdevkit"}
    (packed / TAR).write_bytes(b"not looked at any more")
    prepare_voc(packed)


def test_another_year_beside_it_is_kept(packed: Path) -> None:
    other = packed / "VOCdevkit" / "VOC2007" / "x"
    other.parent.mkdir(parents=True)
    other.write_text("kept")
    prepare_voc(packed)
    assert other.read_text() == "kept"
    assert len(list_samples(packed, VOC.splits["train"])) == len(VOC_TRAIN)


def member(name: str, **fields: object) -> Callable[[tarfile.TarFile], None]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    info.size = 0 if "type" in fields else 4
    return lambda archive: archive.addfile(info, io.BytesIO(b"evil"))


@pytest.mark.parametrize("evil", [
    member("../evil"),
    member("VOCdevkit/../../evil"),
    member("/tmp/evil"),
    member("VOCdevkit/VOC2012/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    member("VOCdevkit/VOC2012/link", type=tarfile.SYMTYPE, linkname="../../../evil"),
    member("VOCdevkit/VOC2012/link", type=tarfile.SYMTYPE, linkname="JPEGImages"),
    member("VOCdevkit/VOC2012/link", type=tarfile.LNKTYPE, linkname="../evil"),
    member("VOCdevkit/VOC2012/pipe", type=tarfile.FIFOTYPE),
    member("VOCdevkit/VOC2012/device", type=tarfile.CHRTYPE),
])
def test_a_hostile_tar_file_leaves_nothing(packed: Path, tmp_path: Path,
                                           evil: Callable[[tarfile.TarFile], None]) -> None:
    with tarfile.open(packed / TAR, "a") as archive:
        evil(archive)
    before = everything(tmp_path)
    with pytest.raises(InputError, match=rf"{TAR} cannot be unpacked") as caught:
        prepare_voc(packed)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == before and [p.name for p in packed.iterdir()] == [TAR]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2 + 100]


def cut_between_members(content: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return content[: archive.getmembers()[9].offset]


@pytest.mark.parametrize("spoil", [
    cut, cut_between_members, lambda content: cut_between_members(content) + content[:99],
    lambda _: b"", lambda _: b"no tar" * 999, lambda content: b"\0" * len(content)],
    ids=["cut", "between", "in a header", "empty", "text", "zeros"])
def test_a_broken_tar_file_is_named(packed: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = packed / TAR
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{TAR}.*(cannot be unpacked|no folder)"):
        prepare_voc(packed)
    assert [p.name for p in packed.iterdir()] == [TAR]


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_a_broken_tgz_file_is_named(tmp_path: Path, at: float) -> None:
    path = tmp_path / "benchmark.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(write_sbd(tmp_path / "source") / "benchmark_RELEASE", "benchmark_RELEASE")
    content = bytearray(path.read_bytes())
    position = int(at * len(content))
    content[position : position + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"benchmark.tgz cannot be unpacked"):
        unpack(path, tmp_path / "data", wanted="benchmark_RELEASE/dataset")
    assert not list((tmp_path / "data").rglob("*"))


def test_the_wrong_tar_file_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / TAR, "w") as archive:
        member("VOCdevkit/VOC2007/x")(archive)
    with pytest.raises(InputError, match="has no folder VOCdevkit/VOC2012; is it the right file"):
        prepare_voc(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TAR]


def test_without_tar_file_and_network(tmp_path: Path) -> None:
    place = tmp_path / "data" / TAR
    with pytest.raises(InputError, match="cannot be downloaded.*Name or service") as caught:
        prepare_voc(tmp_path / "data")
    assert str(caught.value).endswith(f"place it as {place}") and "\n" not in str(caught.value)
    assert not place.exists()


def test_without_sbd_and_network(data: Path) -> None:
    with pytest.raises(InputError, match=r"benchmark.tgz cannot be downloaded.*place it as"):
        prepare_augmented(data)
    assert not (data / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt").exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder that a web server on this machine serves, and its address."""
    monkeypatch.undo()  # what `offline` did
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_download(packed: Path, tmp_path: Path, served: tuple[Path, str],
                      monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = served
    content = (packed / TAR).read_bytes()
    (folder / TAR).write_bytes(content)
    root = tmp_path / "new" / "VOC"

    def offer(md5: str) -> None:
        monkeypatch.setitem(DATASET_YEAR_DICT, "2012",
                            DATASET_YEAR_DICT["2012"] | {"url": f"{address}/{TAR}", "md5": md5})

    offer("0" * 32)
    with pytest.raises(InputError, match=f"{TAR} cannot be downloaded .*corrupted"):
        prepare_voc(root)
    assert not (root / TAR).exists()  # what came is not taken for the file
    offer(hashlib.md5(content).hexdigest())
    prepare_voc(root)
    assert (root / TAR).read_bytes() == content
    assert {path.name for path in root.iterdir()} == {TAR, "VOCdevkit"}
    assert len(list_samples(root, VOC.splits["val"])) == len(VOC_VAL)
    (folder / TAR).unlink()
    shutil.rmtree(root / "VOCdevkit")
    prepare_voc(root)  # from the tar file, not from the network


def test_the_download_of_sbd(data: Path, tmp_path: Path, served: tuple[Path, str],
                             monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = served
    with tarfile.open(folder / "benchmark.tgz", "w:gz") as archive:
        archive.add(write_sbd(tmp_path / "source") / "benchmark_RELEASE", "benchmark_RELEASE")
    monkeypatch.setattr(SBDataset, "url", f"{address}/benchmark.tgz")
    monkeypatch.setattr(SBDataset, "md5", hashlib.md5(
        (folder / "benchmark.tgz").read_bytes()).hexdigest())
    prepare_augmented(data)
    assert len(list_samples(data, VOC_AUGMENTED.splits["train"])) == 7


def test_sbd_adds_images_but_none_of_val(data: Path) -> None:
    write_sbd(data)
    prepare(VOC_AUGMENTED, dir_dataset=data, downsample=1, n_workers=0,
            splits={"train": True, "val": True})
    expected = sorted({*VOC_TRAIN, *SBD_TRAIN, *SBD_VAL} - {*VOC_VAL})
    assert expected == ["2007_000032", "2007_000039", "2007_000063", "2008_000002", "2008_000003",
                        "2008_000007", "2008_000015"]
    samples = list_samples(data, VOC_AUGMENTED.splits["train"])
    assert [Path(sample.name).stem for sample in samples] == expected
    for sample, name in zip(samples, expected, strict=True):
        truth = voc_label(name) if name in VOC_TRAIN else sbd_label(name)
        assert np.array_equal(read_label(sample.label, spec=VOC_AUGMENTED), truth)
        image = Image.open(sample.label)
        assert image.mode == "P"
        assert image.getpalette()[: 3 * 21] == [c for i in range(21) for c in palette_colour(i)]
    assert [Path(s.name).stem for s in list_samples(data, VOC_AUGMENTED.splits["val"])] == \
        list(VOC_VAL)


def test_an_interrupted_sbd_is_finished(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.voc_files as voc_files

    write_sbd(data)
    read = voc_files._sbd_label

    def stop(path: Path) -> Image.Image:
        if path.stem == "2008_000003":
            raise KeyboardInterrupt
        return read(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(voc_files, "_sbd_label", stop)
        prepare_augmented(data)
    with pytest.raises(InputError):
        list_samples(data, VOC_AUGMENTED.splits["train"])
    prepare_augmented(data)
    assert len(list_samples(data, VOC_AUGMENTED.splits["train"])) == 7


def break_mat(data: Path) -> Path:
    path = data / "benchmark_RELEASE/dataset/cls/2008_000002.mat"
    path.write_bytes(path.read_bytes()[:250])
    return path


def text_mat(data: Path) -> Path:
    path = data / "benchmark_RELEASE/dataset/cls/2008_000002.mat"
    path.write_text("no matrix " * 99)
    return path


def other_mat(data: Path) -> Path:
    from scipy.io import savemat

    path = data / "benchmark_RELEASE/dataset/cls/2008_000002.mat"
    savemat(path, {"GTcls": np.zeros((3, 3))})
    return path


def no_mat(data: Path) -> Path:
    path = data / "benchmark_RELEASE/dataset/cls/2008_000002.mat"
    path.unlink()
    return path


def no_list(data: Path) -> Path:
    path = data / "benchmark_RELEASE/dataset/val.txt"
    path.unlink()
    return path


def no_label(data: Path) -> Path:
    path = data / f"VOCdevkit/VOC2012/SegmentationClass/{VOC_TRAIN[0]}.png"
    path.unlink()
    return path


def hostile_list(data: Path) -> Path:
    path = data / "benchmark_RELEASE/dataset/train.txt"
    path.write_text("../../../evil\n")
    return path


@pytest.mark.parametrize("spoil", [break_mat, text_mat, other_mat, no_mat, no_list, no_label,
                                   hostile_list])
def test_a_broken_sbd_is_named(data: Path, spoil: Callable[[Path], Path]) -> None:
    write_sbd(data)
    path = spoil(data)
    with pytest.raises(InputError, match=str(path)):
        prepare_augmented(data)
    assert not (data / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt").exists()
