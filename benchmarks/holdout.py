"""A part of a training set to choose settings on, so that nothing is tuned on what is reported.

    python benchmarks/holdout.py --dir_dataset "$CAMVID_DIR" --output DIR

DIR, a new folder, gets CamVid's layout, as links: of each sequence of `train/` (what stands before
the first `_` of a name) the last quarter of the frames is `test/` there, the rest `train/`.
Neighbouring frames are nearly the same picture, so a random quarter would be no test.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.camvid import CAMVID
from datasets.images import Sample, list_samples
from datasets.spec import Split
from utils.errors import InputError, run_program
from utils.parsing import Parser


def parts_of(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """`train` and `test` of samples in the order of their names. Raises InputError if no sequence
    is long enough for a quarter."""
    parts: dict[str, list[Sample]] = {"train": [], "test": []}
    for _, sequence in itertools.groupby(samples, key=lambda s: s.image.name.split("_")[0]):
        frames = list(sequence)
        first_held_out = len(frames) - len(frames) // 4
        parts["train"] += frames[:first_held_out]
        parts["test"] += frames[first_held_out:]
    if not parts["test"]:
        raise InputError(f"no sequence of these {len(samples)} images has 4 frames; what stands "
                         "before the first _ of a name is the sequence's")
    return parts


def _link(samples: Sequence[Sample], split: Split, output: Path) -> None:
    for folder in (split.images, split.labels):
        (output / folder).mkdir(parents=True)
    for sample in samples:
        for folder, file in ((split.images, sample.image), (split.labels, sample.label)):
            (output / folder / file.name).symlink_to(file.resolve())


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir_dataset", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    args = parser.parse_args(argv)
    if args.output.exists():
        raise InputError(f"{args.output} is there already; give a new folder")
    parts = parts_of(list_samples(args.dir_dataset, CAMVID.splits["train"]))
    try:
        for part, samples in parts.items():
            _link(samples, CAMVID.splits[part], args.output)
    except OSError as error:
        raise InputError(f"cannot write {args.output}: {error.strerror}") from error
    print(", ".join(f"{part}: {len(samples)} images" for part, samples in parts.items()))
    return 0


if __name__ == "__main__":
    run_program(main)
