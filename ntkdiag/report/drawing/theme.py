"""The light and the dark theme: their colours, and matplotlib's settings for as long as a figure is drawn.

`applied("dark")` sets matplotlib's rc for the length of a `with` block and restores it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ntkdiag.errors import require_one_of
from ntkdiag.report.drawing.library import import_matplotlib

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
_current: ContextVar[Theme] = ContextVar("ntkdiag_report_theme", default=LIGHT)


def current() -> Theme:
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
    import_matplotlib()
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
        # Names given by users may contain dollar signs: never read them as formulae.
        "text.parse_math": False,
        "text.usetex": False,
    }
