"""Which version of the program this is, and of what it runs on."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

VERSION = "0.6.0"
_ROOT = Path(__file__).resolve().parents[1]


def git_commit(repository: Path) -> str | None:
    """None where `repository` is no checkout of git."""
    try:
        return subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], check=True,
                              capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def version_lines() -> list[str]:
    """The program, Python and, in a program that has imported torch (the annotation tool does
    not), torch, torchvision and what CUDA it has."""
    # A copy without .git may lie in somebody else's checkout.
    commit = git_commit(_ROOT) if (_ROOT / ".git").exists() else None
    lines = [f"PixelPick-rebuilt {VERSION}" + (f" (commit {commit[:7]})" if commit else ""),
             f"Python {platform.python_version()}"]
    torch = sys.modules.get("torch")
    if torch is None:
        return lines
    cuda = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "not available"
    return [*lines, f"torch {torch.__version__}", f"torchvision {version('torchvision')}",
            f"CUDA {torch.version.cuda or '(torch was built without)'}: {cuda}"]


class ShowVersion(argparse.Action):
    """`--version`: print `version_lines` and exit, as --help does."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(nargs=0, **(kwargs | dict(dest=argparse.SUPPRESS,
                                                   default=argparse.SUPPRESS)))

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print("\n".join(version_lines()))
        parser.exit()
