"""What the formats share: pixels of image files, and folders with one file per image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from annotation_tool.asked import find_files, image_sizes
from datasets.annotations import Annotation
from utils import geometry
from utils.errors import InputError


def file_sizes(names: Sequence[str], dir_imgs: Path | None, *,
               where: Path) -> tuple[Path, dict[str, tuple[int, int]]]:
    """The folder that `names` are relative to, and (height, width) of each image's file.

    Raises InputError without `dir_imgs`, and for images that are not there."""
    if dir_imgs is None:
        raise InputError(f"{where}: needs the sizes of the image files; give their folder with "
                         "--dir_imgs")
    try:
        paths = find_files(names, dir_imgs, where=where)
    except OSError as error:  # a name that no file can have
        raise InputError(f"{where}: cannot look for {names[0][:100]} in {dir_imgs}: "
                         f"{error.strerror}") from error
    sizes = image_sizes(Path(), [str(path) for path in paths])
    return (paths[0].parents[names[0].count("/")],
            {name: tuple(size) for name, size in zip(names, sizes.tolist(), strict=True)})


def file_pixel(a: Annotation, size: tuple[int, int]) -> tuple[int, int]:
    """(y, x) of the file's pixel under an asked one, in a file of `size` (height, width)."""
    return geometry.file_pixel(a.y, a.x, grid=(a.h, a.w), size=size)


def by_image(annotations: Iterable[Annotation]) -> dict[str, list[Annotation]]:
    """In the order of each image's first pixel."""
    found: dict[str, list[Annotation]] = {}
    for a in annotations:
        found.setdefault(a.image, []).append(a)
    return found


def named(items: Sequence[str], *, total: int | None = None) -> str:
    """The first three of them, for a message; `total` is how many there are in all."""
    return ", ".join(items[:3]) + (", ..." if (total or len(items)) > 3 else "")


def check_no_others(folder: Path, suffix: str, *, mine: Iterable[Path]) -> None:
    """Raises InputError if a folder has files of a kind beside those that are to be written: they
    would be read as part of the same answers."""
    others = sorted(path.relative_to(folder).as_posix()
                    for path in set(folder.rglob(f"*{suffix}")) - set(mine))
    if others:
        raise InputError(f"{folder}: has {len(others)} other {suffix} files: {named(others)}; "
                         "move them away or choose another --output")
