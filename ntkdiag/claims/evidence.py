"""Evidence: what a claim reads of a diagnosis, once the effects of the network and of its controls are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntkdiag.claims.control_band import ControlBand, control_band
from ntkdiag.claims.effects import EffectTable, effect_values, effects
from ntkdiag.claims.ends import ENDS
from ntkdiag.diagnosis.controls import controls_of
from ntkdiag.diagnosis.result import Diagnosis
from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """Everything that the answer to a claim may look at.

    Attributes:
        diagnosis: What was measured.
        effects: Of every statistic that some claim reads, at both ends, with limits that hold for all of them together.
        bands: (statistic, end) → the same effect in fresh networks.
        kept: Which buckets enter, [B]: those at noise levels that training sees.

    Example:
        >>> from ntkdiag.claims.evidence import gather
        >>> evidence = gather(diagnosis, ["trace"])  # as a claim that reads the trace is given it
        >>> evidence.word("trace", "noisy"), evidence.controls
        ('absent', 0)
    """

    diagnosis: Diagnosis
    effects: EffectTable
    bands: Mapping[tuple[str, str], ControlBand]
    kept: NDArray[np.bool_]

    @property
    def kept_summary(self) -> pd.DataFrame:
        """Rows of the summary at noise levels that training sees, from noisy to clean."""
        return self.diagnosis.summary[self.kept].sort_values("log_snr", ignore_index=True)

    @property
    def controls(self) -> int:
        """Number of fresh networks."""
        return max((band.controls for band in self.bands.values()), default=0)

    def word(self, statistic: str, end: str) -> str:
        """falls, rises, absent or cannot say.

        Raises:
            InputError: a statistic that no claim has declared.
        """
        if statistic not in self.effects.replicates:
            raise InputError(
                "statistic of a claim",
                expected="one of " + ", ".join(self.effects.replicates),
                got=repr(statistic),
                fix=f"Name it where the claim is registered: @claim(..., reads=['{statistic}']).",
            )
        return self.effects[statistic, end].word


def gather(diagnosis: Diagnosis, statistics: Iterable[str]) -> Evidence:
    """Collect the evidence from a diagnosis.

    Args:
        diagnosis: Its refs "untrained", "untrained 2", … are the controls.
        statistics: Names of `ntkdiag.spectra.STATISTICS` that claims read.

    Raises:
        InputError: too few buckets or samples, a control with other buckets or samples, or an unknown statistic.
    """
    names = list(dict.fromkeys(statistics))
    kept = kept_buckets(diagnosis)
    levels = diagnosis.summary.loc[kept, "log_snr"].to_numpy(dtype=float)
    found = effects(levels, *kept_kernels(diagnosis, kept), statistics=names)
    controls = [
        effect_values(levels, *kept_kernels(control, kept), statistics=names)
        for control in comparable_controls(diagnosis)
    ]
    bands = {
        (name, end): control_band(found[name, end].effect, [one[name, end] for one in controls])
        for name in names
        for end in ENDS
    }
    return Evidence(diagnosis, found, bands, kept)


def kept_buckets(diagnosis: Diagnosis) -> NDArray[np.bool_]:
    """Which buckets lie at noise levels that training sees, [B]."""
    summary = diagnosis.summary
    if "extrapolated" not in summary:
        return np.ones(len(summary), bool)
    kept: NDArray[np.bool_] = ~summary["extrapolated"].to_numpy(dtype=bool)
    return kept


def kept_kernels(diagnosis: Diagnosis, kept: NDArray[np.bool_]) -> tuple[Array, Array | None]:
    """Trace kernels of the kept buckets, and the same by probe where they are estimates."""
    grams = diagnosis.grams
    probes = grams["per_probe"].numpy()[kept] if "per_probe" in grams else None
    return grams["trace"].numpy()[kept], probes


def comparable_controls(diagnosis: Diagnosis) -> list[Diagnosis]:
    """The fresh networks of a diagnosis, in order.

    Raises:
        InputError: one was measured at other buckets or on another number of samples.
    """
    trace = diagnosis.grams["trace"]
    found = controls_of(diagnosis.refs)
    for name, control in found.items():
        if control.grams["trace"].shape != trace.shape:
            raise InputError(
                f"reference '{name}'",
                expected=f"{trace.shape[0]} buckets of {trace.shape[1]} samples, as the network's",
                got="kernels of shape " + str(list(control.grams["trace"].shape)),
            )
    return list(found.values())
