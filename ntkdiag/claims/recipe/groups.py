"""Which diagnoses are training seeds of one recipe: grouped by target and schedule, all else equal, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkdiag.claims.evidence import kept_buckets
from ntkdiag.claims.recipe.seed_tests import MIN_SEEDS
from ntkdiag.diagnosis.result import Diagnosis
from ntkdiag.errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class Recipe:
    """Training seeds of one recipe, measured alike.

    Attributes:
        name: The target, with the schedule where recipes of one target differ in it.
        target: What the networks predict.
        seeds: Name → diagnosis of each training seed, in the order given.
    """

    name: str
    target: str
    seeds: Mapping[str, Diagnosis]

    @property
    def first(self) -> Diagnosis:
        return next(iter(self.seeds.values()))


def recipes_of(diagnoses: Mapping[str, Diagnosis]) -> list[Recipe]:
    """The recipes among diagnoses, in the order of their first seeds.

    Args:
        diagnoses: Name → diagnosis; the k-th of one recipe and the k-th of another are of one training seed.

    Raises:
        InputError: two that differ in what must be equal, one network twice, fewer than 5 seeds of a recipe, or not
            equally many of each.
    """
    if not diagnoses:
        raise InputError("training seeds", expected=f"at least {MIN_SEEDS} diagnoses", got="none")
    _require_equal(diagnoses)
    _require_different(diagnoses)
    groups: dict[tuple[str, str], dict[str, Diagnosis]] = {}
    for name, one in diagnoses.items():
        groups.setdefault((_target(one), str(_schedule(one))), {})[name] = one
    _require_seeds({f"{target} on {schedule}": one for (target, schedule), one in groups.items()})
    targets = [target for target, _ in groups]
    return [
        Recipe(target if targets.count(target) == 1 else f"{target} on {schedule}", target, seeds)
        for (target, schedule), seeds in groups.items()
    ]


def _require_equal(diagnoses: Mapping[str, Diagnosis]) -> None:
    (first, kept), *others = diagnoses.items()
    for name, one in others:
        for field, read in _EQUAL.items():
            wanted, got = read(kept), read(one)
            if wanted != got:
                raise InputError(
                    f"{field} of the training seeds",
                    expected=f"{wanted} of '{name}', as of '{first}'",
                    got=str(got),
                    fix="Measure all seeds of a recipe alike.",
                )


def _require_different(diagnoses: Mapping[str, Diagnosis]) -> None:
    seen: dict[Any, str] = {}
    for name, one in diagnoses.items():
        key = one.meta.get("network", {}).get("digest") or id(one)
        if key in seen:
            raise InputError(
                "training seeds",
                expected="each network once",
                got=f"the same network as '{seen[key]}' and as '{name}'",
            )
        seen[key] = name


def _require_seeds(groups: Mapping[str, Mapping[str, Diagnosis]]) -> None:
    most = max(groups, key=lambda name: len(groups[name]))
    for name, seeds in groups.items():
        first = next(iter(seeds))
        if len(seeds) < MIN_SEEDS:
            beside = "" if name == most else f", beside {most} as of '{next(iter(groups[most]))}'"
            raise InputError(
                f"training seeds of {name}",
                expected=f"at least {MIN_SEEDS}{beside}",
                got=f"{len(seeds)}, of '{first}'" + (" and others" if len(seeds) > 1 else ""),
            )
        if len(seeds) < len(groups[most]):
            raise InputError(
                f"training seeds of {name}",
                expected=f"{len(groups[most])}, as of {most}, the same seeds in the same order",
                got=str(len(seeds)),
            )


def _target(diagnosis: Diagnosis) -> str:
    return str(diagnosis.meta["config"]["target"])


def _schedule(diagnosis: Diagnosis) -> str:
    """Name and parameters of the schedule in words."""
    described = dict(diagnosis.meta["config"].get("schedule") or {})
    name = str(described.pop("name", "an unknown schedule"))
    given = [f"{key}={value}" for key, value in described.items() if value is not None]
    return f"{name}({', '.join(given)})" if given else name


def _buckets(diagnosis: Diagnosis) -> str:
    levels = np.sort(diagnosis.summary.loc[kept_buckets(diagnosis), "log_snr"].to_numpy(dtype=float))
    shown = ", ".join(f"{level:.4g}" for level in levels)
    return f"log-SNR {shown}".replace("-", "−").replace("log−", "log-")


def _probes(diagnosis: Diagnosis) -> str:
    if "per_probe" not in diagnosis.grams:
        return str(diagnosis.meta["config"].get("probes", "an exact kernel"))
    return str(diagnosis.grams["per_probe"].shape[1])


def _data(diagnosis: Diagnosis) -> str:
    data = diagnosis.meta.get("data") or {}
    return f"{data.get('name', 'unknown data')} (digest {str(data.get('digest', '–'))[:8]})"


def _network(diagnosis: Diagnosis) -> str:
    network = diagnosis.meta.get("network") or {}
    return f"{network.get('class', 'a network')} of {network.get('parameters', '?')} parameters"


_EQUAL: dict[str, Callable[[Diagnosis], str]] = {
    "data": _data,
    "network": _network,
    "buckets": _buckets,
    "samples": lambda one: f"{one.grams['trace'].shape[-1]} samples",
    "probes": lambda one: f"{_probes(one)} probes",
    "seed of the draws": lambda one: f"seed {one.meta['config'].get('seed', 0)}",
}
