"""One window for one folder: a lock that the operating system drops when its process dies."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from utils.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


class FolderLock:
    """Held from construction to `release`. Raises InputError, naming the holder, if another window
    has the folder, and OSError if the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        path = folder / ".lock"
        self._file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            if fcntl:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:  # a byte far behind the text, so that others can read who holds it
                os.lseek(self._file, 1 << 20, os.SEEK_SET)
                msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            os.lseek(self._file, 0, os.SEEK_SET)
            holder = os.read(self._file, 200).decode(errors="replace").strip() or "another program"
            os.close(self._file)
            raise InputError(f"{folder} is open in another window ({holder}); close that one, or "
                             "give another --annotator") from error
        try:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        os.close(self._file)
