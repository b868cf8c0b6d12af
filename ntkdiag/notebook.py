"""What a notebook shows of an object: small tables of HTML, in which every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def html_facts(title: str, rows: Mapping[str, object]) -> str:
    """A title, and a row for each fact.

    Example:
        >>> html_facts("Data", {"name": "<b>"})
        '<table><caption>Data</caption><tr><th>name</th><td>&lt;b&gt;</td></tr></table>'
    """
    body = "".join(_row([_cell("th", name), _cell("td", value)]) for name, value in rows.items())
    return f"<table>{_cell('caption', title)}{body}</table>"


def html_rows(title: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A title, headings and rows; numbers are shown with four digits.

    Example:
        >>> html_rows("Weights", ["weight"], [[0.12345]])
        '<table><caption>Weights</caption><tr><th>weight</th></tr><tr><td>0.1235</td></tr></table>'
    """
    head = _row([_cell("th", name) for name in names])
    body = "".join(_row([_cell("td", value) for value in row]) for row in rows)
    return f"<table>{_cell('caption', title)}{head}{body}</table>"


def html_paragraphs(text: str) -> str:
    """Running text; an empty line parts paragraphs."""
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n"))


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _cell(tag: str, value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"<{tag}>{escape(text)}</{tag}>"
