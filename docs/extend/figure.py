"""A figure of your own: how many directions training has removed at each noise level.

Import this file before you call `nd.report.write_page`, `save_figures` or `plot`; nothing else has to change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntkdiag.errors import InputError
from ntkdiag.report import Group, figure, inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag import Diagnosis


@figure(
    "rank_change",
    draws=inputs.DIAGNOSIS,
    group=Group.RANK,
    title="What training changed",
    caption="Effective rank after training minus before: below zero, training has removed directions.",
)
def draw_rank_change(axes: Axes, diagnosis: Diagnosis) -> None:
    """Effective rank of the trained network minus that of the untrained one, over log-SNR."""
    if "untrained" not in diagnosis.refs:
        raise InputError("figure 'rank_change'", expected="an untrained control", got="none")
    after, before = diagnosis.summary, diagnosis.refs["untrained"].summary
    axes.plot(after["log_snr"], after["effective_rank"] - before["effective_rank"], marker="o")
    axes.axhline(0, linewidth=0.9)
    axes.set_xlabel("log-SNR")
    axes.set_ylabel("change of the effective rank (directions)")
