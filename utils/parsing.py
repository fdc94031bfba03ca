"""Command lines: long names only, defaults in --help, --version, mistakes as one line
(InputError)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence

from utils.errors import InputError
from utils.version import ShowVersion


class Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**({"allow_abbrev": False,
                             "formatter_class": argparse.ArgumentDefaultsHelpFormatter} | kwargs))
        self.add_argument("--version", action=ShowVersion, help="show the versions and exit")

    def error(self, message: str) -> None:
        raise InputError(f"{message} (see --help)")

    def parse_values(self, values: dict[str, object], *, where: str) -> dict[str, object]:
        """Values of flags from elsewhere as the command line would give them. Raises InputError,
        naming the place `where` they stand."""
        words = []
        switches = {action.dest for action in self._actions if action.nargs == 0}
        for name, value in values.items():
            is_switch = name in switches and isinstance(value, bool)
            if value or not is_switch:
                words.append(f"--{name}")
            if not is_switch:
                words += map(str, value if isinstance(value, list | tuple) else [value])
        try:
            parsed = vars(self.parse_args(words))
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        return {name: parsed[name] for name in values}


def split_at_dashes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is before the first `--`, and what after it."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1:]


# --- types of flags -----------------------------------------------------------------------------


def known(names: Iterable[str]) -> str:
    return "one of " + ", ".join(names)


def named(what: str, names: Iterable[str]) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in names:
            raise argparse.ArgumentTypeError(
                f"unknown {what} {value!r}; choose from {', '.join(names)}")
        return value

    return convert


def _number(kind: Callable[[str], float], check: Callable[[float], bool],
            expected: str) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not check(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return convert


def integer(minimum: int) -> Callable[[str], float]:
    return _number(int, lambda value: value >= minimum, f"an integer of at least {minimum}")


positive = _number(float, lambda value: 0 < value < float("inf"), "a positive number")
non_negative = _number(float, lambda value: 0 <= value < float("inf"), "a number of at least 0")
fraction = _number(float, lambda value: 0 <= value <= 1, "a fraction between 0 and 1")
