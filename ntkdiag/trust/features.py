"""`features`: how many directions a network's activations have at every noise level, and what can be read from them.

Beside them stand the same modules of an untrained network, and the noisy input itself: what they do is no collapse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.claims.effects import MIN_SAMPLES, effects
from ntkdiag.claims.ends import ENDS, MIN_BUCKETS
from ntkdiag.claims.words import FALLS
from ntkdiag.data import as_data
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.errors import InputError, require_int
from ntkdiag.process.buckets import DEFAULT_COUNT, Buckets, BucketsLike
from ntkdiag.process.log_snr import level_like
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.spectra import centred_alignment, effective_rank, eigenvalues
from ntkdiag.spectra.dense.centred import centred
from ntkdiag.spectra.dense.rank_formulas import effective_rank as entropy_rank
from ntkdiag.trust.activations import activations, chosen_modules

TRAINED, UNTRAINED, INPUT = "trained", "untrained", "input"
RANK = "centred_effective_rank"
FOLDS = 5

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Activations at every noise level.

    Attributes:
        table: A row a network ("trained", "untrained", "input"), module and bucket: network, module, bucket, log_snr, width
            (numbers a sample), rankme (exp of the entropy of the singular values, Garrido et al. 2023),
            centred_effective_rank (of the eigenvalues of the centred Gram matrix), cka_clean (centred alignment with x0),
            probe and probe_stderr (accuracy of a linear classifier on held-out folds; NaN without labels, or where the
            network is given them).
        between: network, module, log_snr_a, log_snr_b, cka: features at one noise level against those at another.
        ends: A row a network, module and end: whether the centred effective rank falls there; see `ntkdiag.claims.effects`.
        samples: N.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"module": ["blocks.0", "blocks.1"]})
        >>> nd.trust.Features(table, between=pd.DataFrame(), ends=pd.DataFrame(), samples=16)
        Features(modules=2, samples=16)
    """

    table: pd.DataFrame
    between: pd.DataFrame
    ends: pd.DataFrame
    samples: int

    def __repr__(self) -> str:
        return f"Features(modules={self.table['module'].nunique()}, samples={self.samples})"

    @property
    def text(self) -> str:
        """What the numbers say, in plain sentences."""
        own = self.ends[self.ends["network"] == TRAINED]
        said = []
        for end in ENDS:
            rows = own[own["end"] == end]
            fallen = rows.loc[rows["word"] == FALLS, "module"].tolist()
            if len(rows):
                counts = ", ".join(f"{number} {word}" for word, number in rows["word"].value_counts().items())
                said.append(_said_of_end(end, fallen, len(rows), counts, self.ends))
        return " ".join(said) or "Too few samples or noise levels to say whether features lose rank."


def features(
    denoiser: Denoiser,
    data: DataLike,
    patterns: str | Sequence[str] | None = None,
    *,
    buckets: BucketsLike = DEFAULT_COUNT,
    samples: int = 128,
    seed: int = 0,
    untrained: Denoiser | None = None,
) -> Features:
    """Measure the activations of a network at every noise level.

    Args:
        denoiser: The network.
        data: As in `measure`. Its class labels, if it has any, are what a linear classifier reads from the features.
        patterns: Which modules, by name ("blocks.*"); None takes the parts of the network, but
            those that give all samples the same, as parts that see the noise level alone do.
        buckets, samples, seed: As in `measure`.
        untrained: A fresh network of the same kind, as a control.

    Returns:
        `Features`.

    Raises:
        InputError: a pattern that matches nothing, modules whose output has no row a sample, or as `measure`.

    Example:
        >>> found = nd.trust.features(denoiser, data, "layers.*", buckets=3, samples=16)
        >>> found.table["module"].unique().tolist()
        ['layers.0', 'layers.1', 'layers.2', '']
    """
    require_denoiser("network", denoiser)
    require_int("samples", samples, at_least=2)
    given = as_data(data)
    levels = Buckets.of(buckets, denoiser.schedule, extrapolate=False)
    draws = PairedDraws.draw(given.train, samples, seed, cond=given.conditions)
    labels = None if given.labels is None or draws.rows is None else given.labels[draws.rows].numpy()
    clean = _gram(draws.x0.double().cpu().flatten(1).numpy())
    networks = {TRAINED: denoiser} | ({} if untrained is None else {UNTRAINED: untrained})
    rows: list[dict[str, Any]] = []
    grams: dict[tuple[str, str], list[Array]] = {}
    for network, one in networks.items():
        for bucket, found in enumerate(_per_bucket(one, draws, levels, patterns)):
            if network != TRAINED:
                found.pop("", None)
            for module, values in found.items():
                kind = network if module else INPUT
                told = labels if kind == INPUT or "label" not in one.conditions else None
                gram = _gram(values)
                grams.setdefault((kind, module), []).append(gram)
                place = {
                    "network": kind,
                    "module": module,
                    "bucket": bucket,
                    "log_snr": levels.centers[bucket],
                }
                rows.append(place | _numbers(values, gram, clean, told, seed))
    if patterns is None:
        rows, grams = _that_differ(rows, grams)
    return Features(pd.DataFrame(rows), _between(grams, levels), _ends(grams, levels), samples)


