"""What was asked in a round: `query.json` for programs, `query.npy` for people and other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.files import read_json, write_atomically, write_json

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
    """The query of a `query.json`, or of a bare `query.npy` whose masks belong to `names` in
    sorted order. `names` and `sizes` are those of the dataset; the result follows their order.

    Raises InputError if the file does not fit them."""
    path = Path(path)
    pixels = _read_masks(path, names, sizes) if path.suffix == ".npy" else None
    if pixels is not None:
        return Query(names=names, sizes=sizes, pixels=pixels, strategy="unknown", seed=0)
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise InputError(f"{path}: format {content['format']!r}, expected {FORMAT!r}")
        by_name = {entry["image"]: entry for entry in content["images"]}
        unknown = sorted(by_name.keys() - set(names))
        if unknown:
            raise InputError(f"{path}: {len(unknown)} images are not in this dataset, the first is "
                             f"{unknown[0]}")
        empty = {"pixels": []}
        entries = [by_name.get(name, empty) for name in names]
        for entry, (height, width) in zip(entries, sizes.tolist(), strict=True):
            if entry is not empty and (entry["h"], entry["w"]) != (height, width):
                raise InputError(f"{path}: {entry['image']} was asked on a grid of {entry['h']}x"
                                 f"{entry['w']}, here it is {height}x{width}; is --downsample "
                                 "another one?")
        pixels = [np.array(entry["pixels"], np.int64).reshape(-1, 2) for entry in entries]
        per_image = {
            key: [np.array(entry.get(key, []), kind) for entry in entries]
            for key, kind in (("scores", np.float64), ("predictions", np.int64),
                              ("probabilities", np.float64))
            if any(key in entry for entry in entries)
        }
        query = Query(names=names, sizes=sizes, pixels=pixels, strategy=content["strategy"],
                      seed=content["seed"], **per_image)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} is no query file ({type(error).__name__}: {error})") from error
    for name, size, asked in zip(names, sizes, pixels, strict=True):
        if ((asked < 0) | (asked >= size)).any():
            raise InputError(f"{path}: a pixel of {name} is outside its {size[0]}x{size[1]} grid")
    return query


def _read_masks(path: Path, names: Sequence[str], sizes: np.ndarray) -> list[np.ndarray]:
    try:
        masks = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as an array of masks ({error})") from error
    if not isinstance(masks, np.ndarray):
        raise InputError(f"{path}: is an archive, not an array of masks")
    expected = (len(names), *np.max(sizes, axis=0).tolist())
    if masks.dtype != bool or masks.shape != expected:
        raise InputError(f"{path}: {masks.dtype} {masks.shape}, expected bool {expected} (images, "
                         "height, width)")
    of_image = dict(zip(sorted(names), masks, strict=True))
    return [np.argwhere(of_image[name]) for name in names]
