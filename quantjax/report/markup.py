"""Pieces of a self-contained page: frame, cards, tables, figures, settings; every text is escaped here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from quantjax.report.style import STYLE
from quantjax.report.tables import Table


def document(title: str, note: Any, sections: Iterable[str]) -> str:
    """The whole page; `note` may hold `code` and stands under the title, None or empty leaves it out."""
    text = re.sub("`([^`]+)`", r"<code>\1</code>", escape(str(note or "")))
    header = f"<header><h1>{escape(title)}</h1>" + (f'<p class="note">{text}</p>' if text else "") + "</header>"
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{viewport}<title>{escape(title)}</title><style>{STYLE}</style>'
    body = f"<body><main>{header}{''.join(sections)}</main></body>"
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n{body}\n</html>\n'


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Cards of (name, value, detail)."""
    cards = "".join(
        f'<div class="tile"><div class="name">{escape(name)}</div><div class="value">{escape(value)}</div>'
        f'<div class="name">{escape(detail)}</div></div>'
        for name, value, detail in entries
    )
    return f'<div class="tiles">{cards}</div>'


def settings(results: Mapping[str, Any], grouped: Sequence[str], hidden: Sequence[str]) -> str:
    """The keys of `grouped` as lists of their own, all further ones but the hidden as one list."""
    groups = {key: results[key] for key in grouped}
    groups["run"] = {key: value for key, value in results.items() if key not in (*grouped, *hidden)}
    blocks = []
    for name, values in groups.items():
        pairs = values.items() if isinstance(values, Mapping) else [(name, values)]
        lines = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(_text(v))}</td></tr>" for k, v in pairs)
        block = f'<h3>{escape(name.capitalize())}</h3><div class="scroll"><table class="pairs">{lines}</table></div>'
        blocks.append(f"<div>{block}</div>")
    return section("settings", "Settings and versions", f'<div class="columns">{"".join(blocks)}</div>')


def titled_table(values: Table) -> str:
    """A table under its title."""
    return f"<h3>{escape(values.title)}</h3>{table(values)}"


def table(values: Table) -> str:
    """A table under its note, best cells in bold."""
    head = "".join(f"<th>{escape(text)}</th>" for text in values.header)
    lines = []
    for cells, marks in zip(values.cells, values.best, strict=True):
        row = "".join(
            f"<td{' class=best' if mark else ''}>{escape(c)}</td>" for c, mark in zip(cells[1:], marks[1:], strict=True)
        )
        lines.append(f"<tr><th>{escape(cells[0])}</th>{row}</tr>")
    body = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return f'<p class="hint">{escape(values.note)}</p>{body}'


def section(name: str, title: str, body: str) -> str:
    """A titled card of the page."""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>'


def grid(panels: Sequence[str], wide: bool = False) -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="grid-of-charts{" wide" if wide else ""}">{"".join(panels)}</div>'


def figure(caption: str, chart: str) -> str:
    """A drawing under its caption."""
    title = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{title}{chart}</figure>"


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names with the colour of their series class."""
    items = []
    for name, kind in entries:
        swatch = f'<svg class="swatch" viewBox="0 0 22 10"><path class="line {kind}" d="M1 5H21"/></svg>'
        items.append(f'<span class="key">{swatch}{escape(name)}</span>')
    return f'<div class="legend">{"".join(items)}</div>'


def colour_legend(entries: Iterable[tuple[str, Sequence[int]]]) -> str:
    """Names with a patch of their colour (red, green, blue in 0..255)."""
    items = []
    for name, colour in entries:
        patch = f'<rect width="22" height="10" fill="rgb{tuple(map(int, colour))}"/>'
        items.append(f'<span class="key"><svg class="swatch" viewBox="0 0 22 10">{patch}</svg>{escape(name)}</span>')
    return f'<div class="legend">{"".join(items)}</div>'


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
