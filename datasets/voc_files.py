"""Getting PASCAL VOC 2012 onto the disk, and with it the annotations of the Semantic Boundaries
Dataset (SBD): 10,582 training images (B. Hariharan et al., ICCV 2011)."""

from __future__ import annotations

import http.client
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.voc import VOC
from utils.errors import InputError
from utils.files import relative_name, write_atomically, write_text
from utils.progress import track

_TAR, _SBD_TAR = "VOCtrainval_11-May-2012.tar", "benchmark.tgz"
_LISTS = "VOCdevkit/VOC2012/ImageSets/Segmentation"


def prepare_voc(dir_dataset: str | Path) -> None:
    """Have `VOCdevkit/VOC2012` in the folder: unpack the tar file that lies there, else download it
    by torchvision. Raises InputError if neither works."""
    root = Path(dir_dataset)
    if (root / "VOCdevkit" / "VOC2012").is_dir():
        return
    if not (root / _TAR).exists():
        _download(root, _TAR)
    unpack(root / _TAR, root, wanted="VOCdevkit/VOC2012")


def _download(root: Path, name: str) -> None:
    from torchvision.datasets.utils import download_url

    try:
        if name == _TAR:
            from torchvision.datasets.voc import DATASET_YEAR_DICT

            source = DATASET_YEAR_DICT["2012"]
        else:
            from torchvision.datasets import SBDataset

            source = {"url": SBDataset.url, "md5": SBDataset.md5}
        root.mkdir(parents=True, exist_ok=True)
        unfinished = f"{name}.unfinished"
        download_url(source["url"], str(root), filename=unfinished, md5=source["md5"])
        (root / unfinished).rename(root / name)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"{name} cannot be downloaded ({error}); fetch it elsewhere and place it "
                         f"as {root / name}") from error


def unpack(path: Path, root: Path, *, wanted: str) -> None:
    """Unpack the folder `wanted` of a tar file into `root`, all of it or nothing. A tar file with
    anything but files and folders, or with one that would lead elsewhere, is refused."""
    unfinished = root / f".{path.name}.unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        with tarfile.open(path) as archive:
            archive.extractall(unfinished, filter=_harmless)
            _check_end(archive)
        if not (unfinished / wanted).is_dir():
            raise InputError(f"{path}: has no folder {wanted}; is it the right file?")
        (root / wanted).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / wanted).rename(root / wanted)
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked ({error}); delete it to download it again, or "
                         "make room") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_end(archive: tarfile.TarFile) -> None:
    """tarfile takes a header that is broken or missing for the end; gzip's checksum comes last."""
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.TarError("it is broken or not complete")
    while archive.fileobj.read(1 << 20):
        pass


def _harmless(member: tarfile.TarInfo, destination: str) -> tarfile.TarInfo:
    if member.name.startswith("/") or not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name!r} is a link, a device or an absolute path")
    return tarfile.data_filter(member, destination)


def prepare_augmented(dir_dataset: str | Path) -> None:
    """Have `ImageSets/Segmentation/trainaug.txt` and `SegmentationClassAug/` as well: the images of
    VOC's train list and of SBD that are not in VOC's val list; VOC's own label maps where it has
    them, SBD's elsewhere. Raises InputError if SBD is not there and cannot be downloaded."""
    prepare_voc(dir_dataset)
    root = Path(dir_dataset)
    listed = root / _LISTS / "trainaug.txt"
    if listed.exists():
        return
    sbd = root / "benchmark_RELEASE" / "dataset"
    if not sbd.is_dir():
        if not (root / _SBD_TAR).exists():
            _download(root, _SBD_TAR)
        unpack(root / _SBD_TAR, root, wanted="benchmark_RELEASE/dataset")
    train, val = (_names(root / _LISTS / f"{name}.txt") for name in ("train", "val"))
    of_sbd = [name for part in ("train", "val") for name in _names(sbd / f"{part}.txt")]
    names = sorted({*train, *of_sbd} - set(val))
    folder = root / "VOCdevkit" / "VOC2012"
    own = set(train)
    for name in track(names, len(names), description="label maps of SBD", unit="image"):
        target = folder / "SegmentationClassAug" / f"{name}.png"
        if target.exists():
            continue
        if name in own:
            content = _read(folder / "SegmentationClass" / f"{name}.png")
            write_atomically(target, lambda file, content=content: file.write(content))
        else:
            image = _sbd_label(sbd / "cls" / f"{name}.mat")
            write_atomically(target, lambda file, image=image: image.save(file, format="PNG"))
    write_text(listed, "".join(f"{name}\n" for name in names))


def _names(path: Path) -> list[str]:
    names = _read(path).decode(errors="replace").split()
    return [relative_name(name, where=path) for name in names]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; is the archive complete?") \
            from error


def _sbd_label(path: Path) -> Image.Image:
    """A label map of SBD as an indexed PNG in VOC's palette."""
    from scipy.io import loadmat

    try:
        label = loadmat(path)["GTcls"][0]["Segmentation"][0].astype(np.uint8)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path}: is no label map of SBD ({error}); unpack it again") from error
    image = Image.fromarray(label)
    image.putpalette([channel for info in VOC.classes for channel in info.colour])
    return image
