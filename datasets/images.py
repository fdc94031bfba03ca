"""Finding and reading images and label maps. Every problem is an InputError that names the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.spec import ClassSet, Split
from utils.errors import InputError
from utils.files import relative_name
from utils.geometry import pixel_under

_UNKNOWN = -1
IGNORE = 255  # of label maps in memory, whatever the files call void
# What Pillow raises for broken files; SyntaxError for broken PNG chunks.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_RGB_CONVERTIBLE = ("L", "LA", "P", "PA", "RGBA", "1", "CMYK", "YCbCr")


@dataclass(frozen=True)
class Sample:
    """An image and its label map, if it has one; `name` is the image's path relative to the
    dataset's root."""

    name: str
    image: Path
    label: Path | None


def list_samples(dir_dataset: str | Path, split: Split, *,
                 with_labels: bool = True) -> list[Sample]:
    """The samples of a split, sorted by name, each with its label map unless without labels.

    Raises InputError for a missing or empty folder, and for images without labels or labels
    without images, with their number and the first names."""
    root = Path(dir_dataset)
    if with_labels and split.labels is None:
        raise InputError(f"no label maps are named for the images in {split.images}; name their "
                         "folder, or let a person answer with --labeller human")
    listed = _listed(root, split)
    images = _files(root / split.images, split.image_endings, recursive=split.recursive)
    labels = {}
    if with_labels:
        labels = _files(root / split.labels, (split.label_ending,), recursive=split.recursive)
    if listed is not None:
        missing = [name for name in listed if name not in images]
        if missing:
            raise InputError(f"{root}: {len(missing)} images of {split.listed} are not in "
                             f"{split.images}/: {_first(missing)}; add the missing files")
        images, labels = ({name: found[name] for name in listed if name in found}
                          for found in (images, labels))
    if with_labels:
        _check_pairs(root, split, images=images, labels=labels)
    return [Sample(path.relative_to(root).as_posix(), path, labels.get(stem))
            for stem, path in sorted(images.items(), key=lambda item: item[1])]


def _check_pairs(root: Path, split: Split, *, images: dict[str, Path],
                 labels: dict[str, Path]) -> None:
    for found, others, what in ((images, labels, "images without a label map in "),
                                (labels, images, "label maps without an image in ")):
        alone = sorted(found.keys() - others.keys())
        if alone:
            folder = split.labels if found is images else split.images
            raise InputError(f"{root}: {len(alone)} {what}{folder}/: {_first(alone)}; add the "
                             "missing files or remove these")


def has_files(dir_dataset: str | Path, split: Split) -> bool:
    """Whether there is anything in the folder of a split's label maps."""
    if split.labels is None:
        return False
    folder = Path(dir_dataset) / split.labels
    return folder.is_dir() and any(folder.iterdir())


def _listed(root: Path, split: Split) -> list[str] | None:
    """The lines of the split's list. Raises InputError if it has one that cannot be read."""
    if split.listed is None:
        return None
    path = root / split.listed
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; give the dataset's root with "
                         "--dir_dataset (README, 'Data sets', has the expected layout)") from error
    if not lines:
        raise InputError(f"{path} is empty; it lists the images of the split, one a line")
    return [relative_name(line, where=path) for line in dict.fromkeys(lines)]


def _files(folder: Path, endings: Iterable[str], *, recursive: bool) -> dict[str, Path]:
    """Files of a folder by their path in it without the ending."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the dataset's root with --dir_dataset (README, "
                         "'Data sets', has the expected layout)")
    endings = tuple(endings)
    by_name: dict[str, Path] = {}
    twice = []
    for path in _walk(folder) if recursive else _entries(folder):
        name = path.relative_to(folder).as_posix()
        ending = next((e for e in endings if name.lower().endswith(e.lower())), None)
        if ending is None or path.name.startswith("."):
            continue
        other = by_name.setdefault(name[:-len(ending)], path)
        if other != path:
            twice.append(other.name)
    if not by_name:
        raise InputError(f"no {' or '.join(endings)} files in {folder}; is it the right folder?")
    if twice:
        raise InputError(f"{folder}: several files for one name: {_first(twice)}; keep one of each")
    return by_name


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error


def _walk(folder: Path) -> Iterator[Path]:
    for path in _entries(folder):
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


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


@contextmanager
def any_number_of_pixels() -> Iterator[None]:
    """Within it Pillow's guard against tiny files with huge images is off."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def image_size(path: Path) -> tuple[int, int]:
    """(height, width), from the file's header. Raises InputError if it is no image."""
    try:
        with Image.open(path) as image:
            return image.size[::-1]
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); replace it") from error


def read_label(path: Path, *, spec: ClassSet) -> np.ndarray:
    """`(H, W)` uint8 of class indices and IGNORE. Refuses values, or colours where label files are
    in the classes' colours, that the dataset does not have."""
    if spec.void_colours is not None:
        return _by_colour(path, spec)
    values = read_raw_label(path)
    table = np.full(256, _UNKNOWN, np.int16)
    table[[IGNORE, spec.ignore_index]] = IGNORE
    ids = range(spec.n_classes) if spec.label_ids is None else spec.label_ids
    for value in ids:
        index = value if spec.label_ids is None else spec.label_ids[value]
        table[value] = IGNORE if index is None else index
    label = table[values]
    wrong = label == _UNKNOWN
    if wrong.any():
        expected = (f"{spec.n_classes} classes (0 to {spec.n_classes - 1})"
                    if spec.label_ids is None else f"{len(spec.label_ids)} ids")
        raise InputError(f"{path}: label value {values[wrong][0]} is none of the {expected} and "
                         f"not void ({spec.ignore_index}); is this {spec.name}?")
    return label.astype(np.uint8)


def read_raw_label(path: Path) -> np.ndarray:
    """`(H, W)` uint8, the values as they stand in the file."""
    image = _open(path)
    if image.mode not in ("L", "P"):
        raise InputError(f"{path}: label maps hold class indices in one 8-bit channel, this one "
                         f"has mode {image.mode}; convert it")
    return np.array(image)


def _by_colour(path: Path, spec: ClassSet) -> np.ndarray:
    rgb = read_image(path).astype(np.int64)
    codes = rgb @ (1 << 16, 1 << 8, 1)  # (H, W), one number a colour
    label = np.full(codes.shape, _UNKNOWN, np.int16)
    for colour in spec.void_colours:
        label[codes == np.dot(colour, (1 << 16, 1 << 8, 1))] = IGNORE
    for index, info in enumerate(spec.classes):
        label[codes == np.dot(info.colour, (1 << 16, 1 << 8, 1))] = index
    wrong = label == _UNKNOWN
    if wrong.any():
        raise InputError(f"{path}: the colour {tuple(rgb[wrong][0].tolist())} belongs to no class "
                         f"of {spec.name} and is not void; add it to the classes or to "
                         "void_colours")
    return label.astype(np.uint8)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); replace it") from error


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
