"""What was asked in a round: `query.json` for programs, `query.npy` for people and other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.files import by_tail, read_json, relative_name, write_atomically, write_json

FORMAT = "pixelpick-query-1"


@dataclass(frozen=True, kw_only=True)
class Query:
    """The pixels to ask, per image in the order of `names` (paths relative to the dataset's root).

    sizes: `(N, 2)` height and width of each image's grid.
    pixels: per image (y, x), `(n, 2)` int64, in the order of asking.
    scores, predictions, probabilities: per image `(n,)`: the acquisition score (higher = ask
        first), the class the network predicts there and its probability; None where no network
        was asked (the first round).
    """

    names: Sequence[str]
    sizes: np.ndarray
    pixels: Sequence[np.ndarray]
    strategy: str
    seed: int
    scores: Sequence[np.ndarray] | None = None
    predictions: Sequence[np.ndarray] | None = None
    probabilities: Sequence[np.ndarray] | None = None

    @property
    def n_pixels(self) -> int:
        return sum(len(asked) for asked in self.pixels)


def write_query(folder: str | Path, query: Query, *, max_mask_gb: float) -> str | None:
    """Write `query.npy`, then `query.json` (the one that is trusted) to `folder`.

    The masks are bool `(N, H, W)`; smaller images sit top-left. Above `max_mask_gb` they are left
    out, and the returned line says so."""
    folder = Path(folder)
    notice = None
    shape = (len(query.names), *np.max(query.sizes, axis=0).tolist())
    if np.prod(shape, dtype=np.float64) > max_mask_gb * 1e9:
        notice = (f"{folder / 'query.npy'} is not written: {np.prod(shape) / 1e9:.1f} GB of masks "
                  f"are more than --max_mask_gb {max_mask_gb:g}; query.json has the pixels")
        (folder / "query.npy").unlink(missing_ok=True)
    else:
        masks = np.zeros(shape, bool)
        for mask, asked in zip(masks, query.pixels, strict=True):
            mask[asked[:, 0], asked[:, 1]] = True
        write_atomically(folder / "query.npy",
                         lambda file: np.save(file, masks, allow_pickle=False))
    images = []
    for index, name in enumerate(query.names):
        entry = {"image": name, "h": int(query.sizes[index][0]), "w": int(query.sizes[index][1]),
                 "pixels": query.pixels[index].tolist()}
        for key in ("scores", "predictions", "probabilities"):
            values = getattr(query, key)
            if values is not None:
                entry[key] = [_rounded(value) for value in values[index].tolist()]
        images.append(entry)
    write_json(folder / "query.json", {"format": FORMAT, "strategy": query.strategy,
                                       "seed": query.seed, "images": images}, indent=None)
    return notice


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def read_query(path: str | Path, *, names: Sequence[str], sizes: np.ndarray) -> Query:
    """The query of a `query.json`, whose images are those of `names` with the same path or the
    only one that ends with it; or of a bare `query.npy`, whose masks belong to `names` in sorted
    order. `names` and `sizes` are those of the dataset; the result follows their order.

    Raises InputError if the file does not fit them."""
    path = Path(path)
    if path.suffix == ".npy":
        expected = (len(names), *np.max(sizes, axis=0).tolist())
        masks = read_masks(path)
        if masks.shape != expected:
            raise InputError(f"{path}: bool {masks.shape}, expected bool {expected} (images, "
                             "height, width)")
        of_image = dict(zip(sorted(names), masks, strict=True))
        query = Query(names=names, sizes=sizes, strategy="unknown", seed=0,
                      pixels=[np.argwhere(of_image[name]) for name in names])
        _check_inside(path, query)
        return query
    found = load_query(path)
    known = by_tail(names)
    index_of = {known.get(name, name): index for index, name in enumerate(found.names)}
    unknown = sorted(index_of.keys() - set(names))
    if unknown:
        raise InputError(f"{path}: {len(unknown)} images are not in this dataset, the first is "
                         f"{unknown[0]}")
    indices = [index_of.get(name) for name in names]
    for name, index, (height, width) in zip(names, indices, sizes.tolist(), strict=True):
        if index is not None and tuple(found.sizes[index]) != (height, width):
            raise InputError("{}: {} was asked on a grid of {}x{}, here it is {}x{}; is "
                             "--downsample another one?".format(
                                 path, name, *found.sizes[index], height, width))

    def here(values: Sequence[np.ndarray] | None, nothing: np.ndarray) -> list | None:
        return values and [nothing if i is None else values[i] for i in indices]

    return replace(found, names=names, sizes=sizes,
                   pixels=here(found.pixels, np.zeros((0, 2), np.int64)),
                   scores=here(found.scores, np.zeros(0)),
                   predictions=here(found.predictions, np.zeros(0, np.int64)),
                   probabilities=here(found.probabilities, np.zeros(0)))


def load_query(path: str | Path) -> Query:
    """What a `query.json` says, its own images in its own order, whatever the dataset. Raises
    InputError if it is none, a name could lead out of the dataset, or a pixel is outside its grid.
    """
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise InputError(f"{path}: format {content['format']!r}, expected {FORMAT!r}")
        entries = content["images"]
        names = [relative_name(entry["image"], where=path) for entry in entries]
        if len(set(names)) < len(names):
            raise InputError(f"{path}: an image stands in it twice; ask for it once")
        sizes = _pairs([[entry["h"], entry["w"]] for entry in entries])
        pixels = [_pairs(entry["pixels"]) for entry in entries]
        per_image = {
            key: [_numbers(entry.get(key, []), kind) for entry in entries]
            for key, kind in (("scores", float), ("predictions", int), ("probabilities", float))
            if any(key in entry for entry in entries)
        }
        for values in per_image.values():
            if any(v.shape not in ((len(p),), (0,)) for v, p in zip(values, pixels, strict=True)):
                raise ValueError("scores or predictions that do not belong to its pixels")
        query = Query(names=names, sizes=sizes, pixels=pixels, strategy=content["strategy"],
                      seed=content["seed"], **per_image)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} is no query file ({type(error).__name__}: {error})") from error
    _check_inside(path, query)
    return query


def _pairs(rows: object) -> np.ndarray:
    """`(n, 2)` int64 of a list of pairs. Raises ValueError for anything else (numpy takes 1.5, "1"
    and true for 1, and two triples for three pairs)."""
    if not isinstance(rows, list):
        raise ValueError("no list")
    for row in rows:
        if not (isinstance(row, list) and len(row) == 2 and all(type(c) is int for c in row)):
            raise ValueError(f"{str(row)[:100]} is no pair of integers")
    return np.array(rows, np.int64).reshape(-1, 2)


def _numbers(values: object, kind: type[int] | type[float]) -> np.ndarray:
    """`(n,)` of a list of integers, or of numbers. Raises ValueError for anything else."""
    allowed = (int,) if kind is int else (int, float)
    if not isinstance(values, list) or any(type(value) not in allowed for value in values):
        raise ValueError(f"{str(values)[:100]} is no list of {kind.__name__}")
    return np.array(values, kind)


def _check_inside(path: str | Path, query: Query) -> None:
    for name, size, asked in zip(query.names, query.sizes, query.pixels, strict=True):
        if ((asked < 0) | (asked >= size)).any():
            raise InputError(f"{path}: a pixel of {name} is outside its {size[0]}x{size[1]} grid")


def read_masks(path: str | Path) -> np.ndarray:
    """A bare `query.npy`: bool `(N, H, W)`, mapped into memory, not read. Raises InputError."""
    try:
        masks = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as an array of masks ({error})") from error
    if not isinstance(masks, np.ndarray):
        raise InputError(f"{path}: is an archive, not an array of masks")
    if masks.dtype != bool or masks.ndim != 3:
        raise InputError(f"{path}: {masks.dtype} {masks.shape}, expected bool (images, height, "
                         "width)")
    return masks
