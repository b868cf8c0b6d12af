"""One look for one thing: `line("erd")` is what ERD looks like in every figure, whatever is drawn beside it.

`log_snr_map` colours noise levels from dark (noisy) to bright (clean).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ntkdiag.errors import require_one_of
from ntkdiag.report.drawing import theme

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.cm import ScalarMappable

_DASHES = {"untrained": (0, (4, 2))}
_MARKERS = {"untrained": "s", "constant": "D", "erd": "o", "min_snr": "^", "measured": "v"}
# A second meaning for a colour only where it is the same thing: ERD is the amplitude score as a weight.
_ALIASES = {"amplitude": "erd", "baseline": "constant", "uniform": "constant", "eps": "epsilon"}


@dataclass(frozen=True)
class Line:
    """How one thing is drawn: colour, matplotlib line style, marker, width in points."""

    colour: str
    dashes: Any = "-"
    marker: str = "o"
    width: float = 1.8

    @property
    def plot(self) -> dict[str, Any]:
        """Keyword arguments for `Axes.plot`."""
        return {"color": self.colour, "linestyle": self.dashes, "linewidth": self.width}


def colour(thing: str) -> str:
    """Colour of a known thing in the current theme.

    Raises:
        InputError: unknown thing.
    """
    colours = theme.current().colours
    return colours[require_one_of("thing to colour", _ALIASES.get(thing, thing), colours)]


def line(thing: str) -> Line:
    """Line of a known thing in the current theme.

    Raises:
        InputError: unknown thing.
    """
    known = _ALIASES.get(thing, thing)
    return Line(colour(known), _DASHES.get(known, "-"), _MARKERS.get(known, "o"))


def lines(names: Iterable[str]) -> dict[str, Line]:
    """Lines for names given by users (runs, references, rules), distinct from each other.

    A name that contains a known thing as a word ("erd seed 0", "constant-eps") gets that thing's colour,
    the first time; all others take the spare colours in turn, with another dash at each round.
    """
    found: dict[str, Line] = {}
    taken: set[str] = set()
    spare = 0
    for name in names:
        known = known_thing(name)
        if known is not None and known not in taken:
            taken.add(known)
            found[name] = line(known)
            continue
        others = theme.current().others
        dashes = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))[(spare // len(others)) % 4]
        found[name] = Line(others[spare % len(others)], dashes, "Psd*"[spare % 4])
        spare += 1
    return found


def known_thing(name: str) -> str | None:
    """The role or target a name stands for ("min-SNR γ=5" → "min_snr"), or None."""
    words = re.sub(r"[\W_]+", " ", name.lower()).strip()
    for spelling in (*theme.ROLES, *_ALIASES, "epsilon", "x0", "score", "flow"):
        if re.search(rf"\b{spelling.replace('_', ' ')}\b", words):
            return None if words.startswith("soft") else _ALIASES.get(spelling, spelling)
    return name if name in theme.current().colours else None


def emphasised(drawn: Line) -> Line:
    """The same line, heavier."""
    return replace(drawn, width=2.6)


def log_snr_map(log_snr: np.ndarray) -> ScalarMappable:
    """Viridis (perceptually uniform) over the range of some log-SNRs: dark is noisy, bright is clean.

    Args:
        log_snr: Finite log-SNRs; one alone is put in the middle of the map.

    Returns:
        A mappable: `.to_rgba(value)` colours, and a colour bar can be made of it.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    low, high = theme.current().map_range
    visible = LinearSegmentedColormap.from_list("log_snr", colormaps["viridis"](np.linspace(low, high, 256)))
    least, most = float(np.min(log_snr)), float(np.max(log_snr))
    margin = 1.0 if least == most else 0.0
    return ScalarMappable(norm=Normalize(least - margin, most + margin), cmap=visible)
