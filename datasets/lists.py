"""Which images are trained and evaluated on, as lists that results can be compared by.

    python -m datasets.lists --dataset_name camvid --dir_dataset data/CamVid
    python -m datasets.lists --dataset_name cityscapes --dir_dataset data/cityscapes
    python -m datasets.lists --dataset_name voc --dir_dataset data/VOC

writes `datasets/<dataset>_train.txt` and `datasets/<dataset>_val.txt`: the images of the unpacked
dataset, by their paths relative to its root, one a line, in the order in which they are read. `val`
is what the paper evaluates on: for CamVid its test images. With `--check_lists` nothing is written;
what is missing from the dataset, or added to it, is named (exit code 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import DATASET_NAMES, DATASETS, DatasetSpec
from datasets.images import list_samples
from utils.errors import InputError, run_program
from utils.files import write_text
from utils.parsing import Parser, known, named

FOLDER = Path(__file__).resolve().parent
_NAMED = 5  # images that a message names


def image_lists(spec: DatasetSpec, dir_dataset: str | Path) -> dict[str, list[str]]:
    """The images' names by `train` and `val`. Raises InputError as `list_samples` does."""
    return {name: [sample.name for sample in list_samples(dir_dataset, spec.splits[split],
                                                          with_labels=False)]
            for name, split in (("train", "train"), ("val", spec.evaluation))}


def list_path(spec: DatasetSpec, name: str, *, folder: Path) -> Path:
    return folder / f"{spec.name}_{name}.txt"


def write_lists(spec: DatasetSpec, dir_dataset: str | Path, *, folder: Path = FOLDER) -> list[Path]:
    """The written files."""
    paths = []
    for name, images in image_lists(spec, dir_dataset).items():
        paths.append(list_path(spec, name, folder=folder))
        write_text(paths[-1], "".join(f"{image}\n" for image in images))
    return paths


def check_lists(spec: DatasetSpec, dir_dataset: str | Path, *, folder: Path = FOLDER) -> None:
    """Raises InputError if the dataset's images are not those of the lists."""
    differences = []
    for name, images in image_lists(spec, dir_dataset).items():
        path = list_path(spec, name, folder=folder)
        listed = _read(path)
        for what, names in (("missing", set(listed) - set(images)),
                            ("added", set(images) - set(listed))):
            if names:
                first = ", ".join(sorted(names)[:_NAMED]) + ", ..." * (len(names) > _NAMED)
                differences.append(f"{len(names)} {what} ({path.name}: {first})")
    if differences:
        raise InputError(f"{dir_dataset}: not the images of the lists: {'; '.join(differences)}")


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; leave --check_lists out to write it") \
            from error


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description="Write, or check, the lists of a dataset's images.")
    parser.add_argument("--dataset_name", type=named("dataset", DATASET_NAMES), required=True,
                        help=known(DATASET_NAMES))
    parser.add_argument("--dir_dataset", required=True, help="the dataset's root folder")
    parser.add_argument("--check_lists", action="store_true",
                        help="compare the dataset with the lists that are there")
    args = parser.parse_args(argv)
    spec = DATASETS[DATASET_NAMES[args.dataset_name]]
    if args.check_lists:
        check_lists(spec, args.dir_dataset)
        print(f"{args.dir_dataset} has the images of the lists")
        return
    for path in write_lists(spec, args.dir_dataset):
        print(f"wrote {path}")


if __name__ == "__main__":
    run_program(main)
