"""The flags that say which classes there are."""

from __future__ import annotations

import argparse
import re

from datasets import DATASET_NAMES, DATASETS
from datasets.classes import check_keys, read_classes
from datasets.spec import ClassSet
from utils.errors import InputError


def add_class_flags(group: argparse._ActionsContainer, *, default: str | None = "camvid") -> None:
    group.add_argument("--dataset_name", default=default,
                       help=f"whose classes: one of {', '.join(DATASET_NAMES)}, or any name with "
                            "--classes")
    group.add_argument("--classes", metavar="YAML", help="your own classes (README)")


def chosen_classes(dataset_name: str, path: str | None) -> ClassSet:
    """The classes of a dataset, or those of a YAML file under its name. Raises InputError."""
    name = DATASET_NAMES.get(dataset_name, dataset_name)
    if path is not None:
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise InputError(f"--dataset_name {name!r}: letters, digits, '-', '_' and '.' make a "
                             "name")
        return read_classes(path, name=name)
    if name not in DATASETS:
        raise InputError(f"unknown dataset {name!r}; choose from {', '.join(DATASET_NAMES)}, or "
                         "give your own --classes")
    check_keys(DATASETS[name].classes, where=f"dataset {name}")
    return DATASETS[name]
