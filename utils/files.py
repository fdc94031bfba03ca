"""Writing files so that a crash at any moment leaves the old file or the new one, never half."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Call `write(file)` on a temporary file beside `path`, flush it to disk, rename it to `path`.

    Raises InputError if the place cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; make room there or "
                         "choose another directory") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: str | os.PathLike, content: object, *, indent: int | None = 1) -> None:
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: str | os.PathLike, header: Sequence[str],
              rows: Iterable[Sequence[object]]) -> None:
    write_text(path, csv_text(header, rows))


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """Rows of a CSV file with a header. Raises InputError if it is not readable as such."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def read_json(path: str | os.PathLike) -> object:
    """Raises InputError if the file is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def relative_name(name: object, *, where: str | os.PathLike) -> str:
    """`name` if it is a path relative to a folder that stays inside it, with `/` between its parts.
    Raises InputError, naming the file `where` it stands, otherwise."""
    parts = name.split("/") if isinstance(name, str) and name.isprintable() else [""]
    if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
        raise InputError(f"{where}: {str(name)[:100]!r} is no path inside a folder of images")
    return name


def by_tail(names: Sequence[str]) -> dict[str, str]:
    """The relative paths `names` by themselves and by every end of them (`b/c.png` of `a/b/c.png`)
    that belongs to one of them only."""
    tails: dict[str, str | None] = {}
    for name in names:
        parts = name.split("/")
        for start in range(1, len(parts)):
            tail = "/".join(parts[start:])
            tails[tail] = None if tail in tails else name
    return {tail: name for tail, name in tails.items() if name} | {name: name for name in names}


def file_digest(path: str) -> str:
    """SHA-256. Raises InputError if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check --weights") from error
