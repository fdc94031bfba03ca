"""Which pixels are asked in which image files: from a query, masks or a VIA project."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.images import image_size
from datasets.queries import Query, load_query, read_masks, write_query
from datasets.spec import Grid
from utils.errors import InputError
from utils.files import relative_name
from utils.seeds import random_generator

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True, kw_only=True)
class AskedImage:
    """An image with the pixels asked in it.

    name: its path relative to the dataset's root; path: its file.
    size: (h, w) of the grid; pixels: (y, x) on it, `(n, 2)` int64, in the order of asking.
    scores, predictions, probabilities: `(n,)` as in a Query, or None.
    """

    name: str
    path: Path
    size: tuple[int, int]
    pixels: np.ndarray
    scores: np.ndarray | None = None
    predictions: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    def ordered(self, order: np.ndarray) -> AskedImage:
        """The same pixels in another order."""
        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[order]

        return replace(self, pixels=self.pixels[order], scores=of(self.scores),
                       predictions=of(self.predictions), probabilities=of(self.probabilities))


def load_asked(path_query: str | Path, dir_imgs: str | Path) -> list[AskedImage]:
    """The images of a query that have pixels to ask, with their files below `dir_imgs`.

    path_query: a `query.json` or its folder, a VIA 3 project, or a bare `query.npy` whose masks
        belong to the images of `dir_imgs` in sorted order (if a `query.json` lies beside it, that
        is read). In a `query.json` names are relative to the dataset's root: `dir_imgs` is that
        root, or the folder in it that the images are in.
    Raises InputError if query and images do not fit each other."""
    path, root = Path(path_query), Path(dir_imgs)
    if path.is_dir():
        path = path / "query.json"
    elif path.suffix == ".npy" and path.with_suffix(".json").exists():
        path = path.with_suffix(".json")
    if not path.exists():
        raise InputError(f"no file {path}; --path_query is a query.json that train.py has written, "
                         "or a query.npy")
    query = _query_of_masks(path, root) if path.suffix == ".npy" else _query_of_json(path, root)
    if not query.n_pixels:
        raise InputError(f"{path}: asks for no pixel at all")
    paths = find_files(query.names, root, where=path)
    found = []
    for i, (name, pixels) in enumerate(zip(query.names, query.pixels, strict=True)):
        if len(np.unique(pixels, axis=0)) < len(pixels):
            raise InputError(f"{path}: a pixel of {name} is asked twice")
        if len(pixels):
            found.append(AskedImage(
                name=name, path=paths[i], pixels=pixels, size=tuple(query.sizes[i].tolist()),
                scores=_given(query.scores, i), predictions=_given(query.predictions, i),
                probabilities=_given(query.probabilities, i)))
    return found


def _given(values: Sequence[np.ndarray] | None, index: int) -> np.ndarray | None:
    return values[index] if values is not None and len(values[index]) else None


def _query_of_json(path: Path, root: Path) -> Query:
    from annotation_tool.formats.via import is_via, query_of_via

    return query_of_via(path, root) if is_via(path) else load_query(path)


def find_files(names: Sequence[str], dir_imgs: Path, *, where: Path) -> list[Path]:
    """The files of images named relative to the dataset's root, where `dir_imgs` is that root or a
    folder inside it. Raises InputError, with their number and the first, if some are missing."""
    if not dir_imgs.is_dir():
        raise InputError(f"no folder {dir_imgs}; give the images' folder with --dir_imgs")
    here = dir_imgs.resolve().parts
    inside = [()] + [tuple(names[0].split("/")[:k]) for k in range(1, names[0].count("/") + 1)]
    roots = [dir_imgs.resolve().parents[len(k) - 1] if k else dir_imgs
             for k in inside if not k or here[-len(k):] == k]
    root = next((r for r in roots if os.path.exists(r / names[0])), dir_imgs)
    listed = {folder: _files_in(root / folder) for folder in {_parent(name) for name in names}}
    missing = [name for name in names if name.rsplit("/", 1)[-1] not in listed[_parent(name)]]
    if missing:
        raise InputError(f"{where}: {len(missing)} of its {len(names)} images are not in "
                         f"{dir_imgs}, the first is {missing[0]}; is --dir_imgs right?")
    return [root / name for name in names]


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _files_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def list_images(dir_imgs: Path) -> list[str]:
    """The images below a folder, sorted, relative to it. Raises InputError if there is none."""
    names = []
    for folder, folders, files in os.walk(dir_imgs):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(folder).relative_to(dir_imgs).as_posix() + "/"
        names += [relative_name(prefix.removeprefix("./") + file, where=dir_imgs) for file in files
                  if file.lower().endswith(SUFFIXES) and not file.startswith(".")]
    if not names:
        raise InputError(f"no images in {dir_imgs}; give their folder with --dir_imgs")
    return sorted(names)


def image_sizes(root: Path, names: Sequence[str]) -> np.ndarray:
    """`(N, 2)` heights and widths, from the files' headers. Raises InputError for one that is no
    image."""
    return np.array([image_size(root / name) for name in names], np.int64).reshape(-1, 2)


def _query_of_masks(path: Path, root: Path) -> Query:
    """The grid of an image is what the canvas of the masks tells: the canvas itself if all images
    have one shape and it is theirs; else their own size, or the one with the canvas' longer side,
    top-left on it."""
    masks, names = read_masks(path), list_images(root)
    if len(masks) != len(names):
        raise InputError(f"{path}: {len(masks)} masks, but {len(names)} images in {root}; a "
                         "query.npy has one mask for each image, in sorted order")
    canvas, own = np.array(masks.shape[1:]), image_sizes(root, names)
    scaled = np.maximum(1, np.round(own * (canvas.max() / own.max(axis=1, keepdims=True))))
    ratios = canvas / own  # one shape: equal on both axes, up to rounding the canvas
    if (own == own[0]).all() and np.ptp(ratios[0]) <= 1 / own[0].min():
        sizes = np.tile(canvas, (len(names), 1))
    elif (own.max(axis=0) == canvas).all():
        sizes = own
    elif (scaled.max(axis=0) == canvas).all():
        sizes = scaled.astype(np.int64)
    else:
        raise InputError("{}: masks of {}x{} do not fit the images in {}, the first of which has "
                         "{}x{} (height x width)".format(path, *canvas, root, *own[0]))
    pixels = []
    for name, mask, (h, w) in zip(names, masks, sizes.tolist(), strict=True):
        pixels.append(np.argwhere(mask))
        if (pixels[-1] >= (h, w)).any():
            raise InputError(f"{path}: a pixel of {name} is outside its {h}x{w} grid")
    return Query(names=names, sizes=sizes, pixels=pixels, strategy="unknown", seed=0)


def write_random_query(folder: Path, *, dir_imgs: Path, n_pixels: int, seed: int,
                       grid: Grid) -> None:
    """A first query for a folder of images: `n_pixels` of each, drawn uniformly on the image's
    grid. Each image's draw depends on the seed and its name alone."""
    names = list_images(dir_imgs)
    own = [grid.size] * len(names) if grid.size else image_sizes(dir_imgs, names).tolist()
    sizes = np.array([grid.of(size) for size in own], np.int64)
    pixels = []
    for name, (h, w) in zip(names, sizes.tolist(), strict=True):
        rng = random_generator(seed, "query", 0, name)
        flat = rng.choice(h * w, size=min(n_pixels, h * w), replace=False)
        pixels.append(np.stack(np.unravel_index(flat, (h, w)), axis=1))
    write_query(folder, Query(names=names, sizes=sizes, pixels=pixels, strategy="random",
                              seed=seed), max_mask_gb=0.1)


