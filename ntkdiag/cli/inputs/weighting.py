"""The loss weights that --weights names: constant, learned, a rule, a saved table, or weights measured during training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ntkdiag.cli.options import parsing
from ntkdiag.errors import InputError, require_one_of

if TYPE_CHECKING:
    from ntkdiag.cli.inputs.loading import LoadedModel
    from ntkdiag.process.schedules.base import Schedule
    from ntkdiag.weights import Refresher, WeightSource, WeightTable

CONSTANT, LEARNED, REFRESH = "constant", "learned", "refresh"
# Settings of refresh: those of the measurement (ntkdiag.weights.refresh.kernel_probe), and those of the Refresher.
_PROBE = {"score": "learnability", "samples": 32, "probes": 1, "buckets": 10}
_REFRESHER = ("half_life", "max_change", "power", "floor", "budget")


def weight_source(text: str, loaded: LoadedModel, seed: int) -> WeightSource | None:
    """The weights that --weights names, with mean 1 under the schedule of training.

    Args:
        text: "constant", "learned", "RULE", "RULE:name=value,...", "table.csv", "table.json", or
            "refresh:EVERY,name=value,...".
        loaded: The network before its training.
        seed: Seed of the samples that a refresh measures on, and of the features of learned weights.

    Returns:
        None for constant weights.

    Raises:
        InputError: none of these, or a rule, table or setting that cannot be used.
    """
    from ntkdiag.weights import LearnedUncertainty, WeightTable

    denoiser = loaded.denoiser
    head, _, rest = text.partition(":")
    if text == CONSTANT:
        return None
    if text == LEARNED:
        return LearnedUncertainty(denoiser.target, denoiser.schedule, seed=seed)
    if head == REFRESH:
        return _refresher(rest, loaded, seed)
    if is_file(text):
        return fixed(WeightTable.load(text).normalised(denoiser.schedule))
    parameters = parsing.rule_parameters("--weights", _items(rest))
    return fixed(closed_form("--weights", head, denoiser.target, denoiser.schedule, parameters))


def is_file(text: str) -> bool:
    """Whether --weights names a file; a rule's parameter may have a point too."""
    return Path(text).suffix.lower() in (".csv", ".json")


def closed_form(
    option: str, name: str, target: str, schedule: Schedule, settings: dict[str, Any]
) -> WeightTable:
    """The table of a rule, with the parameters, clip and normalise that a user gave.

    Raises:
        InputError: unknown rule, parameter or target, a value it cannot have, or a mean that is not finite.
    """
    from ntkdiag.weights import rule

    return parsing.checked(option, lambda: rule(name, target, schedule, **settings))


def fixed(table: WeightTable) -> WeightSource:
    """The table, for the type checker: its target is read-only, which the protocol does not express."""
    return cast("WeightSource", table)


def _refresher(text: str, loaded: LoadedModel, seed: int) -> Refresher:
    """Read "500" or "500,score=gsnr,samples=64,half_life=2"."""
    from ntkdiag.process.buckets import Buckets
    from ntkdiag.process.paired_draws import PairedDraws
    from ntkdiag.weights import Refresher
    from ntkdiag.weights.refresh.kernel_probe import probe_score

    first, _, rest = text.partition(",")
    every = parsing.value(first)
    if not isinstance(every, int):
        raise InputError(
            "--weights", expected="refresh:STEPS, such as refresh:500", got=repr(f"{REFRESH}:{text}")
        )
    given = parsing.pairs("--weights", _items(rest))
    for name in given:
        require_one_of("setting of refresh", name, (*_PROBE, *_REFRESHER))
    probe = _PROBE | {name: value for name, value in given.items() if name in _PROBE}
    denoiser = loaded.denoiser
    data = loaded.data
    draws = PairedDraws.draw(data.train, probe["samples"], seed, cond=data.conditions)  # type: ignore[arg-type]
    buckets = Buckets.from_density(denoiser.schedule, probe["buckets"])  # type: ignore[arg-type]
    score = probe_score(denoiser, draws, buckets, str(probe["score"]), probes=probe["probes"], seed=seed)  # type: ignore[arg-type]
    settings = {name: value for name, value in given.items() if name in _REFRESHER}
    return parsing.checked(
        "--weights",
        lambda: Refresher(score, denoiser.target, denoiser.schedule, every=every, **settings),
    )


def _items(text: str) -> list[str]:
    return text.split(",") if text else []
