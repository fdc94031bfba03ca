"""The list of suspicious answers as one HTML file without links to others."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.images import read_image
from datasets.spec import ClassInfo
from utils.files import write_text
from utils.geometry import file_pixel

_CONTEXT = 0.5  # side of the larger crop, as a part of the image's shorter side
_CONTEXT_PX = 220  # and on the page
_INSET = 22  # side of the close crop, in pixels of the file


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An answer as the page shows it. `path`: the image's file; `grid`: (h, w) of what (y, x) is
    on; `annotator`: "" if it is not known who it was."""

    path: Path
    image: str
    grid: tuple[int, int]
    y: int
    x: int
    round_index: int
    given: ClassInfo
    predicted: ClassInfo
    probability: float
    given_probability: float
    annotator: str


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 78em; padding: 0 1em;
       color: #1b1b1b; background: #fff }
h1 { font-size: 1.4em } pre { background: #f1f1f1; padding: .7em; white-space: pre-wrap;
                            overflow-wrap: anywhere }
ol { list-style: none; padding: 0; display: grid; gap: 1em;
     grid-template-columns: repeat(auto-fill, minmax(34em, 1fr)) }
li { border: 1px solid #ccc; border-radius: 6px; padding: .7em; display: flex; gap: .8em }
.crop { position: relative; width: 220px; height: 220px; flex: none } .inset { width: 154px;
        height: 154px }
.crop img, .crop svg { position: absolute; inset: 0; width: 100%; height: 100% }
.inset img { image-rendering: pixelated }
.swatch { display: inline-block; width: .9em; height: .9em; border: 1px solid #000;
          vertical-align: -.1em }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6em; margin: .4em 0 0 }
dt { color: #555 } dd { margin: 0; overflow-wrap: anywhere } .where { color: #555; font-size: 13px }
"""


def write_page(path: Path, entries: Sequence[Entry], *, title: str, paragraphs: Iterable[str],
               commands: Sequence[tuple[str, str]]) -> None:
    """paragraphs: plain text above the list; commands: (what it does, command) below them."""
    parts = [f"<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
             f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
             f"<h1>{escape(title)}</h1>"]
    parts += [f"<p>{escape(text)}</p>" for text in paragraphs]
    parts += [f"<p>{escape(what)}</p><pre>{escape(command)}</pre>" for what, command in commands]
    images: dict[Path, np.ndarray] = {}
    parts.append("<ol>")
    for number, entry in enumerate(entries, 1):
        if entry.path not in images:
            images = {entry.path: read_image(entry.path)}  # only the last one is kept
        parts.append(_item(number, entry, images[entry.path]))
    parts.append("</ol></html>\n")
    write_text(path, "\n".join(parts))


def _item(number: int, entry: Entry, image: np.ndarray) -> str:
    y, x = file_pixel(entry.y, entry.x, grid=entry.grid, size=image.shape[:2])
    by = f", {escape(entry.annotator)}" if entry.annotator else ""
    return (
        f"<li>{_context(image, y, x)}<div><b>{number}</b>"
        f"<dl><dt>given</dt><dd>{_class(entry.given)} ({_percent(entry.given_probability)})</dd>"
        f"<dt>model</dt><dd>{_class(entry.predicted)} ({_percent(entry.probability)})</dd></dl>"
        f"<p class=where>{escape(entry.image)}<br>y {entry.y}, x {entry.x}, round "
        f"{entry.round_index}{by}</p>{_inset(image, y, x)}</div></li>")


def _class(info: ClassInfo) -> str:
    red, green, blue = info.colour
    return (f"<span class=swatch style='background:rgb({red},{green},{blue})'></span> "
            f"<b>{escape(info.name)}</b>")


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def window(centre: int, *, side: int, length: int) -> int:
    """Where on an axis of `length` a piece of `side` starts that has `centre` in its middle, or as
    near to it as the border allows."""
    return min(max(centre - side // 2, 0), length - side)


def _crop(image: np.ndarray, y: int, x: int, side: int) -> tuple[Image.Image, float, float]:
    """A square of `side` pixels, and the middle of the pixel (y, x) on it as parts of its side."""
    side = min(side, *image.shape[:2])
    top, left = (window(c, side=side, length=n)
                 for c, n in zip((y, x), image.shape[:2], strict=True))
    piece = Image.fromarray(image[top:top + side, left:left + side])
    return piece, (y - top + 0.5) / side, (x - left + 0.5) / side


def _context(image: np.ndarray, y: int, x: int) -> str:
    side = max(round(_CONTEXT * min(image.shape[:2])), 2 * _INSET)
    piece, row, column = _crop(image, y, x, side)
    how = Image.Resampling.BILINEAR if side > _CONTEXT_PX else Image.Resampling.NEAREST
    piece = piece.resize((_CONTEXT_PX, _CONTEXT_PX), how)
    ring = "".join(f"<circle cx='{100 * column:.2f}' cy='{100 * row:.2f}' r=5 fill=none "
                   f"stroke={colour} stroke-width={width} />"
                   for colour, width in (("#000", 2.4), ("#fff", 1)))
    return (f"<div class=crop><img alt='around the pixel' src='{_uri(piece, 'jpeg', quality=88)}'>"
            f"<svg viewBox='0 0 100 100'>{ring}</svg></div>")


def _inset(image: np.ndarray, y: int, x: int) -> str:
    piece, row, column = _crop(image, y, x, _INSET)
    side = piece.width
    top, left = row * side - 0.5, column * side - 0.5
    box = "".join(f"<rect x='{left - out:.2f}' y='{top - out:.2f}' width='{1 + 2 * out:.2f}' "
                  f"height='{1 + 2 * out:.2f}' fill=none stroke={colour} stroke-width=.12 />"
                  for colour, out in (("#fff", 0.06), ("#000", 0.18)))
    return (f"<div class='crop inset'><img alt='the pixel, close' src='{_uri(piece, 'png')}'>"
            f"<svg viewBox='0 0 {side} {side}'>{box}</svg></div>")


def _uri(image: Image.Image, kind: str, **options: int) -> str:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
