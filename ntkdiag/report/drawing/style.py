"""How every figure looks: two themes, one colour for one thing, and a map for log-SNR.

`applied("light")` sets matplotlib's rc for the length of a `with` block and puts it back afterwards.
Inside it, `line("erd")` is what ERD looks like in every figure, and `log_snr_map` colours noise levels
from dark (noisy) to bright (clean).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ntkdiag.errors import require_one_of

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.cm import ScalarMappable

# Each group keeps a CIELAB distance of 18 or more between any two colours for normal vision and under
# full protanopia, deuteranopia and tritanopia (Machado et al. 2009); tests hold it there. Tuned here.
ROLES = ("trained", "untrained", "constant", "erd", "min_snr", "measured")
TARGET_COLOURS = ("epsilon", "x0", "v", "score", "flow", "F")


@dataclass(frozen=True)
class Theme:
    """Colours of one theme: text, quiet text, grid, background, and one colour for each known thing."""

    name: str
    ink: str
    muted: str
    grid: str
    surface: str
    colours: Mapping[str, str]
    others: tuple[str, ...]
    map_range: tuple[float, float]  # the part of viridis that is visible on `surface`


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


LIGHT = Theme(
    name="light",
    ink="#24292f",
    muted="#57606a",
    grid="#dfe3e8",
    surface="#ffffff",
    colours={
        "trained": "#0072B2",
        "untrained": "#8a8f98",
        "constant": "#24292f",
        "erd": "#D55E00",
        "min_snr": "#0F5510",
        "measured": "#A45CEB",
        "epsilon": "#2A3FC4",
        "x0": "#F0604A",
        "v": "#2695CE",
        "score": "#7A2A5E",
        "flow": "#06471B",
        "F": "#C9788F",
    },
    others=("#A78452", "#9A4650", "#2695CE"),
    map_range=(0.0, 0.88),
)

DARK = Theme(
    name="dark",
    ink="#e6e8eb",
    muted="#a3acb6",
    grid="#333a42",
    surface="#171b20",
    colours={
        "trained": "#4FA8E8",
        "untrained": "#7d858f",
        "constant": "#e6e8eb",
        "erd": "#F0803C",
        "min_snr": "#7CEBA5",
        "measured": "#9A50DE",
        "epsilon": "#7C76D5",
        "x0": "#F0552B",
        "v": "#98C8FD",
        "score": "#A05F8F",
        "flow": "#35F08C",
        "F": "#E0808A",
    },
    others=("#F0CC3A", "#D8455A", "#98C8FD"),
    map_range=(0.18, 1.0),
)

THEMES: Mapping[str, Theme] = {"light": LIGHT, "dark": DARK}
_DASHES = {"untrained": (0, (4, 2))}
_MARKERS = {"untrained": "s", "constant": "D", "erd": "o", "min_snr": "^", "measured": "v"}
# A second meaning for a colour only where it is the same thing: ERD is the amplitude score as a weight.
_ALIASES = {"amplitude": "erd", "baseline": "constant", "uniform": "constant", "eps": "epsilon"}
_current: ContextVar[Theme] = ContextVar("ntkdiag_report_theme", default=LIGHT)


def theme() -> Theme:
    """The theme of the enclosing `applied` block; the light one outside."""
    return _current.get()


@contextmanager
def applied(name: str = "light") -> Iterator[Theme]:
    """Draw in a theme: matplotlib's rc is set inside the block and restored after it.

    Both drawing and saving belong inside, since matplotlib reads some settings only when it saves.

    Args:
        name: "light" or "dark".

    Raises:
        InputError: another name.
    """
    from matplotlib import rc_context

    chosen = THEMES[require_one_of("theme", name, THEMES)]
    token = _current.set(chosen)
    settings: Any = rc(chosen)  # matplotlib types the keys one by one
    try:
        with rc_context(settings):
            yield chosen
    finally:
        _current.reset(token)


def rc(chosen: Theme) -> dict[str, Any]:
    """Matplotlib settings of a theme."""
    return {
        "figure.facecolor": chosen.surface,
        "savefig.facecolor": chosen.surface,
        "axes.facecolor": "none",
        "axes.edgecolor": chosen.muted,
        "axes.labelcolor": chosen.ink,
        "axes.titlecolor": chosen.ink,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.use_mathtext": False,
        "grid.color": chosen.grid,
        "grid.linewidth": 0.7,
        "text.color": chosen.ink,
        "xtick.color": chosen.muted,
        "ytick.color": chosen.muted,
        "xtick.labelcolor": chosen.ink,
        "ytick.labelcolor": chosen.ink,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "figure.constrained_layout.h_pad": 0.07,
        "figure.constrained_layout.w_pad": 0.07,
        "svg.fonttype": "path",
        "svg.hashsalt": "ntkdiag",
        # Names from outside may hold dollar signs: never read them as formulae.
        "text.parse_math": False,
        "text.usetex": False,
    }


def colour(thing: str) -> str:
    """Colour of a known thing in the current theme.

    Raises:
        InputError: unknown thing.
    """
    colours = theme().colours
    return colours[require_one_of("thing to colour", _ALIASES.get(thing, thing), colours)]


def line(thing: str) -> Line:
    """Line of a known thing in the current theme.

    Raises:
        InputError: unknown thing.
    """
    known = _ALIASES.get(thing, thing)
    return Line(colour(known), _DASHES.get(known, "-"), _MARKERS.get(known, "o"))


def lines(names: Iterable[str]) -> dict[str, Line]:
    """Lines for names given from outside (runs, references, rules), distinct from each other.

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
        others = theme().others
        dashes = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))[(spare // len(others)) % 4]
        found[name] = Line(others[spare % len(others)], dashes, "Psd*"[spare % 4])
        spare += 1
    return found


def known_thing(name: str) -> str | None:
    """The role or target a name stands for ("min-SNR γ=5" → "min_snr"), or None."""
    words = re.sub(r"[\W_]+", " ", name.lower()).strip()
    for spelling in (*ROLES, *_ALIASES, "epsilon", "x0", "score", "flow"):
        if re.search(rf"\b{spelling.replace('_', ' ')}\b", words):
            return None if words.startswith("soft") else _ALIASES.get(spelling, spelling)
    return name if name in theme().colours else None


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

    low, high = theme().map_range
    visible = LinearSegmentedColormap.from_list("log_snr", colormaps["viridis"](np.linspace(low, high, 256)))
    least, most = float(np.min(log_snr)), float(np.max(log_snr))
    margin = 1.0 if least == most else 0.0
    return ScalarMappable(norm=Normalize(least - margin, most + margin), cmap=visible)
