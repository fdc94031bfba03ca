"""A data set of drawn street scenes in CamVid's layout and classes, for the demo and the tests: no
download, no licence.

    python -m datasets.synthetic --output DIR
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.camvid import CAMVID
from datasets.street.scene import draw_scene
from utils.errors import InputError, run_program
from utils.files import read_json, write_json

# Raise it whenever the drawing changes, so that a set drawn by older code is not reused.
_DRAWING = 1
_RECORD = "synthetic.json"


def write_street_scenes(dir_dataset: str | Path, *, n_train: int = 40, n_test: int = 20,
                        height: int = 240, width: int = 320, seed: int = 0) -> bool:
    """Write the set, or return False if it is there already.

    An image depends on the seed, its split and its number alone. The set is written beside its
    place and renamed when complete. Raises InputError if `dir_dataset` holds anything else."""
    folder = Path(dir_dataset)
    record = {"drawing": _DRAWING, "n_train": n_train, "n_test": n_test, "height": height,
              "width": width, "seed": seed}
    if folder.exists():
        if (folder / _RECORD).exists() and read_json(folder / _RECORD) == record:
            return False
        raise InputError(f"{folder} holds something else than these drawn scenes; remove it or "
                         "give another --output")
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for number, (split, n) in enumerate(((CAMVID.train, n_train),
                                             (CAMVID.evaluation, n_test))):
            for place in (split.images, split.labels):
                (unfinished / place).mkdir(parents=True)
            for i in range(n):
                image, label = draw_scene(np.random.default_rng([seed, number, i]),
                                          height=height, width=width)
                Image.fromarray(image).save(unfinished / split.images / f"scene_{i:04}.png")
                Image.fromarray(label).save(unfinished / split.labels / f"scene_{i:04}.png")
        write_json(unfinished / _RECORD, record)
        unfinished.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}; choose another "
                         "--output") from error
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the drawn street scenes of the demo.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", required=True, help="the data set's folder")
    for name, default in (("n_train", 40), ("n_test", 20), ("height", 240), ("width", 320),
                          ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if min(args.n_train, args.n_test) < 1 or min(args.height, args.width) < 16 or args.seed < 0:
        raise InputError("--n_train and --n_test must be at least 1, --height and --width at least "
                         "16, --seed at least 0")
    written = write_street_scenes(args.output, n_train=args.n_train, n_test=args.n_test,
                                  height=args.height, width=args.width, seed=args.seed)
    print(f"{'wrote' if written else 'reusing'} {args.n_train} + {args.n_test} drawn street scenes "
          f"in {args.output}")
    return 0


if __name__ == "__main__":
    run_program(main)
