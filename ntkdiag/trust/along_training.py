"""`drift`: the kernel at the steps of a training run whose weights were kept, each compared with the last.

All steps are measured on the same samples, noise and probes, so differences are those of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ntkdiag.claims.effects import MIN_PROBES, MIN_SAMPLES, effects
from ntkdiag.claims.ends import ENDS, MIN_BUCKETS
from ntkdiag.claims.words import FALLS
from ntkdiag.conditions import Conditions
from ntkdiag.data import as_data
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.errors import InputError, require_int
from ntkdiag.kernel import CheckOnce, Gram, gram
from ntkdiag.process.buckets import DEFAULT_COUNT, Buckets, BucketsLike
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.spectra import (
    centred_alignment,
    effective_rank,
    eigenspace_overlap,
    eigenvalues,
    participation_ratio_pairs,
)
from ntkdiag.spectra.dense.centred import centred, shared_share
from ntkdiag.state_dicts import load_weights
from ntkdiag.train.checkpoints.run_folder import KEPT_FOLDER, kept_weights
from ntkdiag.train.network_state import copied

# Dimensions of the top eigenspace.
TOP = 4
# Whose fall at the ends of the log-SNR range is a collapse: of all directions, and of those that tell samples apart.
RANKS = ("effective_rank", "centred_effective_rank")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False, repr=False)
class Drift:
    """A kernel along a training run.

    Attributes:
        table: A row a step and bucket: step, bucket, log_snr; alignment (centred kernel alignment with the last step, 1: the
            same up to scale; NaN where either is zero), top_overlap (share of the last step's top eigenspace), trace,
            effective_rank, centred_effective_rank, participation_ratio_pairs, shared_share.
        ends: A row a step, rank and end of the log-SNR range: step, statistic, end, effect, low, high, word, as in
            `ntkdiag.claims.effects`; empty where buckets or samples are too few for intervals.
        samples, probes: N and R.

    Example:
        >>> import pandas as pd
        >>> nd.trust.Drift(pd.DataFrame({"step": [0, 0, 500, 500]}), pd.DataFrame(), samples=8, probes=3)
        Drift(steps=[0, 500])
    """

    table: pd.DataFrame
    ends: pd.DataFrame
    samples: int
    probes: int

    def __repr__(self) -> str:
        return f"Drift(steps={self.steps})"

    @property
    def steps(self) -> list[int]:
        """The measured steps."""
        return [int(step) for step in self.table["step"].unique()]

    @property
    def text(self) -> str:
        """What the numbers say, in plain sentences."""
        said = [_said_of_alignment(self.table, self.steps)]
        for statistic, name in zip(RANKS, ("The rank", "The centred rank"), strict=True):
            for end in ENDS:
                own = self.ends[(self.ends["statistic"] == statistic) & (self.ends["end"] == end)]
                if len(own):
                    when = when_it_falls(own["step"].tolist(), own["word"].tolist())
                    said.append(f"{name} at the {end} end {when}.")
        return " ".join(said)


def drift(
    run: Path | str | Mapping[int, Path | str],
    denoiser: Denoiser,
    data: DataLike,
    *,
    buckets: BucketsLike = DEFAULT_COUNT,
    samples: int = 64,
    probes: int = 8,
    most: int | None = None,
    seed: int = 0,
    engine: str = "auto",
    progress: Progress | None = None,
) -> Drift:
    """Measure the kernel at every step whose weights a run kept.

    Args:
        run: The folder of a run trained with `keep_every`, or files of weights by step.
        denoiser: A network of the same kind; its own weights are neither used nor changed.
        data, buckets, samples, probes, seed, engine: As in `measure`.
        most: Kept steps that are measured, at most: the first, the last, and others evenly between; None takes all.
        progress: Called with (description of the work, steps done, steps in total).

    Returns:
        `Drift`.

    Raises:
        InputError: no kept weights, fewer than two steps, weights that do not fit, or as `measure`.
        MeasurementError: as `measure`.

    Example:
        >>> config = nd.train.TrainConfig(steps=20, batch=16, keep_every=10)
        >>> result = nd.train.train(denoiser, data, None, config, out="run")
        >>> found = nd.trust.drift("run", result.denoiser, data, buckets=3, samples=8, probes=3)
        >>> found.steps
        [0, 10, 20]
        >>> found.table.loc[found.table["step"] == 20, "alignment"].round(6).tolist()
        [1.0, 1.0, 1.0]
    """
    require_denoiser("network", denoiser)
    require_int("samples", samples, at_least=2)
    require_int("probes", probes, at_least=1)
    files = _files(run)
    if most is not None:
        files = _thinned(files, require_int("most", most, at_least=2))
    given = as_data(data)
    levels = Buckets.of(buckets, denoiser.schedule, extrapolate=False)
    draws = PairedDraws.draw(given.train, samples, seed, cond=given.conditions)
    own = copied(denoiser)
    cond = own.conditions_from(draws.cond)
    measured: dict[int, list[Gram]] = {}
    report = progress or (lambda stage, done, total: None)
    for done, (step, file) in enumerate(files.items()):
        report("kernels along training", done, len(files))
        load_weights(own, file)
        measured[step] = _kernels(own, draws, levels, cond, probes, seed, engine)
    report("kernels along training", len(files), len(files))
    last = measured[max(measured)]
    rows = [
        {"step": step, "bucket": bucket, "log_snr": center, **_numbers(found[bucket], last[bucket])}
        for step, found in measured.items()
        for bucket, center in enumerate(levels.centers)
    ]
    return Drift(pd.DataFrame(rows), _ends(measured, levels), samples, probes)


def _files(run: Path | str | Mapping[int, Path | str]) -> dict[int, Path]:
    """Files of weights by step, in the order of steps."""
    if isinstance(run, Mapping):
        found = {int(step): Path(file) for step, file in sorted(run.items())}
    else:
        if not Path(run).is_dir():
            raise InputError("run", expected="the folder of a training run", got=str(run))
        found = kept_weights(run)
    if len(found) < 2:
        raise InputError(
            f"kept weights in {run}" if not isinstance(run, Mapping) else "run",
            expected="weights of at least two steps",
            got=f"{len(found)} in {KEPT_FOLDER}/" if not isinstance(run, Mapping) else str(len(found)),
            fix="Train with {keep_every}, and they are kept along the way.",
            arguments={"keep_every": 500},
        )
    return found


def _thinned(files: dict[int, Path], most: int) -> dict[int, Path]:
    """The first, the last, and others evenly between."""
    steps = list(files)
    places = np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))
    return {steps[place]: files[steps[place]] for place in places}


def _kernels(
    denoiser: Denoiser,
    draws: PairedDraws,
    levels: Buckets,
    cond: Conditions,
    probes: int,
    seed: int,
    engine: str,
) -> list[Gram]:
    """The trace kernel of each bucket."""
    check = CheckOnce()
    place = next(denoiser.parameters())
    x0, noise = draws.x0.to(place), draws.epsilon.to(place)
    return [
        gram(
            denoiser, x0, center, probes=probes, seed=seed, epsilon=noise, cond=cond or None, engine=engine, check=check
        )
        for center in levels.centers
    ]  # fmt: skip


def _numbers(found: Gram, last: Gram) -> dict[str, float]:
    matrix, final = found.matrix.numpy(), last.matrix.numpy()
    left = centred(matrix)
    return {
        "alignment": centred_alignment(matrix, final),
        "top_overlap": eigenspace_overlap(matrix, final, min(TOP, len(matrix))),
        "trace": float(np.diagonal(matrix).mean()),
        "effective_rank": effective_rank(eigenvalues(matrix)),
        "centred_effective_rank": effective_rank(eigenvalues(left)),
        "participation_ratio_pairs": participation_ratio_pairs(matrix),
        "shared_share": float(shared_share(matrix)),
    }


def _ends(measured: Mapping[int, list[Gram]], levels: Buckets) -> pd.DataFrame:
    """Whether the ranks fall at the ends of the range, at every step."""
    columns = ["step", "statistic", "end", "effect", "low", "high", "word"]
    first = next(iter(measured.values()))
    few = len(levels) < MIN_BUCKETS or len(first[0].matrix) < MIN_SAMPLES
    if few or (first[0].per_probe is not None and len(first[0].per_probe) < MIN_PROBES):
        return pd.DataFrame(columns=columns)
    tables = []
    for step, found in measured.items():
        grams = torch.stack([one.matrix for one in found])
        probes = [one.per_probe for one in found if one.per_probe is not None]
        table = effects(
            np.array(levels.centers),
            grams.numpy(),
            torch.stack(probes).numpy() if len(probes) == len(found) else None,
            statistics=RANKS,
        ).frame()
        tables.append(table.assign(step=step)[columns])
    return pd.concat(tables, ignore_index=True)


def when_it_falls(steps: Sequence[int], words: Sequence[str]) -> str:
    """When a fall appears and whether it stays, of the words at the steps in order.

    Example:
        >>> when_it_falls([0, 300, 3000], ["absent", "falls", "absent"])
        'falls from step 300 on; at step 3,000: absent'
    """
    falling = [step for step, word in zip(steps, words, strict=True) if word == FALLS]
    final, last = steps[-1], words[-1]
    if not falling:
        return f"falls at no measured step; at step {final:,}: {last}"
    since = f"falls from step {falling[0]:,} on"
    if last != FALLS:
        return f"{since}; at step {final:,}: {last}"
    gaps = len([step for step in steps if step > falling[0]]) != len(falling) - 1
    return f"{since} and at the last one" + (", but not at every step between" if gaps else "")


def _said_of_alignment(table: pd.DataFrame, steps: list[int]) -> str:
    """The alignment of the first kernel and of the last but one with the last."""
    said = []
    for step in dict.fromkeys((steps[0], steps[-2])):
        found = table.loc[table["step"] == step, "alignment"].dropna()
        if len(found):
            said.append(f"at step {step:,} {found.min():.2f} to {found.max():.2f}")
    if not said:
        return "No kernel to compare: it is zero."
    return f"Alignment with the kernel of step {steps[-1]:,}, by noise level (1: the same kernel): {', '.join(said)}."
