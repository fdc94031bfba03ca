"""Files from the web: downloaded once into a cache, whole or not at all, checked by SHA-256.

A source is a path, `https://...` (or `http://...`), or `hf://OWNER/REPO/PATH[@REVISION]`, a file of
a model repository on huggingface.co (or on HF_ENDPOINT; HF_TOKEN, if set, is sent to that host
only). `#sha256=HEX` behind an address says what the file has to be; without it, a file of the same
address with `.sha256` added says so, if there is one. Files are kept in torch's hub folder
(TORCH_HOME), in `pixelpick/`; the second time nothing is asked of the network.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from torch.hub import get_dir

from utils.errors import InputError
from utils.files import file_digest, write_atomically
from utils.progress import Progress

_SCHEMES = ("http://", "https://", "hf://")
_BLOCK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte


def is_remote(source: str | Path) -> bool:
    return str(source).startswith(_SCHEMES)


def local_file(source: str | Path) -> Path:
    """Where the file is on this machine, after downloading it if need be. Raises InputError if it
    cannot be had, or is not the one that its SHA-256 says."""
    if not is_remote(source):
        return Path(source)
    address, expected = _split_fragment(str(source))
    try:
        url = _url(address)
        name = Path(unquote(urlsplit(url).path)).name
        if name in ("", ".."):
            raise InputError(f"{address}: names no file")
        path = Path(get_dir(), "pixelpick", hashlib.sha256(url.encode()).hexdigest()[:16], name)
        if path.exists() and expected in (None, file_digest(path)):
            return path
        if expected is None:
            expected = _published_digest(url)
        print(f"downloading {address} to {path}", file=sys.stderr)
        digest = download(url, path, expected=expected)
    # What a network can do; InputError (no room in the cache) is one line already.
    except (URLError, HTTPException, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot get {address} ({error}); check the address and the network, or "
                         "fetch the file elsewhere and give its path") from error
    if expected is None:
        print(f"no {name}.sha256 beside it: its SHA-256 {digest} was compared with nothing",
              file=sys.stderr)
    return path


def download(url: str, path: Path, *, expected: str | None = None) -> str:
    """Write what `url` holds to `path`, and return its SHA-256. Nothing is left of what is not
    whole or does not have the SHA-256 `expected`. Raises URLError, HTTPException, RuntimeError."""
    digest = hashlib.sha256()
    with _open(url) as response:
        length = response.headers.get("Content-Length")

        def receive(file: BinaryIO) -> None:
            received = 0
            with Progress(int(length or 0) // _BLOCK + 1, path.name, unit="MB") as progress:
                while block := _read(response):
                    file.write(block)
                    digest.update(block)
                    received += len(block)
                    progress.advance()
            if length is not None and received != int(length):
                raise HTTPException(f"the connection broke after {received} of {length} bytes")
            if expected is not None and digest.hexdigest() != expected:
                raise RuntimeError(f"invalid hash value: its SHA-256 is {digest.hexdigest()}, not "
                                   f"{expected}")

        write_atomically(path, receive)
    return digest.hexdigest()


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(_BLOCK)
    except OSError as error:  # which would pass for one of the disk
        raise HTTPException(f"the connection broke: {error}") from error


def _published_digest(url: str) -> str | None:
    """The SHA-256 in the file beside it, as `sha256sum` writes it; None if there is no such file.
    """
    parts = urlsplit(url)
    if parts.query:
        return None
    try:
        with _open(urlunsplit(parts._replace(path=parts.path + ".sha256"))) as response:
            text = response.read(4096).decode("utf-8", errors="replace")
    except HTTPError as error:
        if error.code in (401, 403, 404):  # a private or absent file; the download itself tells
            return None
        raise
    found = re.match(r"[0-9a-fA-F]{64}\b", text)
    if not found:
        raise RuntimeError(f"{parts.path}.sha256 holds no SHA-256")
    return found[0].lower()


def _split_fragment(source: str) -> tuple[str, str | None]:
    """Address, and the SHA-256 behind it."""
    address, _, fragment = source.partition("#")
    if not fragment:
        return address, None
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not found:
        raise InputError(f"{source}: expected #sha256= and 64 hexadecimal digits behind the "
                         "address")
    return address, found[1].lower()


def _url(address: str) -> str:
    if not address.startswith("hf://"):
        return address
    path, _, revision = address.removeprefix("hf://").partition("@")
    owner, _, rest = path.partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise InputError(f"{address}: expected hf://OWNER/REPO/PATH of a file, and @REVISION if it "
                         "is not main")
    return (f"{_hub()}/{owner}/{repository}/resolve/{quote(revision or 'main', safe='')}/"
            f"{quote(file)}")


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Hugging Face sends clients on to other hosts, which must not see the token."""

    def redirect_request(self, request: urllib.request.Request,
                         *args: object) -> urllib.request.Request | None:
        following = super().redirect_request(request, *args)
        if following is not None:
            _add_token(following)
        return following


def _add_token(request: urllib.request.Request) -> None:
    """HF_TOKEN, if the request is for the hub's own host; urllib does not redirect this header."""
    hub, asked = urlsplit(_hub()), urlsplit(request.full_url)
    token = os.environ.get("HF_TOKEN")
    if token and (hub.scheme, hub.netloc) == (asked.scheme, asked.netloc):
        request.add_unredirected_header("Authorization", f"Bearer {token}")


def _open(url: str) -> HTTPResponse:
    # Some servers refuse urllib's own name.
    request = urllib.request.Request(url, headers={"User-Agent": "pixelpick"})
    _add_token(request)
    return urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT)
