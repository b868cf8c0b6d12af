"""How much the noisy input still reveals about the target, and whether the measured rank follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.columns import column, ordered, require_finite
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.axes import log_axis, log_snr_axis, whole_ticks
from ntkdiag.report.drawing.curves import MOST_MARKED, draw_lines
from ntkdiag.report.drawing.labels import label_line_ends, label_points
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.formatting import level, number
from ntkdiag.report.inputs import DIAGNOSIS
from ntkdiag.report.statistics import STATISTICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

# Column of the summary → short name
SCORES = {
    "amplitude": "amplitude",
    "bayes_share": "Bayes share",
    "learnability": "learnability",
    "gsnr": "gradient SNR",
}

# Scores that are estimates from gradients: nothing without their intervals, which are drawn.
UNCERTAIN = ("gsnr",)


def scores_present(diagnosis: Diagnosis) -> list[str]:
    """Names of the recoverability scores that have a finite value in some bucket, and an interval where they need one.

    Raises:
        InputError: there is none.
    """
    present = [
        name
        for name in SCORES
        if np.isfinite(column(diagnosis.summary, f"{name}_low" if name in UNCERTAIN else name)).any()
    ]
    if not present:
        raise InputError(
            "recoverability", expected="a score with a finite value: " + ", ".join(SCORES), got="none"
        )
    return present


@figure(
    "profile",
    draws=DIAGNOSIS,
    group=Group.RECOVERABILITY,
    title="Recoverability and rank over noise levels",
    caption="Thin lines show how much the noisy input still reveals about the target; the thick line is the measured rank. "
    "Smooth curves over noise levels often run alike by themselves, so one network cannot show that its rank follows "
    "recoverability (claim C3). Where the share is a bound from the network's own loss, it is not independent of its rank.",
)
def draw_profile(axes: Axes, diagnosis: Diagnosis) -> None:
    """Scores that lie between 0 and 1 over log-SNR, and the effective rank as a share of its largest value.

    Raises:
        InputError: no score has a finite value.
    """
    summary = ordered(diagnosis.summary)
    log_snr = column(summary, "log_snr")
    rank = column(summary, "effective_rank")
    curves = {SCORES[name]: column(summary, name) for name in scores_present(diagnosis) if name != "gsnr"}
    if np.isfinite(rank).any():
        curves["effective rank / largest"] = rank / np.nanmax(rank)
    drawn = style.lines(curves) | {"effective rank / largest": style.emphasised(style.line("trained"))}
    lines = {name: (log_snr, values) for name, values in curves.items()}
    ends = draw_lines(axes, lines, drawn, marker_size=4 if len(log_snr) <= MOST_MARKED else 2)
    axes.set_ylim(-0.03, max(1.03, axes.get_ylim()[1]))
    axes.set_ylabel("share, from 0 to 1")
    log_snr_axis(axes, log_snr)
    label_line_ends(axes, ends)


@figure(
    "recoverability",
    draws=DIAGNOSIS,
    group=Group.RECOVERABILITY,
    title="Recoverability against measured rank",
    caption="One point a noise level, labelled by its log-SNR. Points that climb from left to right mean that the rank is "
    "low where the target is hard to recover, in this network; not that it is low because of that (claim C3).",
    panels=scores_present,
)
def draw_against_rank(axes: Axes, diagnosis: Diagnosis, score: str) -> None:
    """One point a bucket: a recoverability score across, the measured effective rank up.

    Args:
        axes: Where to draw.
        diagnosis: What was measured.
        score: A name in `SCORES`.

    Raises:
        InputError: no bucket has both numbers, with an interval where the score needs one.
    """
    summary = ordered(diagnosis.summary)
    values, rank = column(summary, score), column(summary, "effective_rank")
    known = [column(summary, score + end) for end in ("_low", "_high")] if score in UNCERTAIN else []
    require_finite(f"recoverability of {score}", values, rank, *known)
    both = np.isfinite(np.stack([values, rank, *known])).all(0)
    log_snr, values, rank = column(summary, "log_snr")[both], values[both], rank[both]
    low, high = column(summary, "effective_rank_low")[both], column(summary, "effective_rank_high")[both]
    colours = style.log_snr_map(log_snr).to_rgba(log_snr)
    axes.plot(values, rank, color=theme.current().grid, lw=1.2, zorder=1)
    axes.vlines(values, low, high, color=colours, lw=1.2, zorder=2)
    if known:
        axes.hlines(rank, *(end[both] for end in known), color=colours, lw=1.2, zorder=2)
    axes.scatter(values, rank, c=colours, s=34, zorder=3, edgecolors=theme.current().ink, linewidths=0.5)
    axes.margins(x=0.12)
    if known and all((end[both] > 0).all() for end in known):
        log_axis(axes, "x")
    axes.set_ylim(bottom=0)
    whole_ticks(axes)
    axes.set_xlabel(STATISTICS[score].label)
    axes.set_ylabel("effective rank (directions)")
    if not known:  # the order of values that are mostly noise says nothing
        axes.set_title(_agreement(values, rank))
    label_points(axes, values, rank, [level(value) for value in log_snr], (low, high))


def _agreement(score: np.ndarray, rank: np.ndarray) -> str:
    """Spearman's correlation as text; empty below three points, where it means nothing."""
    if len(score) < 3 or np.ptp(score) == 0 or np.ptp(rank) == 0:
        return ""
    from scipy.stats import spearmanr

    return f"rank correlation {number(spearmanr(score, rank).statistic, 2)} over {len(score)} noise levels"
