"""Loss weights over log-SNR, all scaled to mean 1 so that their shapes can be compared.

Without normalisation a weight also changes the learning rate, and two curves would differ for the
wrong reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.columns import cell_edges, positive
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis, log_snr_axis
from ntkdiag.report.drawing.labels import LABEL_SIZE, End, label_line_ends
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.inputs import WEIGHTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.process.schedules.base import Schedule

# A weight as a function of a tensor of log-SNRs: a WeightTable, or any closed form.
Weight = Callable[[Any], Any]
POINTS = 401
SHOWN = (
    1e-3,
    1e3,
)  # range of the axis: a weight beyond it would dominate or drop out of training (tuned here)


@dataclass(frozen=True)
class NamedEnd(End):
    """The end of the line of a weight, with its name; `text` names all weights with the same line."""

    name: str


def draw_weights(
    axes: Axes, weights: Mapping[str, Weight], log_snr: np.ndarray, schedule: Schedule | None = None
) -> None:
    """Weight curves over log-SNR at mean 1 under the training density, on a logarithmic axis.

    Args:
        axes: Where to draw.
        weights: Name → weight. Names that contain constant, erd, min_snr or measured get that colour.
        log_snr: Grid [n], ascending, over which the mean is taken.
        schedule: Its density is the one of the mean, and is shown as a grey area. None: uniform.

    Raises:
        InputError: no weight is positive and finite anywhere on the grid.
    """
    curves = {name: normalised(weight, log_snr, log_snr, schedule) for name, weight in weights.items()}
    ends = plot_curves(axes, curves, log_snr, "weights")
    _draw_intervals(axes, weights, ends, log_snr, schedule)
    axes.set_ylabel("weight (mean 1 over the levels shown)")
    if schedule is not None:
        _draw_density(axes, log_snr, _density(log_snr, schedule))
    label_line_ends(axes, ends)


def plot_curves(
    axes: Axes, curves: Mapping[str, np.ndarray], log_snr: np.ndarray, figure: str
) -> list[NamedEnd]:
    """Positive curves on a logarithmic axis; equal curves share one line.

    Args:
        axes: Where to draw.
        curves: Name → values on the grid [n]; what is not positive and finite is left out.
        log_snr: Grid [n], ascending.
        figure: Its name, for the error.

    Returns:
        The ends of the lines, to be labelled last.

    Raises:
        InputError: no curve is positive and finite anywhere.
    """
    drawn = {name: values for name, values in curves.items() if np.isfinite(positive(values)).any()}
    tied = ties(drawn)
    if not tied:
        raise InputError(f"figure '{figure}'", expected="a weight that is positive somewhere", got="none")
    looks = style.lines(tied)
    for name, look in looks.items():
        known = style.known_thing(name)
        heavy = style.emphasised(look) if known is not None and look == style.line(known) else look
        axes.plot(log_snr, positive(drawn[name]), **heavy.plot)
    every = np.concatenate([positive(drawn[name]) for name in tied])
    bottom, top = max(SHOWN[0], np.nanmin(every) / 1.5), min(SHOWN[1], np.nanmax(every) * 1.5)
    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    log_axis(axes, "y")
    log_snr_axis(axes, log_snr, margin=0.0)
    return [
        NamedEnd(log_snr[-1], drawn[name][-1], " = ".join(tied[name]), look, name)
        for name, look in looks.items()
    ]


@figure(
    "weights",
    draws=WEIGHTS,
    group=Group.WEIGHTS,
    title="Loss weights",
    caption="How much each noise level counts in the loss, every curve scaled to mean 1 over the "
    "levels shown as training samples them. A curve with several names is one objective under several "
    "names.",
    size=(5.6, 4.2),
)
def draw_weights_of(axes: Axes, subject: tuple[Diagnosis, Mapping[str, Weight] | None]) -> None:
    """The given weights over the measured range; with none given, every rule for the target that was measured.

    Raises:
        InputError: nothing to draw.
    """
    diagnosis, tables = subject
    schedule = schedule_of(diagnosis)
    target = str(diagnosis.meta.get("config", {}).get("target", ""))
    draw_weights(axes, tables or all_rules(target, schedule), weight_grid(diagnosis), schedule)


def ties(curves: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Names of curves that agree to 1e-6 everywhere, by the name of the first: one objective under several names."""
    groups: dict[str, list[str]] = {}
    for name, values in curves.items():
        same = (first for first in groups if np.allclose(curves[first], values, rtol=1e-6, equal_nan=True))
        groups.setdefault(next(same, name), []).append(name)
    return groups


def normalised(
    weight: Weight, at: np.ndarray, grid: np.ndarray, schedule: Schedule | None = None
) -> np.ndarray:
    """A weight divided by its mean over `grid` under the training density.

    Args:
        weight: Function of a float64 tensor of log-SNRs.
        at: Log-SNRs to evaluate at [m].
        grid: Log-SNRs of the mean [n], ascending.
        schedule: Gives the density; None for the uniform one.

    Returns:
        Weights [m]; NaN where the weight has no finite mean or is not defined.
    """
    mean = _mean(weight, grid, schedule)
    return evaluated(weight, at) / mean if np.isfinite(mean) and mean > 0 else np.full(len(at), np.nan)


