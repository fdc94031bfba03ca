"""Finding and reading images and label maps. Every problem is an InputError that names the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.spec import ClassSet, Split
from utils.errors import InputError
from utils.geometry import pixel_under

IGNORE = 255  # of label maps in memory, whatever the files call void
_RGB_CONVERTIBLE = ("L", "LA", "P", "PA", "RGBA", "1", "CMYK", "YCbCr")


@dataclass(frozen=True)
class Sample:
    """An image and its label map, if it has one; `name` is the image's path relative to the
    dataset's root."""

    name: str
    image: Path
    label: Path | None


def list_samples(dir_dataset: str | Path, split: Split, *, suffixes: Iterable[str],
                 with_labels: bool = True) -> list[Sample]:
    """The samples of a split, sorted by name, each with its label map unless without labels.

    Raises InputError for a missing or empty folder, and for images without labels or labels
    without images, with their number and the first names."""
    root = Path(dir_dataset)
    images = _files(root / split.images, suffixes)
    if not with_labels:
        return [Sample(path.relative_to(root).as_posix(), path, None) for path in images.values()]
    labels = _files(root / split.labels, (".png",))
    for found, others, what in ((images, labels, "images without a label map in "),
                                (labels, images, "label maps without an image in ")):
        alone = sorted(found.keys() - others.keys())
        if alone:
            folder = split.labels if found is images else split.images
            raise InputError(f"{root}: {len(alone)} {what}{folder}/: {_first(alone)}; add the "
                             "missing files or remove these")
    return [Sample(path.relative_to(root).as_posix(), path, labels[stem])
            for stem, path in images.items()]


def has_files(dir_dataset: str | Path, split: Split) -> bool:
    """Whether there is anything in the folder of a split's label maps."""
    folder = Path(dir_dataset) / split.labels
    return folder.is_dir() and any(folder.iterdir())


def _files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files of a folder by their name without suffix, sorted."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the dataset's root with --dir_dataset (README, "
                         "'Data sets', has the expected layout)")
    suffixes = tuple(suffixes)
    try:
        files = sorted(path for path in folder.iterdir()
                       if path.suffix.lower() in suffixes and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error
    if not files:
        raise InputError(f"no {' or '.join(suffixes)} files in {folder}; is it the right folder?")
    by_name = {path.stem: path for path in files}
    if len(by_name) < len(files):
        twice = sorted(path.name for path in files if by_name[path.stem] != path)
        raise InputError(f"{folder}: several files for one name: {_first(twice)}; keep one of each")
    return by_name


def _first(names: Sequence[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (", ..." if len(names) > n else "")


def read_image(path: Path) -> np.ndarray:
    """RGB, `(H, W, 3)` uint8. Grey, palette and RGBA images are converted (alpha is dropped);
    16-bit and floating-point images are refused."""
    image = _open(path)
    if image.mode != "RGB":
        if image.mode not in _RGB_CONVERTIBLE:
            raise InputError(f"{path}: images of mode {image.mode} (more than 8 bits a channel) "
                             "are not supported; convert it to 8-bit RGB")
        image = image.convert("RGB")
    return np.array(image)


def read_label(path: Path, *, spec: ClassSet) -> np.ndarray:
    """`(H, W)` uint8 of class indices and IGNORE. Refuses anything but 8-bit indices, and values
    that are no class of the dataset."""
    image = _open(path)
    if image.mode not in ("L", "P"):
        raise InputError(f"{path}: label maps hold class indices in one 8-bit channel, this one "
                         f"has mode {image.mode}; convert it")
    label = np.array(image)
    wrong = (label >= spec.n_classes) & (label != spec.ignore_index) & (label != IGNORE)
    if wrong.any():
        raise InputError(f"{path}: label value {label[wrong][0]} is none of the "
                         f"{spec.n_classes} classes (0 to {spec.n_classes - 1}) and not void "
                         f"({spec.ignore_index}); is this {spec.name}?")
    label[label >= spec.n_classes] = IGNORE
    return label


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for broken PNG chunks.
        raise InputError(f"{path}: cannot be read as an image ({error}); replace it") from error


def check_same_size(sample: Sample, image: np.ndarray, label: np.ndarray) -> None:
    if image.shape[:2] != label.shape:
        raise InputError("{}: {}x{} pixels, but its image {} has {}x{} (height x width)".format(
            sample.label, *label.shape, sample.name, *image.shape[:2]))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`(H, W, 3)` -> `(*size, 3)`, bilinear, with antialiasing when it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`(H0, W0)` -> `size`: the label of the original pixel under each grid pixel's centre."""
    rows, columns = (pixel_under(np.arange(n), size_from=n, size_to=n0)
                     for n, n0 in zip(size, label.shape, strict=True))
    return label[rows[:, None], columns]