# --- which of them, in which order --------------------------------------------------------------


def choose(images: Sequence[AskedImage], n: int, *, seed: int) -> list[AskedImage]:
    """`n` of the images, drawn by the seed, in their order; all if n is -1 or more than there are.
    """
    if n < 0 or n >= len(images):
        return list(images)
    drawn = random_generator(seed, "annotate").permutation(len(images))[:n]
    return [images[i] for i in sorted(drawn)]


def by_image(images: Sequence[AskedImage]) -> list[AskedImage]:
    """Image by image, in the order of asking."""
    return list(images)


def by_row(images: Sequence[AskedImage]) -> list[AskedImage]:
    """Image by image, from the top row to the bottom one, left to right."""
    return [image.ordered(np.lexsort((image.pixels[:, 1], image.pixels[:, 0])))
            for image in images]


def by_uncertainty(images: Sequence[AskedImage]) -> list[AskedImage]:
    """The image with the highest mean score first, and in an image the pixel of highest score.
    Raises InputError where there are no scores."""
    if any(image.scores is None for image in images):
        raise InputError("--order uncertainty needs the scores of a query.json that was made with "
                         "a network (a first round and a query.npy have none)")
    ranked = sorted(images, key=lambda image: -image.scores.mean())
    return [image.ordered(np.argsort(-image.scores, kind="stable")) for image in ranked]


ORDERS: dict[str, Callable[[Sequence[AskedImage]], list[AskedImage]]] = {
    "image": by_image,
    "row": by_row,
    "uncertainty": by_uncertainty,
}
