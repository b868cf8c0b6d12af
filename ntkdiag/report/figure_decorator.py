"""A figure is one function under `@figure`: it draws one part of the inputs of a report on given axes.

    @figure("trace_change", draws=DIAGNOSIS, group=Group.STRENGTH, title="…", caption="…")
    def draw_trace_change(axes: Axes, diagnosis: Diagnosis) -> None: ...

From then on it is in `FIGURES`, on the page, among the saved figures and in `ntkdiag plot`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ntkdiag.errors import InputError
from ntkdiag.report.figure_order import Group, position
from ntkdiag.report.inputs import Part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

T = TypeVar("T")
PANEL_SIZE = (5.6, 3.5)  # width and height, inches


@dataclass(frozen=True)
class ReportFigure(Generic[T]):
    """A registered figure: the arguments of `figure`, and the function that draws it.

    Attributes:
        function: `function(axes, part)`, or `function(axes, part, panel)` where there are panels.

    Example:
        >>> figure = nd.report.FIGURES["trace"]
        >>> figure.name, figure.group.name
        ('trace', 'STRENGTH')
    """

    name: str
    draws: Part[T]
    group: Group
    title: str
    caption: str
    panels: Callable[[T], Sequence[str]] | None
    size: tuple[float, float]
    function: Callable[..., None]

    def panel_names(self, part: T) -> list[str | None]:
        """Names of the panels for a part; [None] for a figure without panels.

        Raises:
            InputError: there is nothing to draw.
        """
        return [None] if self.panels is None else list(self.panels(part))

    def draw(self, axes: Axes, part: T, panel: str | None = None) -> None:
        """Draw the figure, or one of its panels, on given axes.

        Raises:
            InputError: there is nothing to draw.
        """
        self.function(axes, part, *([] if panel is None else [panel]))


# Every figure so far, in the order of the page. Read `report.FIGURES` instead: it loads the package's own figures first.
REGISTERED: dict[str, ReportFigure[Any]] = {}


@overload
def figure(
    name: str,
    *,
    draws: Part[T],
    group: Group,
    title: str,
    caption: str,
    size: tuple[float, float] = ...,
) -> Callable[[Callable[[Axes, T], None]], Callable[[Axes, T], None]]: ...


@overload
def figure(
    name: str,
    *,
    draws: Part[T],
    group: Group,
    title: str,
    caption: str,
    panels: Callable[[T], Sequence[str]],
    size: tuple[float, float] = ...,
) -> Callable[[Callable[[Axes, T, str], None]], Callable[[Axes, T, str], None]]: ...


def figure(
    name: str,
    *,
    draws: Part[T],
    group: Group,
    title: str,
    caption: str,
    panels: Callable[[T], Sequence[str]] | None = None,
    size: tuple[float, float] = PANEL_SIZE,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the function below as a figure; the function itself stays as it is.

    Args:
        name: As `plot` and the command line take it.
        draws: What the function draws: DIAGNOSIS, FULL_KERNEL, WEIGHTS, RUNS, SAMPLES or QUALITY of `report.inputs`.
        group: The question of the page under which the figure stands; see `figure_order`.
        title: Heading.
        caption: One sentence that says how to read the figure.
        panels: Names of the panels of a part, each drawn by `function(axes, part, panel)`; None for a single panel.
        size: Width and height of one panel, inches.

    Raises:
        InputError: a figure of that name exists.

    Example:
        >>> from ntkdiag.report.inputs import DIAGNOSIS
        >>> @nd.report.figure("trace_squared", draws=DIAGNOSIS, group=nd.report.Group.APPENDIX, title="…", caption="…")
        ... def trace_squared(axes, diagnosis):
        ...     axes.plot(diagnosis.summary["log_snr"], diagnosis.summary["trace"] ** 2)
        >>> "trace_squared" in nd.report.FIGURES
        True
        >>> unregister("trace_squared")
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        if name in REGISTERED:
            raise InputError("name of a figure", expected="one that is free", got=f"'{name}', which exists")
        REGISTERED[name] = ReportFigure(name, draws, group, title, caption, panels, size, function)
        in_order = sorted(REGISTERED.items(), key=lambda item: position(item[0], item[1].group))
        REGISTERED.clear()
        REGISTERED.update(in_order)
        return function

    return register


def unregister(name: str) -> None:
    """Take a figure out of `FIGURES`, for example after a test.

    Raises:
        InputError: there is no such figure.
    """
    if name not in REGISTERED:
        raise InputError("name of a figure", expected="one that exists", got=f"'{name}'")
    del REGISTERED[name]
