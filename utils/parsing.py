"""Command lines: long names only, defaults in --help, mistakes as one line (InputError)."""

from __future__ import annotations

import argparse

from utils.errors import InputError


class Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**({"allow_abbrev": False,
                             "formatter_class": argparse.ArgumentDefaultsHelpFormatter} | kwargs))

    def error(self, message: str) -> None:
        raise InputError(f"{message} (see --help)")
