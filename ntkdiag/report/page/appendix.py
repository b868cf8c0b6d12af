"""Where the numbers come from: versions, seeds, hashes, the engine of each parameter, and the figures left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ntkdiag.report.formatting import MISSING
from ntkdiag.report.page.markup import Html, element, table
from ntkdiag.report.tables import Table

if TYPE_CHECKING:
    from ntkdiag.diagnosis import Diagnosis

MOST_ITEMS = 24  # of a list or mapping that are written out


def section(diagnosis: Diagnosis, more_figures: Html, left_out: Mapping[str, str]) -> Html:
    """The appendix.

    Args:
        diagnosis: Its `meta` is written out whole, but for long lists.
        more_figures: The figures of the appendix; may be empty.
        left_out: Title of a figure that could not be drawn → the reason.
    """
    parts = [element("h2", "Appendix: where this comes from")]
    if more_figures:
        parts += [element("h3", "More figures"), more_figures]
    rows = tuple(_rows(diagnosis.meta))
    parts += [element("h3", "Provenance")]
    parts += [table(Table(("what", "value"), rows), "Recorded with the measurement", ("what", "value"))]
    if left_out:
        items = [element("li", element("b", name), ": ", why) for name, why in left_out.items()]
        parts += [element("h3", "Figures left out"), element("ul", *items)]
    return element("section", *parts)


def _rows(value: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """A nested record as (path, value) rows: the plain values of a mapping share a row, each list has its own."""
    plain = [f"{key} {_short(value[key])}" for key in sorted(value, key=str) if _is_plain(value[key])]
    if plain:
        yield path or "run", ", ".join(plain)
    for key in sorted(value, key=str):
        inner, name = value[key], f"{path}.{key}" if path else str(key)
        if name == "coverage" and isinstance(inner, Mapping):
            yield from _coverage(inner)
        elif isinstance(inner, Mapping):
            yield from _rows(inner, name)
        elif isinstance(inner, list | tuple):
            shown = ", ".join(_short(item) for item in inner[:MOST_ITEMS])
            yield name, shown + (f", … ({len(inner)} in all)" if len(inner) > MOST_ITEMS else "")


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Mapping | list | tuple)


def _coverage(coverage: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Parameters grouped by what computed them, since a network has hundreds."""
    groups: dict[str, list[str]] = {}
    for name, how in coverage.items():
        groups.setdefault(str(how), []).append(str(name))
    for how in sorted(groups):
        names = groups[how]
        shown = ", ".join(names[:MOST_ITEMS]) + (", …" if len(names) > MOST_ITEMS else "")
        yield f"coverage: {how}", f"{len(names)} parameters: {shown}"


def _short(value: Any) -> str:
    if value is None:
        return MISSING
    return f"{value:.6g}" if isinstance(value, float) else str(value)
