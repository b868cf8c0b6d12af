"""Figure of effective weights: a loss weight times the density from which training samples noise levels.

Two trainings with the same curve minimise the same objective, whatever target their losses are written on (Kingma &
Gao 2023, arXiv 2303.00848, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.drawing.labels import label_line_ends
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.figures.weights import Weight, all_rules, evaluated, plot_curves, schedule_of, weight_grid
from ntkdiag.report.inputs import WEIGHTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.process.schedules.base import Schedule


def draw_effective_weights(
    axes: Axes, weights: Mapping[str, Weight], target: str, log_snr: np.ndarray, schedule: Schedule
) -> None:
    """w_ε(λ)·p(λ) over log-SNR, every curve at area 1, on a logarithmic axis.

    Args:
        axes: Where to draw.
        weights: Name → weight.
        target: Target of the weights that have no `target` of their own.
        log_snr: Grid [n], ascending, over which the area is taken.
        schedule: Training samples from its density p.

    Raises:
        InputError: no weight is positive and finite anywhere on the grid.
    """
    curves = {name: effective(weight, target, log_snr, schedule) for name, weight in weights.items()}
    ends = plot_curves(axes, curves, log_snr, "effective_weights")
    axes.set_ylabel("share of the objective per unit of log-SNR")
    label_line_ends(axes, ends)


@figure(
    "effective_weights",
    draws=WEIGHTS,
    group=Group.WEIGHTS,
    title="Weights and sampling together",
    caption="Where training puts its effort once noise levels are sampled, whichever target the loss "
    "is written on; every curve has area 1. Trainings whose curves agree minimise the same objective.",
    size=(5.6, 4.2),
)
def draw_effective_weights_of(axes: Axes, subject: tuple[Diagnosis, Mapping[str, Weight] | None]) -> None:
    """Effective weights of the given weights, or of every rule, under the density of a diagnosis.

    Raises:
        InputError: the diagnosis does not name its schedule, or there is nothing to draw.
    """
    diagnosis, tables = subject
    schedule = schedule_of(diagnosis)
    if schedule is None:
        raise InputError(
            "figure 'effective_weights'", expected="a diagnosis that names its schedule", got="none"
        )
    target = str(diagnosis.meta.get("config", {}).get("target", ""))
    draw_effective_weights(
        axes, tables or all_rules(target, schedule), target, weight_grid(diagnosis), schedule
    )


def effective(weight: Weight, target: str, log_snr: np.ndarray, schedule: Schedule) -> np.ndarray:
    """w_ε(λ)·p(λ) at area 1 over the grid [n]; NaN where the weight is not finite everywhere on it."""
    import torch

    from ntkdiag.weights.rules.effective import effective_of

    level = torch.tensor(log_snr, dtype=torch.float64)
    given = torch.from_numpy(evaluated(weight, log_snr))
    values = effective_of(given, getattr(weight, "target", target), schedule, level).numpy()
    area = np.trapezoid(values, log_snr)
    return values / area if np.isfinite(area) and area > 0 else np.full(len(values), np.nan)
