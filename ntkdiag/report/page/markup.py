"""HTML elements: every string is escaped unless this module has made it.

`element("p", text)` escapes the text; only `Html`, which only this module makes, is inserted unchanged.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

from ntkdiag.report.tables import Table

_VOID = {"img", "meta", "source"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str) -> Html:
    """An element with escaped children and attributes.

    Args:
        tag: Its name.
        children: Text, escaped, or `Html`.
        attributes: Attribute values, escaped; a trailing underscore is dropped (`class_`), others become dashes.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[str]) -> Html:
    """Children one after the other; those that are not `Html` are escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))


def table(content: Table, caption: str, text_columns: tuple[str, ...] = ()) -> Html:
    """A table that scrolls sideways in its own box where the screen is narrow.

    Args:
        content: Headings and cells, escaped here.
        caption: What it shows.
        text_columns: Headings of columns of words, which stand flush left.
    """
    looks = ["words" if name in text_columns else "number" for name in content.columns]
    head = [
        element("th", name, class_=look, scope="col")
        for name, look in zip(content.columns, looks, strict=True)
    ]
    body = [
        element("tr", *(element("td", cell, class_=look) for cell, look in zip(row, looks, strict=True)))
        for row in content.rows
    ]
    inner = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element("div", inner, class_="scroll", tabindex="0")


def picture(light: bytes, dark: bytes, description: str) -> Html:
    """An SVG in both themes, within the page; paper always gets the light one."""
    return element(
        "picture",
        element("source", srcset=_data(dark), media="screen and (prefers-color-scheme: dark)"),
        element("img", src=_data(light), alt=description),
    )


def _data(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
