"""`verify`: the plain answer about one network, and the answers to every registered claim, with their numbers.

What is random is samples, noise and probes. Sample sizes, seeds, thresholds and comparisons are fixed before any data is
seen, and nothing is repeated until it has a definite outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, overload

import pandas as pd
from torch import nn

import ntkdiag.claims.paper  # noqa: F401  registers the paper's claims
from ntkdiag.claims.description.floor_shares import floor_shares
from ntkdiag.claims.description.rulers import ruler_table
from ntkdiag.claims.evidence import Evidence, gather
from ntkdiag.claims.levels import QUICK, STANDARD, fitting
from ntkdiag.claims.recipe.verification import RecipeVerification, verify_recipe
from ntkdiag.claims.register import CLAIMS
from ntkdiag.claims.wording.plain_answer import READS, plain_answer
from ntkdiag.data.given import DataLike, as_data
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.diagnosis import Diagnosis, fresh_controls, measure
from ntkdiag.diagnosis.controls import WOKEN
from ntkdiag.diagnosis.work import forward_operations
from ntkdiag.errors import InputError, kind_of, require_type
from ntkdiag.notebook import html_paragraphs, html_rows
from ntkdiag.process.buckets import Buckets, BucketsLike
from ntkdiag.progress import Progress

COLUMNS = (
    "claim", "statistic", "end", "middle", "at_end", "effect", "low", "high", "word", "controls", "control_mean",
    "control_low", "control_high", "net", "learned", "note",
)  # fmt: skip
# Key of a diagnosis' meta where it is known; and what stands beside an answer where it is not.
STEP_RANGE = "step_range"
NO_STEP_RANGE = (
    "How many of the next training steps this kernel describes was not measured: 'ntkdiag drift RUN --out FOLDER' does, and "
    "--trust FOLDER puts it here (in Python trust=nd.trust.linearization(denoiser, data, optimizer))."
)
ANSWER_COLUMNS = ("claim", "statement", "noisy", "clean", "text")


class StepRange(Protocol):
    """What knows how long a kernel describes training, as `nd.trust.Linearity` and `nd.trust.Examination` do."""

    @property
    def step_range(self) -> str:
        """How many of the next steps, in a sentence."""


@dataclass(frozen=True, eq=False, repr=False)
class Verification:
    """What a measurement says about one network.

    Attributes:
        text: The plain answer, in paragraphs with an empty line between them.
        claims: One row for each statistic and end: claim (the first that reads it), statistic, end (noisy, clean), middle
            and at_end (geometric means of the statistic), effect (ln(middle/at_end), positive for a fall), low, high (limits
            that hold for all rows together), word (falls, rises, absent, cannot say), controls (number of fresh networks),
            their control_mean and 95% prediction band control_low, control_high, net (effect − control_mean), learned
            (learned, as untrained, no claim, not tested), note.
        answers: One row for each claim: claim, statement, noisy, clean (a word for each end), text.
        rulers: What the rank runs along with over log-SNR, see `ntkdiag.claims.description.rulers.ruler_table`.
        shares: What the noise levels with the highest floor take, see `ntkdiag.claims.description.floor_shares`.
        method: How the limits of `claims` were made, in words.
        step_range: How many of the next training steps the kernel describes, or how to measure that; the last paragraph
            of `text`.
        diagnosis: What was measured.

    Example:
        >>> found = diagnosis.verify()
        >>> sorted(found.claims["end"].unique()), found.diagnosis is diagnosis
        (['clean', 'noisy'], True)
    """

    text: str
    claims: pd.DataFrame
    answers: pd.DataFrame
    rulers: pd.DataFrame
    shares: pd.DataFrame
    method: str
    step_range: str
    diagnosis: Diagnosis

    def __repr__(self) -> str:
        rank = self.claims[self.claims["statistic"] == "effective_rank"]
        said = ", ".join(f"{row['word']} at the {row['end']} end" for row in rank.to_dict("records"))
        return f"Verification(effective rank: {said})"

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        shown = ["statistic", "end", "word", "learned", "middle", "at_end", "effect", "low", "high"]
        rows = self.claims[shown].itertuples(index=False)
        return html_paragraphs(self.text) + html_rows("Effects", shown, rows)

    def beside(self, trust: StepRange) -> Verification:
        """The same answer, with what is known of the steps that the kernel describes."""
        before = self.text.removesuffix(f"\n\n{self.step_range}")
        return replace(self, text=f"{before}\n\n{trust.step_range}", step_range=trust.step_range)

    def document(self) -> dict[str, Any]:
        """Everything but the diagnosis, in plain Python values; `from_document` reads it again."""
        tables = {
            name: getattr(self, name).to_dict("records") for name in ("answers", "claims", "rulers", "shares")
        }
        return {"text": self.text, **tables, "method": self.method, "step_range": self.step_range}

    @classmethod
    def from_document(cls, document: Any, diagnosis: Diagnosis) -> Verification:
        """The answer that `document` describes, about a diagnosis.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        parts: dict[str, Any] = {
            name: pd.DataFrame(document[name]) for name in ("answers", "claims", "rulers", "shares")
        }
        for name, columns in (("answers", ANSWER_COLUMNS), ("claims", COLUMNS)):
            parts[name] = parts[name][list(columns)]
        texts = {name: document[name] for name in ("text", "method", "step_range")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError(f"{', '.join(texts)} must be texts")
        return cls(**parts, **texts, diagnosis=diagnosis)


@overload
def verify(
    network: Diagnosis | Denoiser,
    data: DataLike | None = None,
    buckets: BucketsLike | None = None,
    *,
    level: str = STANDARD,
    samples: int | None = None,
    probes: int | None = None,
    seed: int = 0,
    fresh: Callable[[int], Denoiser] | None = None,
    controls: int | None = None,
    refs: dict[str, Denoiser] | None = None,
    extrapolate: bool = False,
    resume: Path | str | None = None,
    progress: Progress | bool | None = None,
    trust: StepRange | None = None,
    distributed: bool = False,
) -> Verification: ...


@overload
def verify(network: Sequence[Diagnosis]) -> list[Verification]: ...


@overload
def verify(
    network: Sequence[Diagnosis] | Mapping[str, Diagnosis], *, recipe: Literal[True]
) -> RecipeVerification: ...


def verify(
    network: Diagnosis | Denoiser | Sequence[Diagnosis] | Mapping[str, Diagnosis],
    data: DataLike | None = None,
    buckets: BucketsLike | None = None,
    *,
    level: str = STANDARD,
    samples: int | None = None,
    probes: int | None = None,
    seed: int = 0,
    fresh: Callable[[int], Denoiser] | None = None,
    controls: int | None = None,
    refs: dict[str, Denoiser] | None = None,
    extrapolate: bool = False,
    resume: Path | str | None = None,
    progress: Progress | bool | None = None,
    trust: StepRange | None = None,
    recipe: bool = False,
    distributed: bool = False,
) -> Verification | list[Verification] | RecipeVerification:
    """Say what a measurement shows about a network: does its kernel collapse, where, and did training do it.

    Args:
        network: A diagnosis, a network to measure, or several diagnoses, each answered by itself unless `recipe`.
        data, buckets, refs, extrapolate, resume, progress, distributed: As in `measure`, for a network; if `buckets` is
            None, as many as the level says over the range in which the schedule trains.
        level: "quick", "standard" or "thorough": how many samples, probes, controls and buckets, where they are not given.
            Of a large network "quick" measures less, so that it takes minutes; it then says less.
        samples, probes: N and R of each bucket.
        seed: Seed of draws and probes; the controls have the seeds after it.
        fresh: From a seed to a network of the same kind with new initial weights. Without it, and without references named
            "untrained", "untrained 2", …, what training did is not tested.
        controls: How many fresh networks to measure, each at the cost of the network itself.
        trust: How many of the next training steps the kernel of one network describes, as `nd.trust.linearization` or
            `nd.trust.examine` found it; the answer ends with it, or with how to get it.
        recipe: The diagnoses are of at least 5 training seeds of one recipe, measured alike; or of recipes that differ in
            target or schedule, each with the same seeds in the same order. A mapping names them in messages.

    Returns:
        `Verification`; a list of them for several diagnoses; `RecipeVerification` with `recipe`.

    Raises:
        InputError: a network without data, a diagnosis with them, too few buckets or samples, diagnoses that are no training
            seeds of one recipe (fewer than 5, other buckets, samples, probes, data or networks, one network twice), or as
            `measure`.
        MeasurementError: as `measure`.

    Example:
        >>> found = nd.verify(denoiser, data, 3, samples=16, probes=3)
        >>> found.text.partition(". ")[0]
        'In this network ...'
        >>> sorted(found.claims["word"].unique())  # doctest: +SKIP
        ['absent', 'cannot say', 'falls']
    """
    if trust is not None and (recipe or not isinstance(network, Diagnosis | Denoiser)):
        raise InputError("trust", expected="one network beside it", got="several diagnoses")
    if recipe:
        _refuse_beside_diagnosis(data, buckets)
        return verify_recipe(_diagnoses(network))
    if isinstance(network, Diagnosis):
        _refuse_beside_diagnosis(data, buckets)
        return answered(network, trust)
    if isinstance(network, Denoiser):
        if data is None:
            raise InputError(
                "data",
                expected="the data to measure the network on",
                got="none",
                fix="Write nd.verify(denoiser, data).",
            )
        given = as_data(data)
        if buckets is not None:
            buckets = Buckets.of(buckets, network.schedule, extrapolate=extrapolate)
        sizes = fitting(
            level,
            forward_operations(network, given) if level == QUICK else 0,
            samples=samples,
            probes=probes,
            controls=0 if fresh is None else controls,
            buckets=None if buckets is None else buckets.count,
        )
        references, woken = dict(refs or {}), tuple[str, ...]()
        if fresh is not None:
            made, woken = fresh_controls(
                fresh,
                network,
                given.train,
                sizes.controls,
                seed + 1,
                given.conditions,
                distributed,
            )
            references |= made
        diagnosis = measure(
            network,
            given,
            sizes.buckets if buckets is None else buckets,
            samples=min(sizes.samples, len(given.train)) if samples is None else samples,
            probes=sizes.probes,
            seed=seed,
            refs=references,
            extrapolate=extrapolate,
            resume=resume,
            progress=progress,
            distributed=distributed,
        )
        diagnosis.meta[WOKEN] = list(woken)
        return answered(diagnosis, trust)
    diagnoses = _diagnoses(network)
    if not diagnoses:
        raise InputError("what to verify", expected="at least one diagnosis", got="an empty list")
    _refuse_beside_diagnosis(data, buckets)
    return [answered(one) for one in diagnoses.values()]


def answered(diagnosis: Diagnosis, trust: StepRange | None = None) -> Verification:
    """The answer from one diagnosis.

    Args:
        diagnosis: Its refs "untrained", "untrained 2", … are the controls.
        trust: As in `verify`; without it, what was measured with the diagnosis stands.

    Raises:
        InputError: too few buckets or samples to say anything.
    """
    claims = list(CLAIMS.values())
    evidence = gather(diagnosis, [*(name for claim in claims for name in claim.reads), *READS])
    answers = [claim.examine(evidence) for claim in claims]
    rows = [
        {"claim": claim.name, "statement": claim.statement, **vars(answer)}
        for claim, answer in zip(claims, answers, strict=True)
    ]
    found = evidence.effects
    kept = diagnosis.meta.get(STEP_RANGE)
    said = (kept if isinstance(kept, str) else NO_STEP_RANGE) if trust is None else _said_by(trust)
    return Verification(
        text=f"{plain_answer(evidence)}\n\n{said}",
        step_range=said,
        claims=_claims_table(evidence),
        answers=pd.DataFrame(rows, columns=list(ANSWER_COLUMNS)),
        rulers=ruler_table(diagnosis, found.replicates, found.samples, evidence.kept),
        shares=floor_shares(diagnosis, evidence.kept),
        method=found.method,
        diagnosis=diagnosis,
    )


def _said_by(trust: object) -> str:
    said = getattr(trust, "step_range", None)
    if not isinstance(said, str):
        expected = "what nd.trust.linearization or nd.trust.examine returns"
        raise InputError("trust", expected=expected, got=kind_of(trust))
    return said


def _claims_table(evidence: Evidence) -> pd.DataFrame:
    reader = {name: claim.name for claim in reversed(list(CLAIMS.values())) for name in claim.reads}
    rows = []
    for row in evidence.effects.effects:
        band = evidence.bands[row.statistic, row.end]
        rows.append(
            {
                **vars(row),
                "claim": reader.get(row.statistic, ""),
                "controls": band.controls,
                "control_mean": band.mean,
                "control_low": band.low,
                "control_high": band.high,
                "net": band.net,
                "learned": band.learned,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _refuse_beside_diagnosis(data: object, buckets: object) -> None:
    for name, value in (("data", data), ("buckets", buckets)):
        if value is not None:
            raise InputError(
                name,
                expected="nothing beside a diagnosis, which was measured already",
                got=type(value).__name__,
            )


def _diagnoses(given: object) -> dict[str, Diagnosis]:
    """Name → diagnosis.

    Raises:
        InputError: something else than several diagnoses.
    """
    what = "what to verify"
    if isinstance(given, nn.Module):
        require_denoiser(what, given)
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        given = {f"diagnosis {place}": one for place, one in enumerate(given, 1)}
    if not isinstance(given, Mapping):
        raise InputError(
            what,
            expected="a Diagnosis, a Denoiser with its data, or a list of diagnoses",
            got=kind_of(given),
            fix="Read a folder with nd.Diagnosis.load(folder)." if isinstance(given, str | Path) else None,
        )
    for one in given.values():
        require_type(what, one, Diagnosis, "a list of diagnoses")
    return {str(name): one for name, one in given.items()}
