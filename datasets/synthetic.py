"""A data set of drawn street scenes in CamVid's layout and classes, for the demo and the tests: no
download, no licence.

    python -m datasets.synthetic --output DIR
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.camvid import CAMVID
from datasets.street.scene import draw_scene
from utils.errors import InputError, run_program
from utils.files import read_json, write_json

# Raise it whenever the drawing changes, so that a set drawn by older code is not reused.
_DRAWING = 3
_RECORD = "synthetic.json"


def write_street_scenes(dir_dataset: str | Path, *, n_train: int = 40, n_test: int = 20,
                        height: int = 240, width: int = 320, seed: int = 0) -> bool:
    """Write the set, or return False if it is there already.

    An image depends on the seed, its split and its number alone. The set is written beside its
    place and renamed when complete. Raises InputError if a number is too small, `dir_dataset`
    holds anything else, or it cannot be written."""
    if min(n_train, n_test) < 1 or min(height, width) < 16 or seed < 0:
        raise InputError("--n_train and --n_test must be at least 1, --height and --width at least "
                         "16, --seed at least 0")
    folder = Path(dir_dataset).resolve()
    record = {"drawing": _DRAWING, "n_train": n_train, "n_test": n_test, "height": height,
              "width": width, "seed": seed}
    unfinished = folder.with_name(folder.name + ".unfinished")
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            if _holds(folder, record):
                return False
            raise InputError(f"{folder} holds something else than these drawn scenes, or not all "
                             "of them; remove it or give another --output")
        shutil.rmtree(unfinished, ignore_errors=True)
        for number, i, image_path, label_path in _files(n_train, n_test):
            image, label = draw_scene(np.random.default_rng([seed, number, i]),
                                      height=height, width=width)
            for path, pixels in ((image_path, image), (label_path, label)):
                (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(unfinished / path)
        write_json(unfinished / _RECORD, record)
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}; choose another "
                         "--output") from error
    return True


def _files(n_train: int, n_test: int) -> Iterator[tuple[int, int, str, str]]:
    """(number of the split, number of the scene, image, label); paths below the set's folder."""
    for number, (name, n) in enumerate((("train", n_train), ("test", n_test))):
        split = CAMVID.splits[name]
        for i in range(n):
            yield number, i, f"{split.images}/scene_{i:04}.png", f"{split.labels}/scene_{i:04}.png"


def _holds(folder: Path, record: dict[str, int]) -> bool:
    """Whether `folder` is the set of these parameters: none of its images missing, none added."""
    if not (folder / _RECORD).exists() or read_json(folder / _RECORD) != record:
        return False
    wanted = {path for *_, image, label in _files(record["n_train"], record["n_test"])
              for path in (image, label)}
    return wanted == {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the drawn street scenes of the demo.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", required=True, help="the data set's folder")
    for name, default in (("n_train", 40), ("n_test", 20), ("height", 240), ("width", 320),
                          ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    written = write_street_scenes(args.output, n_train=args.n_train, n_test=args.n_test,
                                  height=args.height, width=args.width, seed=args.seed)
    print(f"{'wrote' if written else 'reusing'} {args.n_train} + {args.n_test} drawn street scenes "
          f"in {args.output}")
    return 0


if __name__ == "__main__":
    run_program(main)
