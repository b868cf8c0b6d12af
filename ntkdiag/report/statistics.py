"""How each statistic of the summary is drawn: the label of its axis, with units, and its scale."""

from __future__ import annotations

from typing import NamedTuple

from ntkdiag.report.drawing.curves import Scale


class Axis(NamedTuple):
    """The vertical axis of a statistic."""

    label: str
    scale: Scale = "count"


_DIRECTIONS = "(directions)"
_A_SAMPLE = "/ samples"

STATISTICS: dict[str, Axis] = {
    "loss": Axis("mean squared error, per dimension", "log"),
    "trace": Axis(f"trace of the kernel {_A_SAMPLE}", "log"),
    "top_eigenvalue": Axis(f"top eigenvalue of the kernel {_A_SAMPLE}", "log"),
    "effective_rank": Axis(f"effective rank {_DIRECTIONS}"),
    "participation_ratio_pairs": Axis(f"participation ratio, from pairs {_DIRECTIONS}"),
    "participation_ratio": Axis(f"participation ratio {_DIRECTIONS}"),
    "stable_rank": Axis(f"stable rank {_DIRECTIONS}"),
    "numerical_rank": Axis(f"numerical rank {_DIRECTIONS}"),
    "decay_exponent": Axis("exponent of the eigenvalues' decay", "signed"),
    "shared_share": Axis("share of the trace in which all samples move together", "linear"),
    "centred_trace": Axis(f"trace of the centred kernel {_A_SAMPLE}", "log"),
    "centred_top_eigenvalue": Axis(f"top eigenvalue of the centred kernel {_A_SAMPLE}", "log"),
    "centred_effective_rank": Axis(f"effective rank of the centred kernel {_DIRECTIONS}"),
    "centred_participation_ratio_pairs": Axis(f"participation ratio of the centred kernel {_DIRECTIONS}"),
    "input_effective_rank": Axis(f"effective rank of the inputs {_DIRECTIONS}"),
    "top8_energy": Axis("share of the trace in eight eigenvalues", "linear"),
    "negative_mass": Axis("share of negative eigenvalues", "linear"),
    "trace_x0": Axis("trace of the kernel in units of x0", "log"),
    "amplitude": Axis("amplitude of the target in the input", "linear"),
    "bayes_share": Axis("recoverable share of the target's variance", "linear"),
    "bayes_share_estimate": Axis("recovered share of the target's variance", "linear"),
    "learnability": Axis("learnability of the target by the kernel", "linear"),
    "floor": Axis("loss that no training removes, per dimension", "log"),
    "excess": Axis("loss above the floor, per dimension", "log"),
    "half_life": Axis("half-life of the residual (gradient-flow time, 1/e)", "log"),
    "gsnr": Axis("gradient signal / noise, per sample", "signed"),
    "gain": Axis("fall of the objective / gradient energy", "signed"),
    "contamination": Axis("share of gradient energy that is Bayes noise", "linear"),
    "contamination_finite": Axis("share of gradient energy that is noise, finite data", "linear"),
}
