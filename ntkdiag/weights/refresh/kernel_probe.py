"""The score that a `Refresher` measures during training: the kernel of the network on one fixed probe batch.

Every refresh uses the same data, noise and probe vectors, so that a change of the score comes from the network and
never from the draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntkdiag.conditions import repeated
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, require_one_of
from ntkdiag.kernel import CheckOnce, gram
from ntkdiag.process.buckets import Buckets, BucketsLike
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.recoverability import gradient_gain, gradient_signal, learnability
from ntkdiag.spectra import eigenpairs
from ntkdiag.spectra.dense.eigen import Array, Spectrum
from ntkdiag.weights.measured.scores import SCORES
from ntkdiag.weights.refresh.refresher import ScoreFunction

# Scores that change while a network learns; the others of `SCORES` are the same before and after training.
PROBED = ("learnability", "gsnr", "gain")
# k of the sketch: its error is below that of the one probe. Tuned here, on the digits DiT.
SKETCH = 16


def probe_score(
    denoiser: Denoiser,
    draws: PairedDraws,
    buckets: BucketsLike,
    score: str = "learnability",
    *,
    probes: int = 1,
    seed: int = 0,
    engine: str = "sketch",
    params: str | Sequence[str] | None = None,
    memory: int | None = None,
    sketch: int = SKETCH,
) -> ScoreFunction:
    """A function that measures `denoiser` in its state at the time of the call.

    learnability: share of the target that lies where the trace kernel is strong, L(κ) at the center of every
    bucket. κ is the median over buckets of the mean eigenvalue of the network that is passed, and stays
    fixed: a κ that followed the network would hide that the kernel as a whole weakens or grows. gsnr: the
    signal-to-noise ratio of single gradients, from the residual kernel. gain: by how much a step on the bucket lowers the
    whole objective for its noise, from the residual kernel of all buckets together. All enter as amplitudes, exactly as in
    `measured`.

    Args:
        denoiser: The network being trained; measured in evaluation mode, each module's own mode restored. For
            a run that resumes exactly, call this before the checkpoint is loaded, as for a fresh run.
        draws: Probe batch of N samples; 32 are enough to rank ten buckets (tuned here).
        buckets: Noise levels: `Buckets`, a count over the range in which the schedule trains, or edges.
        score: "learnability", "gsnr" or "gain".
        probes: Random ±1 vectors of the trace kernel, which only learnability uses. One is enough: on the digits DiT another
            draw of it moves the score by 2% (analysis/refresh), and each further one costs another backward.
        seed: Of those vectors.
        engine, params, memory: As in `gram`. The default takes all buckets in one sketched kernel, for less than half of
            what ten exact ones cost.
        sketch: k of the sketch. Its signs are the same at every refresh, as the probe vectors are. At the default a sketch
            moves the score by less than another probe or another batch does (analysis/refresh).

    Returns:
        () → (log-SNR of the buckets [B], amplitude ≥ 0 [B]), for a `Refresher`.

    Raises:
        InputError: unknown score, too few samples for it, a kernel of zero, or what `gram` refuses.

    Example:
        >>> from ntkdiag.weights.refresh.kernel_probe import probe_score
        >>> from ntkdiag.process.paired_draws import PairedDraws
        >>> score = probe_score(denoiser, PairedDraws.draw(data.train, 8, seed=0), 3)
        >>> [len(part) for part in score()]  # log-SNR and amplitude of three buckets
        [3, 3]
    """
    require_one_of("score of a refresh", score, PROBED)
    buckets = Buckets.of(buckets, denoiser.schedule)
    settings = {
        "seed": seed, "engine": engine, "params": params, "memory": memory, "check": CheckOnce(), "sketch": sketch,
    }  # fmt: skip
    batch = _ProbeBatch(denoiser, draws, buckets, settings)
    raw: Callable[[], list[float]]
    if score != "learnability":
        if len(draws) < 2:
            raise InputError("samples of the probe batch", expected=f"at least 2 for {score}", got=len(draws))
        raw = batch.gradient_signals if score == "gsnr" else batch.gains
    else:
        kappa = _scale(batch.spectra(probes))

        def raw() -> list[float]:
            return batch.learnabilities(batch.spectra(probes), kappa)

    log_snr = torch.tensor(buckets.centers, dtype=torch.float64)

    def measure() -> tuple[Tensor, Tensor]:
        return log_snr, SCORES[score].amplitude(torch.tensor(raw(), dtype=torch.float64))

    return measure


@dataclass(frozen=True)
class _ProbeBatch:
    """A network and the samples, noise and buckets on which it is measured."""

    denoiser: Denoiser
    draws: PairedDraws
    buckets: Buckets
    settings: dict[str, Any] = field(default_factory=dict)

    def spectra(self, probes: int) -> list[Spectrum]:
        """Eigenpairs of the trace kernel of every bucket."""
        return [eigenpairs(kernel) for kernel in self._kernels("trace", probes)]

    def learnabilities(self, spectra: list[Spectrum], kappa: float) -> list[float]:
        """L(κ) of the target, bucket by bucket."""
        denoiser, draws, found = self.denoiser, self.draws, []
        for level, spectrum in zip(self.buckets.centers, spectra, strict=True):
            assert spectrum.vectors is not None  # eigenpairs gives them
            _, wanted = denoiser.training_pair(draws.x0, draws.epsilon, level)
            signal = wanted.flatten(1).double().cpu().numpy()
            found.append(learnability(spectrum.values, spectrum.vectors, signal, kappa))
        return found

    def gradient_signals(self) -> list[float]:
        """Gradient signal-to-noise ratio, bucket by bucket."""
        return [gradient_signal(kernel).ratio for kernel in self._kernels("residual")]

    def gains(self) -> list[float]:
        """Gain, bucket by bucket, for the objective whose noise levels are drawn as the schedule does."""
        whole = self._kernel(self.buckets.centers, "residual")
        found: list[float] = gradient_gain(whole, self.buckets.mass(self.denoiser.schedule)).value.tolist()
        return found

    def _kernels(self, kernel: str, probes: int = 1) -> list[Array]:
        """The kernel of every bucket, [N, N]. A sketch, whose cost is linear in the samples, takes all buckets at once."""
        levels = self.buckets.centers
        if self.settings["engine"] != "sketch":
            return [self._kernel((level,), kernel, probes) for level in levels]
        whole, samples = self._kernel(levels, kernel, probes), len(self.draws)
        parts = [slice(b * samples, (b + 1) * samples) for b in range(len(levels))]
        return [whole[part, part] for part in parts]

    def _kernel(self, levels: Sequence[float], kernel: str, probes: int = 1) -> Array:
        """The kernel over the samples at all of these noise levels."""
        draws, count = self.draws, len(levels)
        found = gram(
            self.denoiser,
            torch.cat([draws.x0] * count),
            torch.tensor(levels, dtype=torch.float64).repeat_interleave(len(draws)),
            kernel=kernel,
            probes=probes,
            epsilon=torch.cat([draws.epsilon] * count),
            cond=repeated(self.denoiser.conditions_from(draws.cond), count) or None,
            **self.settings,
        )
        return found.matrix.numpy()


def _scale(spectra: list[Spectrum]) -> float:
    """κ: the median over buckets of the mean eigenvalue of K/N."""
    kappa = float(np.median([spectrum.values.mean() for spectrum in spectra]))
    if not kappa > 0:
        raise InputError(
            "kernel of the probe batch",
            expected="a network whose output depends on its weights",
            got="a kernel of zero in most buckets",
        )
    return kappa
