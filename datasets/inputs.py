"""The files that predict.py is given: images and videos by file, folder or pattern, the names of
what is written for them, and their label maps."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.spec import DatasetSpec
from utils.errors import InputError

IMAGE_ENDINGS = (".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
                 ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp")
VIDEO_ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclass(frozen=True)
class InputFile:
    """`name`: its path in the deepest folder that all inputs have in common, with `/`."""

    path: Path
    name: str

    @property
    def root(self) -> Path:
        """That folder."""
        return self.path.parents[self.name.count("/")]

    @property
    def stem(self) -> str:
        """`a/b` of `a/b.jpg`: what is written for it is called so, with other endings."""
        return PurePosixPath(self.name).with_suffix("").as_posix()

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_ENDINGS


def find_inputs(words: Sequence[str]) -> list[InputFile]:
    """The images and videos that `words` name, sorted by name: a file, a folder with all that is
    in it, or a pattern such as `a/**/*.jpg`. In folders and patterns only files with the endings of
    images and videos count, and hidden ones do not.

    Raises InputError for a word that names nothing."""
    found: dict[Path, None] = {}
    bases = []
    for word in words:
        base, paths = _named(word)
        bases.append(base)
        found.update(dict.fromkeys(map(Path, map(os.path.abspath, paths))))
    root = os.path.commonpath(list(map(os.path.abspath, bases)))
    return sorted((InputFile(path, path.relative_to(root).as_posix()) for path in found),
                  key=lambda file: file.name)


def _named(word: str) -> tuple[Path, list[Path]]:
    """The folder that names begin in, and the files."""
    path = Path(word)
    if path.is_dir():
        base, paths = path, list(_walk(path))
    elif path.is_file():
        return path.parent, [path]
    elif glob.has_magic(word):
        fixed = [part for part in path.parts if glob.has_magic(part)][0]
        base = Path(*path.parts[:path.parts.index(fixed)])
        matches = map(Path, glob.glob(word, recursive=True))
        paths = [file for match in matches
                 for file in (_walk(match) if match.is_dir() else [match])]
    else:
        raise InputError(f"--input {word}: there is no such file or folder")
    paths = [file for file in paths
             if file.suffix.lower() in IMAGE_ENDINGS + VIDEO_ENDINGS
             and not file.name.startswith(".")]
    if not paths:
        raise InputError(f"--input {word}: no images or videos found by their names' endings "
                         "(.jpg, .png, .tif, .webp, .mp4, ...); name a file to have it tried "
                         "whatever its ending")
    return base, paths


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names)


def check_apart(words: Sequence[str], files: Iterable[InputFile], output: Path) -> None:
    """Raises InputError if `output` is a folder of the inputs, or one lies in the other:
    predictions never come between images."""
    output = output.resolve()
    folders = {Path(word).resolve() for word in words if Path(word).is_dir()}
    places = {file.path.resolve().parent for file in files}
    for folder in sorted(places | folders):
        if folder == output or output in folder.parents \
                or (folder in folders and folder in output.parents):
            raise InputError(f"--output {output}: the images lie there, or in a folder above or "
                             f"below it ({folder}); give a folder of its own")


def check_names(files: Iterable[InputFile], endings: Sequence[str], *,
                video_ending: str) -> None:
    """Raises InputError if two files would be written for in one place."""
    taken: dict[str, InputFile] = {}
    for file in files:
        for ending in [video_ending] if file.is_video else endings:
            other = taken.setdefault(file.stem + ending, file)
            if other is not file:
                raise InputError(f"--input: {other.name} and {file.name} would both be written as "
                                 f"{file.stem}{ending}; rename one, or predict them into two "
                                 "folders")


def label_maps(files: Iterable[InputFile], folder: Path, *,
               spec: DatasetSpec) -> dict[InputFile, Path | None]:
    """The label map of each image, at the same path in `folder` with the endings that the data
    set's files have; None if there is none.

    Raises InputError if there is none for any image."""
    endings = {(ending, split.label_ending) for split in spec.splits.values()
               for ending in split.image_endings}
    found: dict[InputFile, Path | None] = {}
    expected = ""
    for file in files:
        candidates = [file.name[:-len(ending)] + label for ending, label in sorted(endings)
                      if file.name.lower().endswith(ending.lower())]
        candidates += [file.stem + label for label in sorted({label for _, label in endings})]
        expected = expected or candidates[0]
        found[file] = next((folder / name for name in candidates if (folder / name).is_file()),
                           None)
    if not any(found.values()):
        raise InputError(f"--labels {folder}: there is no label map of any of {len(found)} images; "
                         f"the first one's would be {expected}")
    return found
