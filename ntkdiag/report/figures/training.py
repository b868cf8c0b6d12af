"""Training runs compared: loss at each noise level, never only its average, and loss over steps.

An average can hide that one noise level improved at the cost of another; these figures show each level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.columns import column, ordered, positive, require_finite
from ntkdiag.report.drawing import style
from ntkdiag.report.drawing.axes import log_axis, log_snr_axis
from ntkdiag.report.drawing.curves import draw_with_interval
from ntkdiag.report.drawing.labels import End, label_line_ends, line_end
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.formatting import one_line
from ntkdiag.report.inputs import RUNS
from ntkdiag.report.runs import Runs, bucket_losses, histories

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@figure(
    "bucket_loss",
    draws=RUNS,
    group=Group.TRAINING,
    title="Loss at each noise level",
    caption="Unweighted test loss of each run, so that runs trained with different weights can be compared.",
)
def draw_bucket_loss(axes: Axes, runs: Runs) -> None:
    """Loss per bucket of every run, with its interval.

    Raises:
        InputError: no run has a finite loss per bucket.
    """
    losses = bucket_losses(runs)
    require_finite("bucket_loss", *[np.concatenate([positive(column(t, "loss")) for t in losses.values()])])
    ends = []
    for name, look in style.lines(losses).items():
        table = losses[name]
        log_snr, loss = column(table, "log_snr"), positive(column(table, "loss"))
        low, high = positive(column(table, "loss_low")), positive(column(table, "loss_high"))
        draw_with_interval(axes, log_snr, loss, low, high, look=look)
        ends += line_end(name, log_snr, loss, look)
    log_axis(axes, "y")
    log_snr_axis(axes, _all_levels(losses))
    axes.set_ylabel("loss per dimension, not weighted")
    label_line_ends(axes, ends)


@figure(
    "loss_ratio",
    draws=RUNS,
    group=Group.TRAINING,
    title="Loss relative to the baseline at each noise level",
    caption="Below the line a run is better than the baseline at that noise level, above it worse: a "
    "gain on average can hide a loss at one end.",
)
def draw_loss_ratio(axes: Axes, runs: Runs) -> None:
    """Loss per bucket of each run over that of the baseline: below 1 is better.

    The baseline is the run named constant (or baseline, uniform), else the first. The interval treats the
    two losses as independent; for runs tested on the same draws it is too wide rather than too narrow.

    Raises:
        InputError: fewer than two runs, or no bucket in common.
    """
    losses = bucket_losses(runs)
    base = baseline(losses)
    others = {name: table for name, table in losses.items() if name != base}
    if not others:
        raise InputError("figure 'loss_ratio'", expected="at least two runs", got=f"one ({one_line(base)})")
    looks, ends, drawn = style.lines(losses), [], 0
    for name, table in others.items():
        log_snr, ratio, low, high = loss_ratio(table, losses[base])
        drawn += int(np.isfinite(ratio).sum())
        draw_with_interval(axes, log_snr, ratio, low, high, look=looks[name])
        ends += line_end(name, log_snr, ratio, looks[name])
    if not drawn:
        raise InputError("figure 'loss_ratio'", expected="buckets that two runs share", got="none")
    axes.axhline(1.0, color=looks[base].colour, lw=1.4)
    log_axis(axes, "y")
    log_snr_axis(axes, _all_levels(losses))
    axes.set_ylabel(f"← better    loss / loss of {one_line(base, 16)}    worse →", parse_math=False)
    label_line_ends(axes, [*ends, End(axes.get_xlim()[1], 1.0, base, looks[base])])


@figure(
    "history",
    draws=RUNS,
    group=Group.TRAINING,
    title="Training curves",
    caption="Unweighted loss averaged over noise levels as training samples them: thin is what was "
    "logged, thick its running mean. The figures by noise level show what each level gained.",
)
def draw_history(axes: Axes, runs: Runs) -> None:
    """Training loss over steps: what was logged, thin, and its running mean over a twentieth of the run, thick.

    Raises:
        InputError: no run has a finite loss over steps.
    """
    logs = histories(runs)
    require_finite("history", np.concatenate([positive(column(log, "loss")) for log in logs.values()]))
    ends = []
    for name, look in style.lines(logs).items():
        step, loss = column(logs[name], "step"), positive(column(logs[name], "loss"))
        smooth = running_mean(loss, max(1, len(loss) // 20))
        axes.plot(step, loss, color=look.colour, lw=0.7, alpha=0.3)
        axes.plot(step, smooth, **look.plot)
        ends += line_end(name, step, smooth, look)
    log_axis(axes, "y")
    axes.set_xlabel("training step")
    axes.set_ylabel("training loss, mean over noise levels")
    label_line_ends(axes, ends)


def baseline(runs: Mapping[str, object]) -> str:
    """The run that others are compared with: the one named constant, baseline or uniform, else the first."""
    return next((name for name in runs if style.known_thing(name) == "constant"), next(iter(runs)))


def loss_ratio(
    table: pd.DataFrame, base: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log-SNR, loss over the baseline's loss, and its interval, over the buckets both have.

    Half-widths of the two intervals are added in squares on the logarithmic scale.
    """
    both = ordered(table).merge(ordered(base), on="log_snr", suffixes=("", "_base"))
    ratio = positive(column(both, "loss")) / positive(column(both, "loss_base"))
    half = np.hypot(_half_width(both, ""), _half_width(both, "_base"))
    return column(both, "log_snr"), ratio, ratio * np.exp(-half), ratio * np.exp(half)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` neighbours [n], shorter at both ends, skipping NaN."""
    import pandas as pd

    return pd.Series(values).rolling(window, center=True, min_periods=1).mean().to_numpy()


def _all_levels(losses: Mapping[str, pd.DataFrame]) -> np.ndarray:
    return np.concatenate([column(table, "log_snr") for table in losses.values()])


def _half_width(both: pd.DataFrame, suffix: str) -> np.ndarray:
    """Half the width of ln loss."""
    low, high = positive(column(both, f"loss_low{suffix}")), positive(column(both, f"loss_high{suffix}"))
    return (np.log(high) - np.log(low)) / 2
