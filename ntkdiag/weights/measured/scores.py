"""Scores: columns of a diagnosis, each turned into an amplitude that weights can be proportional to.

The ERD weight is proportional to a root-mean-square amplitude. A score that is a share of variance or of energy
therefore enters as its square root, so that all scores are on the amplitude's scale, powers mean the same for each,
and a product of scores is a product of amplitudes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_one_of


@dataclass(frozen=True)
class Score:
    """A column of a diagnosis' summary.

    Attributes:
        column: Its name; `<column>_low` and `<column>_high` are its interval.
        amplitude: From the column to an amplitude ≥ 0; monotone.
        sound: Which values an exact measurement could have; an estimate outside counts as the nearest of them.
        remedy: What to do where it could not be measured.
    """

    column: str
    amplitude: Callable[[Tensor], Tensor]
    sound: Callable[[Tensor], Tensor]
    remedy: str = "Measure again with more samples, or use {score}, which needs none."


def amplitude_of_share(share: Tensor) -> Tensor:
    """√ρ for a share ρ of variance or energy; an estimate below zero counts as zero."""
    return share.clamp(min=0).sqrt()


def amplitude_of_ratio(ratio: Tensor) -> Tensor:
    """√(g/(1 + g)) for a signal-to-noise ratio g: the root of the signal's share of all energy."""
    signal = ratio.clamp(min=0)
    return amplitude_of_share(signal / (1 + signal))


def amplitude_of_rest(share: Tensor) -> Tensor:
    """√(1 − c) for the share c of gradient energy that is noise; an estimate above one counts as one."""
    return amplitude_of_share(1 - share)


def _not_negative(values: Tensor) -> Tensor:
    return values >= 0


SCORES = {
    "amplitude": Score("amplitude", lambda amplitude: amplitude.clamp(min=0), _not_negative),
    "bayes": Score("bayes_share", amplitude_of_share, _not_negative),
    "learnability": Score("learnability", amplitude_of_share, _not_negative),
    "gsnr": Score("gsnr", amplitude_of_ratio, _not_negative),
    # A weight already, not a share of energy: no root is taken, so that power 1 gives the weights that it says are best.
    "gain": Score("gain", lambda gain: gain.clamp(min=0), _not_negative),
    "contamination": Score(
        "contamination",
        amplitude_of_rest,
        lambda share: share <= 1,
        "It needs data whose posterior is known exactly, such as the mixture; use another score.",
    ),
}


@dataclass(frozen=True)
class Amplitudes:
    """A score or a product of scores as amplitudes, bucket by bucket.

    Attributes:
        value: ≥ 0 [B].
        low, high: Their interval [B], or None.
        out_of_range: Where an estimate was outside its possible range [B].
        exact: Factors of a product that have no interval and were taken as exact.
    """

    value: Tensor
    low: Tensor | None
    high: Tensor | None
    out_of_range: Tensor
    exact: tuple[str, ...]


def factors(score: str) -> tuple[str, ...]:
    """The scores of a product such as "bayes*gsnr", or of one score alone.

    Raises:
        InputError: a name that is no score, or one that comes twice.
    """
    names = tuple(require_one_of("score", part.strip(), SCORES) for part in str(score).split("*"))
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                "score",
                expected=f"'{name}' once",
                got=repr(score),
                fix="Use {power} for powers.",
                arguments={"power": None},
            )
    return names


def amplitudes(summary: pd.DataFrame, score: str) -> Amplitudes:
    """Read a score or a product of scores.

    The interval of a product goes from the product of the lows to that of the highs, as if all factors erred
    together: it is too wide rather than too narrow. It is given if any factor has one.

    Args:
        summary: Of a diagnosis, with a column "bucket".
        score: A name in `SCORES`, or several joined by "*".

    Raises:
        InputError: unknown score, a missing column, or a value that is not finite (the bucket is named).
    """
    names = factors(score)
    parts = [_one(summary, name) for name in names]
    value = torch.stack([part.value for part in parts]).prod(dim=0)
    out_of_range = torch.stack([part.out_of_range for part in parts]).any(dim=0)
    exact = tuple(name for name, part in zip(names, parts, strict=True) if part.low is None)
    if len(exact) == len(names):
        return Amplitudes(value, None, None, out_of_range, ())
    low = torch.stack([part.value if part.low is None else part.low for part in parts]).prod(dim=0)
    high = torch.stack([part.value if part.high is None else part.high for part in parts]).prod(dim=0)
    return Amplitudes(value, low, high, out_of_range, exact)


def column(summary: pd.DataFrame, name: str) -> Tensor:
    """A column of the summary, float64 [B].

    Raises:
        InputError: there is none of that name.
    """
    if name not in summary.columns:
        raise InputError("summary of the diagnosis", expected=f"a column '{name}'", got=list(summary.columns))
    return torch.tensor(summary[name].to_numpy(dtype=float, copy=True), dtype=torch.float64)


def _one(summary: pd.DataFrame, name: str) -> Amplitudes:
    score = SCORES[name]
    values = column(summary, score.column)
    for place in torch.nonzero(~torch.isfinite(values)).flatten().tolist():
        raise InputError(
            f"score '{name}' of bucket {int(summary['bucket'].iloc[place])}",
            expected="a finite number",
            got=values[place].item(),
            fix=score.remedy,
            arguments={"score": "'amplitude'"},
        )
    ends = [score.amplitude(end) for end in _interval(summary, score.column)]
    # The amplitude falls with contamination, so the upper end of its interval gives the lower amplitude.
    low, high = (torch.minimum(*ends), torch.maximum(*ends)) if ends else (None, None)
    return Amplitudes(score.amplitude(values), low, high, ~score.sound(values), ())


def _interval(summary: pd.DataFrame, name: str) -> list[Tensor]:
    """Lower and upper ends, or nothing where there are none or some are not finite."""
    if f"{name}_low" not in summary.columns or f"{name}_high" not in summary.columns:
        return []
    ends = [column(summary, f"{name}_low"), column(summary, f"{name}_high")]
    return ends if all(torch.isfinite(end).all() for end in ends) else []
