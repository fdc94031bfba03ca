"""HTML from plain values. All text is escaped here, and nowhere else are tags written."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = Path(__file__).with_name("page.css")


class Html(str):
    """Finished HTML; any other string is text."""


@dataclass(frozen=True)
class Heat:
    """A cell with a colour: `value` in 0..1, NaN has none."""

    value: float
    text: str


def _inner(content: str) -> str:
    return content if isinstance(content, Html) else escape(content)


def joined(parts: Iterable[str]) -> Html:
    return Html("\n".join(map(_inner, parts)))


def heading(text: str, *, level: int, anchor: str = "") -> Html:
    identity = f' id="{escape(anchor)}"' if anchor else ""
    return Html(f"<h{level}{identity}>{_inner(text)}</h{level}>")


def paragraph(text: str) -> Html:
    return Html(f"<p>{_inner(text)}</p>")


def note(text: str) -> Html:
    """What is left out, and why."""
    return Html(f'<p class="note">{_inner(text)}</p>')


def code(text: str) -> Html:
    return Html(f"<pre><code>{_inner(text)}</code></pre>")


def section(parts: Iterable[str], *, kind: str = "part") -> Html:
    return Html(f'<section class="{escape(kind)}">\n{joined(parts)}\n</section>')


def folded(title: str, parts: Iterable[str]) -> Html:
    """Shown when its title is clicked."""
    return Html(f"<details><summary>{_inner(title)}</summary>\n{joined(parts)}\n</details>")


def links(entries: Sequence[tuple[str, str]]) -> Html:
    """(anchor, text) each."""
    items = "".join(f'<li><a href="#{escape(anchor)}">{_inner(text)}</a></li>'
                    for anchor, text in entries)
    return Html(f"<nav><ul>{items}</ul></nav>")


def table(header: Sequence[str], rows: Iterable[Sequence[str | Heat]]) -> Html:
    """The first column names the row, the others are figures."""
    head = "".join(f'<th scope="col">{_inner(cell)}</th>' for cell in header)
    body = "\n".join("<tr>" + f'<th scope="row">{_inner(first)}</th>' + "".join(map(_cell, cells))
                     + "</tr>" for first, *cells in rows)
    return Html(f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
                f"<tbody>{body}</tbody></table></div>")


def _cell(cell: str | Heat) -> str:
    if not isinstance(cell, Heat):
        return f"<td>{_inner(cell)}</td>"
    if math.isnan(cell.value):
        return f"<td>{escape(cell.text)}</td>"
    return f'<td class="heat" style="--heat:{cell.value:.3f}">{escape(cell.text)}</td>'


def facts(rows: Iterable[tuple[str, str]]) -> Html:
    """Names and what they are."""
    items = "\n".join(f"<dt>{_inner(name)}</dt><dd>{_inner(value)}</dd>" for name, value in rows)
    return Html(f"<dl>{items}</dl>")


def picture(path: Path, *, caption: str, kind: str = "chart") -> Html:
    """A PNG file, embedded. kind: `chart`, which is inverted in the dark, or `photo`."""
    data = base64.b64encode(path.read_bytes()).decode()
    return Html(f'<figure class="{escape(kind)}"><div class="scroll"><img alt="{escape(caption)}" '
                f'src="data:image/png;base64,{data}"></div>'
                f"<figcaption>{_inner(caption)}</figcaption></figure>")


def page(title: str, parts: Iterable[str]) -> str:
    """A document that needs no other file."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{joined(parts)}
</main>
</body>
</html>
"""
