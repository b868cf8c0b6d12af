"""Random weight functions, with random types of return values, passed to the audit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analysis.fuzz.damage import Rng, refusal
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.target import TARGETS
from ntkdiag.weights import RULES
from ntkdiag.weights.audit import ARGUMENTS, NAMES, audit

_SCHEDULES: tuple[Callable[[], Any], ...] = (
    lambda: None,
    schedules.cosine,
    schedules.flow,
    schedules.edm,
    lambda: schedules.linear_log_snr(-9, 9),
    lambda: schedules.linear_beta(50),
    lambda: schedules.from_table([3.0, 1.0, 0.5, -2.0, -math.inf]),
    lambda: schedules.flow(0.0, 1.0),
    object,
)
_STEPS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda x, c: x.clamp(max=c),
    lambda x, c: x.clamp(min=c),
    lambda x, c: x + c,
    lambda x, c: x * c,
    lambda x, c: c / x,
    lambda x, c: x / (x + c),
    lambda x, c: x.abs() ** c,
    lambda x, c: x.log(),
    lambda x, c: x.exp(),
    lambda x, c: x / x.mean(),
    lambda x, c: torch.where(x > c, x, torch.nan),
    lambda x, c: torch.sort(x).values,
    lambda x, c: x.half().double(),
)


class LongError(RuntimeError):
    """An error with a message of many lines."""

    def __str__(self) -> str:
        return "\n\n" + "first\r\nsecond\u2028third " * 500


def _raise_long_error(_: Tensor) -> Tensor:
    raise LongError


def _slow(x: Tensor) -> Tensor:
    time.sleep(0.002)
    return x


_RETURN_FORMS: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: x.mean(),
    lambda x: x[0].item(),
    lambda x: x[:, None],
    lambda x: x[:1],
    lambda x: x[1:],
    lambda x: x[:0],
    lambda x: x.tolist(),
    lambda x: x.numpy(),
    lambda x: x.half(),
    lambda x: x.bfloat16(),
    lambda x: x.bool(),
    lambda x: x.int(),
    lambda x: x.to(torch.complex64),
    lambda x: x.requires_grad_(),
    lambda x: x.expand(2, -1),
    lambda x: x.reshape(-1, 7),
    lambda x: x.to_sparse(),
    lambda x: x.to("meta"),
    lambda x: torch.rand_like(x),
    lambda x: pd.Series(x.numpy()),
    lambda x: np.asarray(x.numpy(), dtype=object),
    lambda x: iter(x),
    lambda x: (x, x),
    lambda x: [[1.0], [2.0, 3.0]],
    lambda x: [10**400] * len(x),
    lambda x: "weights",
    lambda x: None,
    lambda x: {}["missing"],
    lambda x: 1 / 0,
    _raise_long_error,
    _slow,
)


def audits(rng: Rng, folder: Path) -> str:
    """A random function is audited and the result prints and writes as JSON, or the function is refused in one line."""
    target = rng.choice(np.array([*TARGETS, "eps", "nonsense", None], dtype=object))
    schedule = _SCHEDULES[int(rng.integers(len(_SCHEDULES)))]()
    argument = str(rng.choice([*ARGUMENTS, "t"], p=[0.3, 0.25, 0.2, 0.2, 0.05]))
    try:
        found = audit(_function(rng), target, argument=argument, schedule=schedule, **_declared(rng))
    except InputError as error:
        return refusal(str(error))
    json.dumps(found.describe(), allow_nan=False)
    assert set(found.names) <= set(NAMES), "a finding without a name"
    wrong = any(finding.severity == "mistake" for finding in found.findings)
    assert found.ok is not wrong, "ok although there is a mistake, or not ok without one"
    for finding in found.findings:
        assert "\n" not in str(finding) and len(str(finding)) < 1000, "a finding that is not one line"
    assert len(str(found).split("\n")) == 2 + len(found.findings), "a report with too many lines"
    return "ok" if found.ok else "mistakes found"


def _declared(rng: Rng) -> dict[str, Any]:
    """The rule and parameter that the weights are declared to be; often none."""
    if rng.random() < 0.6:
        return {}
    declared: dict[str, Any] = {"rule": str(rng.choice([*RULES, "nonsense"]))}
    if rng.random() < 0.3:
        name = str(rng.choice(["gamma", "k", "bias", "sigma_data", "convention", "nonsense"]))
        values = (5.0, 0.0, -1.0, math.nan, math.inf, 1e300, 10**400, "vp", None, [5.0])
        declared[name] = values[int(rng.integers(len(values)))]
    return declared


def _function(rng: Rng) -> Any:
    """A random expression of its argument, returned in a random form; sometimes not a function at all."""
    if rng.random() < 0.03:
        return (None, 3, "nowhere.csv", torch.ones(3), "", Path())[int(rng.integers(6))]
    steps = [_STEPS[int(rng.integers(len(_STEPS)))] for _ in range(rng.integers(1, 5))]
    numbers = rng.choice([0.0, 0.5, 1.0, 5.0, -1.0, 1e30, math.nan], len(steps)).tolist()
    in_form = (
        _RETURN_FORMS[int(rng.integers(len(_RETURN_FORMS)))] if rng.random() < 0.3 else lambda value: value
    )

    def function(argument: Any) -> Any:
        value = torch.as_tensor(argument).double()
        for step, number in zip(steps, numbers, strict=True):
            value = step(value, number)
        return in_form(value)

    return function
