"""How fast training can lower the loss at each noise level: trace and top eigenvalue of the kernel."""

from __future__ import annotations

from ntkdiag.report.figure_order import Group
from ntkdiag.report.figures.summary_column import column_figure

column_figure(
    "trace",
    group=Group.STRENGTH,
    title="Trace of the kernel",
    caption="The rate at which gradient descent lowers the loss, summed over all directions: where it "
    "is low, the network learns slowly at that noise level.",
)
column_figure(
    "top_eigenvalue",
    group=Group.STRENGTH,
    title="Top eigenvalue",
    caption="The same rate in the single fastest direction: where it is low, even the easiest part of "
    "the target is learned slowly.",
)
column_figure(
    "trace_x0",
    group=Group.APPENDIX,
    title="Trace in units of x0",
    caption="The trace with the scale of the target divided out, so that networks that predict different targets can be "
    "compared at one noise level. Noise levels cannot be compared by it: this unit alone makes it change with the "
    "signal-to-noise ratio.",
)
