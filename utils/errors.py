"""Bad input: one line that says what is wrong, where, and what to do; exit code 2."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line for the user."""


def run_program(main: Callable[[], int | None]) -> None:
    """Run a command-line program: exit 2 with one line on stderr for an `InputError`, 130 for
    Ctrl-C (work saved so far is kept), otherwise what `main` returns. Warnings are one line."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        sys.exit(main())
    except InputError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
