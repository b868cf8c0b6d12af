"""The streaming engine against a loop of autograd, on every network of `cases`."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from cases import CASES, Case
from references import brute_gram, brute_rows, relative_error
from streaming_truth import cotangents_for, state, streamed
from torch import Tensor

from ntkdiag.kernel.streaming import engine as engine_room
from ntkdiag.kernel.streaming.rules.general import RULES

# torch warns of networks that are here on purpose: even kernels padded to "same", operations without a batching rule
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def matching(names: list[str], patterns: tuple[str, ...]) -> set[str]:
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def agrees(found: Tensor, truth: Tensor, tolerance: float = 1e-10) -> bool:
    return found.shape == truth.shape and relative_error(found, truth) < tolerance


@pytest.mark.parametrize("samples", [1, 2, 3])
@every_case
def test_agrees_with_a_loop_of_autograd(case: Case, samples: int) -> None:
    module, inputs = case(seed=samples, samples=samples)
    cotangents = cotangents_for(module, inputs)
    truth = brute_gram(module, inputs, cotangents)
    before = state(module)
    found = streamed(module, inputs, cotangents)
    assert agrees(found.per_probe, truth)
    assert state(module) == before
    names = list(found.coverage)
    assert {n for n, how in found.coverage.items() if how.startswith("exact (")} == matching(
        names, case.exact
    )
    assert {n for n, how in found.coverage.items() if how == "unused"} == matching(names, case.unused)
    slow = matching(names, case.exact)
    assert found.engine == ("exact" if slow == set(names) else "streaming + exact" if slow else "streaming")


@every_case
def test_unequal_tiles_change_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = case(seed=5, samples=5)
    cotangents = cotangents_for(module, inputs)
    monkeypatch.setattr(engine_room, "samples_that_fit", lambda *ignored: 4)  # tiles of 2, 2 and 1
    assert agrees(streamed(module, inputs, cotangents).per_probe, brute_gram(module, inputs, cotangents))


@every_case
def test_each_parameter_alone_and_preconditioned(case: Case) -> None:
    module, inputs = case(seed=3)
    cotangents = cotangents_for(module, inputs)
    generator = torch.Generator().manual_seed(0)
    scale = {
        name: (torch.rand(p.shape, generator=generator, dtype=p.dtype) + 0.5).to(p)
        for name, p in module.named_parameters()
    }
    found = streamed(module, inputs, cotangents, group=lambda name: name, preconditioner=scale)
    rows = brute_rows(module, inputs, cotangents)
    assert found.groups.keys() == rows.keys()
    largest = max(float((part @ part.mT).abs().max()) for part in rows.values())
    for name, part in rows.items():
        truth = (part / scale[name].flatten() @ part.mT).cpu()
        assert float((found.groups[name] - truth).abs().max()) <= 1e-10 * largest
    assert agrees(found.per_probe, sum(found.groups.values(), torch.zeros(())))


@every_case
def test_float32_agrees_with_float64(case: Case) -> None:
    module, inputs = case(seed=7, dtype=torch.float32)
    cotangents = cotangents_for(module, inputs)
    found = streamed(module, inputs, cotangents).per_probe
    wide = tuple(t.double() if t.is_floating_point() else t for t in inputs)
    assert agrees(found, brute_gram(module.double(), wide, cotangents.double()), 1e-5)


def test_cases_are_many_and_meet_every_rule() -> None:
    families: set[str] = set()
    for case in CASES.values():
        module, inputs = case(seed=0, samples=2)
        for how in streamed(module, inputs, cotangents_for(module, inputs, probes=1)).coverage.values():
            families.update(how.split(", "))
    assert len(CASES) >= 30
    assert {family for family, _ in RULES.values()} <= families
