"""The order of the figures: the questions of the page one after the other, and the figures under each of them.

Only names stand here, so that the command line can list the figures without loading what draws them.
"""

from __future__ import annotations

from enum import Enum


class Group(Enum):
    """The questions under which figures stand, in the order of the page; the value is the heading.

    Example:
        >>> [group.name for group in nd.report.Group][-1]
        'APPENDIX'
    """

    RANK = "How many directions are left to learn in"
    STRENGTH = "How fast training can lower the loss"
    RECOVERABILITY = "Whether that follows what the input reveals about the target"
    COUPLING = "Whether noise levels help or disturb each other"
    FULL_KERNEL = "What the full kernel adds: each output by itself"
    WEIGHTS = "How training effort is spread over noise levels"
    TRAINING = "What training with these weights achieved"
    TRUST = "How far to trust this"
    CONTENT = "What the features and outputs do"
    APPENDIX = "More figures"


# The order within each group. A figure that is not listed comes last in its group.
ORDER = (
    "collapse",
    "effective_rank",
    "spectra",
    "spectrum_map",
    "rarefaction",
    "by_class",
    "trace",
    "top_eigenvalue",
    "profile",
    "recoverability",
    "loss",
    "excess",
    "gsnr",
    "kernel_coupling",
    "gradient_coupling",
    "full_rank",
    "full_density",
    "alignment",
    "contraction",
    "eigenfunctions",
    "weights",
    "effective_weights",
    "loss_ratio",
    "bucket_loss",
    "history",
    "quality",
    "samples",
    "linear_error",
    "drift",
    "feature_rank",
    "output_rank",
    "participation_ratio",
    "trace_x0",
)


def position(name: str, group: Group) -> tuple[int, int]:
    """Where a figure stands on the page, as a key to sort by: the place of its group, then its place within."""
    return list(Group).index(group), ORDER.index(name) if name in ORDER else len(ORDER)