def weight_grid(diagnosis: Diagnosis) -> np.ndarray:
    """Log-SNRs over the measured range, from the lowest edge of a bucket to the highest."""
    low, high = cell_edges(diagnosis.summary)
    return np.linspace(np.nanmin(low), np.nanmax(high), POINTS)


def all_rules(target: str, schedule: Schedule | None = None) -> dict[str, Weight]:
    """Every closed-form rule that is defined for a target, the constant weight and ERD first.

    Args:
        target: What the network predicts.
        schedule: Needed by some rules and targets, which are left out without it.
    """
    from ntkdiag.weights import RULES, evaluate

    first = [f"constant_{target}", "erd", "min_snr"]
    names = [name for name in first if name in RULES] + [name for name in RULES if name not in first]

    def bound(name: str) -> Weight:
        return lambda log_snr: evaluate(name, target, log_snr, schedule)

    return {name: bound(name) for name in names if np.isfinite(evaluated(bound(name), np.zeros(1))).all()}


def schedule_of(diagnosis: Diagnosis) -> Schedule | None:
    """The schedule a diagnosis was measured on, rebuilt from its record; None if the record is not enough."""
    from ntkdiag.process import schedules

    recorded = diagnosis.meta.get("config", {}).get("schedule")
    described = dict(recorded) if isinstance(recorded, Mapping) else {}
    try:
        return schedules.named(described.pop("name", ""), **described)
    except (InputError, TypeError):
        return None


def _mean(weight: Weight, grid: np.ndarray, schedule: Schedule | None) -> float:
    import torch

    from ntkdiag.weights.tables.mean import mean_on_grid

    columns = (evaluated(weight, grid), np.asarray(grid, dtype=np.float64), _density(grid, schedule))
    return mean_on_grid(*map(torch.from_numpy, columns))


def _draw_intervals(
    axes: Axes,
    weights: Mapping[str, Weight],
    ends: list[NamedEnd],
    log_snr: np.ndarray,
    schedule: Schedule | None,
) -> None:
    """The intervals of measured tables as bars at their rows, within the limits of what is shown at all."""
    rows_of = ((end.look, _interval(weights[end.name], log_snr, schedule)) for end in ends)
    found = [(look, rows) for look, rows in rows_of if len(rows)]
    if not found:
        return
    every = np.concatenate([rows[:, 1:].ravel() for _, rows in found])
    every = every[every > 0]
    bottom, top = axes.get_ylim()
    bottom, top = max(SHOWN[0], min(bottom, every.min() / 1.5)), min(SHOWN[1], max(top, 1.5 * every.max()))
    axes.set_ylim(bottom, top)
    log_axis(axes, "y")
    for look, (at, own, low, high) in ((look, rows.T) for look, rows in found):
        axes.vlines(
            at, np.maximum(low, bottom), high, color=look.colour, linewidth=0.8 * look.width, alpha=0.5
        )
        axes.plot(at, own, look.marker, color=look.colour, markersize=3.5)


def _interval(weight: Weight, log_snr: np.ndarray, schedule: Schedule | None) -> np.ndarray:
    """Log-SNR, weight, low and high of a table's rows on the grid, on the scale of its curve [rows, 4]."""
    low, high = getattr(weight, "low", None), getattr(weight, "high", None)
    mean = _mean(weight, log_snr, schedule)
    if low is None or high is None or not (np.isfinite(mean) and mean > 0):
        return np.empty((0, 4))
    at, own = weight.log_snr.numpy(), weight.weight.numpy()  # type: ignore[attr-defined]
    rows = np.column_stack([at, own / mean, low.numpy() / mean, high.numpy() / mean])
    return rows[(at >= log_snr[0]) & (at <= log_snr[-1]) & (high.numpy() > 0)]


def _density(log_snr: np.ndarray, schedule: Schedule | None) -> np.ndarray:
    if schedule is None:
        return np.ones(len(log_snr))
    return np.nan_to_num(evaluated(schedule.density, log_snr))


def evaluated(weight: Weight, log_snr: np.ndarray) -> np.ndarray:
    """A weight on a grid [n] in float64; NaN where it is refused."""
    import torch

    try:
        values = weight(torch.tensor(log_snr, dtype=torch.float64))
    except InputError:
        return np.full(len(log_snr), np.nan)
    return np.asarray(torch.as_tensor(values).detach().cpu(), dtype=np.float64)


def _draw_density(axes: Axes, log_snr: np.ndarray, density: np.ndarray) -> None:
    """The training density as a shaded area over the lower fifth of the axes."""
    if not density.max() > 0:
        return
    quiet = theme.current().muted
    height = 0.2 * density / density.max()
    axes.fill_between(log_snr, 0, height, color=quiet, alpha=0.18, lw=0, transform=axes.get_xaxis_transform())
    peak = log_snr[np.argmax(density)]
    axes.annotate(
        "where training samples",
        xy=(peak, 0.02),
        xycoords=axes.get_xaxis_transform(),
        ha="center",
        fontsize=LABEL_SIZE - 0.5,
        color=quiet,
    )
