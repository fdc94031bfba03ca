"""A part of a training set to choose settings on, so that nothing is tuned on what is reported.

    python benchmarks/holdout.py --dir_dataset "$CAMVID_DIR" --output DIR

DIR gets CamVid's layout, as links: of each sequence of `train/` (what stands before the first `_`
of a name) the last quarter of the frames is `test/` there, the rest `train/`. Neighbouring frames
are nearly the same picture, so a random quarter would be no test.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.errors import InputError, run_program


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir_dataset", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    images = sorted((args.dir_dataset / "train").glob("*"))
    if not images:
        raise InputError(f"{args.dir_dataset / 'train'} has no images; check --dir_dataset")
    for _, sequence in itertools.groupby(images, key=lambda path: path.name.split("_")[0]):
        frames = list(sequence)
        first_held_out = len(frames) - len(frames) // 4
        for number, image in enumerate(frames):
            part = "test" if number >= first_held_out else "train"
            label = (args.dir_dataset / "trainannot" / image.name).with_suffix(".png")
            for folder, file in ((part, image), (f"{part}annot", label)):
                (args.output / folder).mkdir(parents=True, exist_ok=True)
                (args.output / folder / file.name).symlink_to(file.resolve())
    return 0


if __name__ == "__main__":
    run_program(main)
