"""Evidence: what the test of a claim reads from a Diagnosis, on all samples and without some of them.

The same samples are left out in every bucket and in the untrained control, and both were measured with the same
probes, so that differences and trends are formed within pairs before their spread is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ntkdiag.diagnosis.result import Diagnosis
from ntkdiag.errors import InputError
from ntkdiag.spectra import Interval, Replicates, contrast_of_replicates
from ntkdiag.spectra.dense.eigen import Array
from ntkdiag.spectra.uncertainty.left_out import leave_out

CONTROL = "untrained"
MIN_BUCKETS, MIN_SAMPLES = 3, 8
MIN_PROBES = 3  # fewer say too little of the spread over probes


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that the test of a claim may look at.

    Attributes:
        log_snr: Bucket centres [B].
        amplitude: Recoverability R_y of each bucket [B].
        target: What the network predicts.
        controlled: Whether an untrained control was measured.
        seed: Seed of permutations.
        samples: Number of samples of a bucket, N.
        jackknifed: Statistic → one entry a bucket, those of the network before those of the control.
    """

    log_snr: Array
    amplitude: Array
    target: str
    controlled: bool
    seed: int
    samples: int
    jackknifed: dict[str, list[Replicates]]

    def replicates(self, statistic: str) -> list[Replicates]:
        """A statistic in every bucket, those of the network before those of the control.

        Raises:
            InputError: a statistic that no claim has declared.
        """
        if statistic not in self.jackknifed:
            raise InputError(
                "statistic of a claim",
                expected="one of " + ", ".join(self.jackknifed),
                got=repr(statistic),
                fix=f"Name it where the claim is registered: @claim(..., reads=['{statistic}']).",
            )
        return self.jackknifed[statistic]

    def logs(self, statistic: str) -> Array:
        """ln of a statistic in every bucket, minus that of the untrained control where there is one, [B]."""
        return self._net(np.array([bucket.value for bucket in self.replicates(statistic)]))

    def contrast(self, statistic: str, weights: Array) -> Interval:
        """Weighted sum of `logs` over buckets, with its 90% interval over samples and probes."""
        return contrast_of_replicates(
            self.replicates(statistic),
            lambda statistics: self._net(statistics) @ weights,
            samples=self.samples,
        )

    def _net(self, statistics: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):  # a kernel of zero is reported by the test
            logs = np.log(statistics)
            own, control = logs[..., : len(self.log_snr)], logs[..., len(self.log_snr) :]
            return own - control if self.controlled else own


def gather(diagnosis: Diagnosis, statistics: Iterable[str], *, seed: int) -> Evidence:
    """Collect the evidence from a diagnosis.

    Args:
        diagnosis: The measurement; its refs["untrained"], where there is one, is the control.
        statistics: Names of `ntkdiag.spectra.STATISTICS` that claims read.
        seed: Seed of permutations.

    Raises:
        InputError: too few buckets or samples, a control with other buckets or samples, or an unknown statistic.
    """
    summary, grams = diagnosis.summary, diagnosis.grams["trace"].numpy()
    buckets, samples = grams.shape[:2]
    if buckets < MIN_BUCKETS:
        raise InputError("buckets", expected=f"at least {MIN_BUCKETS}, to speak of a trend", got=buckets)
    if samples < MIN_SAMPLES:
        raise InputError("samples", expected=f"at least {MIN_SAMPLES} a bucket, for intervals", got=samples)
    networks = [diagnosis]
    if CONTROL in diagnosis.refs:
        networks.append(diagnosis.refs[CONTROL])
        if networks[1].grams["trace"].shape != diagnosis.grams["trace"].shape:
            raise InputError(
                f"reference '{CONTROL}'",
                expected=f"{buckets} buckets of {samples} samples, as the network's",
                got="kernels of shape " + str(list(networks[1].grams["trace"].shape)),
            )
    names = list(dict.fromkeys(statistics))
    found = [
        leave_out(names, gram, per_probe=probes)
        for network in networks
        for gram, probes in zip(network.grams["trace"].numpy(), _probes(networks, network), strict=True)
    ]
    return Evidence(
        log_snr=summary["log_snr"].to_numpy(dtype=float),
        amplitude=summary["amplitude"].to_numpy(dtype=float),
        target=str(diagnosis.meta["config"]["target"]),
        controlled=len(networks) > 1,
        seed=seed,
        samples=samples,
        jackknifed={name: [bucket[name] for bucket in found] for name in names},
    )


def _probes(networks: list[Diagnosis], network: Diagnosis) -> list[Array] | list[None]:
    """Per-probe kernels of every bucket; None where the networks differ in their number or have too few."""
    counts = {one.grams["per_probe"].shape[1] if "per_probe" in one.grams else 0 for one in networks}
    if len(counts) > 1 or min(counts) < MIN_PROBES:
        return [None] * len(network.grams["trace"])
    return list(network.grams["per_probe"].numpy())