def _that_differ(
    rows: list[dict[str, Any]], grams: dict[tuple[str, str], list[Array]]
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], list[Array]]]:
    """Without modules that give all samples the same at every noise level: those that see the noise level alone."""
    told_apart = {key: any(centred(one).any() for one in found) for key, found in grams.items()}
    kept = {module for (kind, module), differs in told_apart.items() if differs and kind != UNTRAINED}
    left = [row for row in rows if row["module"] in kept]
    return left, {key: found for key, found in grams.items() if key[1] in kept}


def _per_bucket(
    denoiser: Denoiser, draws: PairedDraws, levels: Buckets, patterns: str | Sequence[str] | None
) -> list[dict[str, Array]]:
    """Features by module at every noise level, and the noisy input under ""."""
    modules = chosen_modules(denoiser.network, patterns)
    place = next(denoiser.parameters())
    cond = denoiser.conditions_from(draws.cond)
    found = []
    for center in levels.centers:
        x = draws.at(denoiser.schedule, center).to(place)
        inputs = denoiser.inputs(x, level_like(center, place).expand(len(x)), cond or None)
        kept: dict[str, Tensor] = activations(denoiser, modules, inputs)
        if not kept:
            raise InputError(
                "patterns",
                expected="modules whose output is a tensor with a row a sample",
                got="none of them",
            )
        found.append(
            {name: values.numpy() for name, values in (kept | {"": x.double().cpu().flatten(1)}).items()}
        )
    return found


def _gram(values: Array) -> Array:
    """X Xᵀ / F, [N, N]."""
    gram: Array = values @ values.T / values.shape[1]
    return (gram + gram.T) / 2


def _numbers(values: Array, gram: Array, clean: Array, labels: Any, seed: int) -> dict[str, float]:
    accuracy, error = (float("nan"),) * 2 if labels is None else probe(gram, labels, seed)
    return {
        "width": values.shape[1],
        "rankme": rankme(gram),
        RANK: effective_rank(eigenvalues(centred(gram))),
        "cka_clean": centred_alignment(gram, clean),
        "probe": accuracy,
        "probe_stderr": error,
    }


def rankme(gram: Array) -> float:
    """exp of the entropy of the singular values √e of the features behind a Gram matrix (Garrido et al. 2023).

    Example:
        >>> round(rankme(np.diag([4.0, 4.0, 0.0])), 6)
        2.0
    """
    values = eigenvalues(gram).values
    kept = np.where(values > len(gram) * np.finfo(float).eps * values[0], values, 0.0)
    return float(entropy_rank(np.sqrt(kept)))


def probe(gram: Array, labels: NDArray[np.int64], seed: int = 0) -> tuple[float, float]:
    """Accuracy of a linear classifier on folds that it was not fitted on, and its standard error.

    A ridge classifier on the centred features, whose penalty each fit chooses itself. It needs their inner products alone.

    Args:
        gram: [N, N].
        labels: [N].
        seed: Of the folds.

    Returns:
        NaN, NaN where a class has fewer samples than there are folds, or there is one class.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < FOLDS:
        return float("nan"), float("nan")
    values, vectors = np.linalg.eigh(centred(gram))
    coordinates = vectors * np.sqrt(np.clip(values, 0, None))
    size = np.sqrt(np.square(coordinates).sum(1).mean())
    if not size > 0:
        return float(counts.max() / counts.sum()), 0.0
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = RidgeClassifierCV(alphas=np.logspace(-4, 2, 7))
    right = cross_val_predict(model, coordinates / size, labels, cv=folds) == labels
    return float(right.mean()), float(right.std() / np.sqrt(len(right)))


def _between(grams: dict[tuple[str, str], list[Array]], levels: Buckets) -> pd.DataFrame:
    rows = [
        {
            "network": network,
            "module": module,
            "log_snr_a": levels.centers[a],
            "log_snr_b": levels.centers[b],
            "cka": centred_alignment(found[a], found[b]),
        }
        for (network, module), found in grams.items()
        for a in range(len(found))
        for b in range(a + 1)
    ]
    return pd.DataFrame(rows)


def _ends(grams: dict[tuple[str, str], list[Array]], levels: Buckets) -> pd.DataFrame:
    columns = ["network", "module", "end", "middle", "at_end", "effect", "low", "high", "word"]
    tables = []
    for (network, module), found in grams.items():
        if len(found) < MIN_BUCKETS or len(found[0]) < MIN_SAMPLES:
            continue
        table = effects(np.array(levels.centers), np.stack(found), statistics=[RANK]).frame()
        tables.append(table.assign(network=network, module=module)[columns])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _said_of_end(end: str, fallen: list[str], count: int, counts: str, ends: pd.DataFrame) -> str:
    if not fallen:
        return f"At the {end} end no module is found to lose rank against the middle ({counts})."
    others = ends[(ends["end"] == end) & (ends["word"] == FALLS)]
    too = [kind for kind in (UNTRAINED, INPUT) if kind in set(others["network"])]
    also = f", as happens in the {' and the '.join(_WORDS[kind] for kind in too)}" if too else ""
    verb = "loses" if len(fallen) == 1 else "lose"
    return f"At the {end} end {len(fallen)} of {count} modules {verb} rank against the middle ({', '.join(fallen)}){also}."


_WORDS = {UNTRAINED: "untrained network", INPUT: "noisy input itself"}
