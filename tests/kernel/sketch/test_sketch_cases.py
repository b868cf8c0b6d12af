"""The engine "sketch" against sketches of plain autograd's gradients, on every network of `cases`."""

from __future__ import annotations

import pytest
from cases import CASES, Case
from networks.case import Net, normal
from references import relative_error
from sketch_truth import measured, sketched_gram
from streaming_truth import cotangents_for, state
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel import gram_of
from ntkdiag.kernel.sketch import Projection, Sketch
from ntkdiag.kernel.streaming import sketched_rows as rows_room
from ntkdiag.kernel.streaming.contraction.gradients import PerSampleGradient

# torch warns of networks that are here on purpose: even kernels padded to "same", operations without a batching rule
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@every_case
def test_agrees_with_sketched_gradients_of_autograd_in_one_sweep_and_in_many(case: Case) -> None:
    """One byte of memory: a sweep for each sample, a forward for each probe, and rows in a file."""
    module, inputs = case(seed=5, samples=3)
    cotangents = cotangents_for(module, inputs)
    truth = sketched_gram(module, inputs, cotangents, Sketch(2, 3))
    before = state(module)
    found = measured(module, inputs, cotangents, 2, 3)
    assert relative_error(found.per_probe, truth) < 1e-10
    assert state(module) == before
    assert relative_error(measured(module, inputs, cotangents, 2, 3, memory=1).per_probe, truth) < 1e-10
    slow = {name for name, how in found.coverage.items() if how.startswith(("exact", "autograd"))}
    assert found.engine == ("sketch + exact" if slow else "sketch")


@every_case
def test_sides_that_are_no_longer_than_k_leave_the_exact_kernel(case: Case) -> None:
    module, inputs = case(seed=1, samples=3)
    cotangents = cotangents_for(module, inputs, probes=1)
    exact = gram_of(module, inputs, cotangents)
    assert relative_error(gram_of(module, inputs, cotangents, engine="sketch", sketch=500), exact) < 1e-12


def test_cases_meet_every_form_of_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outer products, cut ones too, tables, convolutions whose channels are sketched first, and gradients in full."""
    seen: set[str] = set()
    forms, block = rows_room.sketched, rows_room._block

    def form(gradient: PerSampleGradient, projection: Projection) -> Tensor:
        seen.add(type(gradient).__name__)
        return forms(gradient, projection)

    monkeypatch.setattr(rows_room, "sketched", form)

    def shown(*args: object) -> object:
        found = block(*args)  # type: ignore[arg-type]
        seen.add("elsewhere" if found is None else "turned" if found[0] else "cut")
        return found

    monkeypatch.setattr(rows_room, "_block", shown)
    for case in CASES.values():
        module, inputs = case(seed=0, samples=3)
        measured(module, inputs, cotangents_for(module, inputs, probes=1), 2)
    assert seen >= {"Outer", "Dense", "Compressed", "Unformed", "cut", "elsewhere"}


WEIGHT = normal(6, 4)
PARTS = {
    "turned": lambda w: w.T,
    "rows": lambda w: w[1:4],
    "every other row": lambda w: w[1::2],
    "columns": lambda w: w[:, 1:3],
    "every other column": lambda w: w[:, ::2],
    "turned rows": lambda w: w[2:5].T,
    "turned columns": lambda w: w.T[1:, 1:6:2],
    "a row": lambda w: w[2:3],
    "a turned column": lambda w: w[:, 3:].T,
    "other rows": lambda w: w.reshape(3, 8)[1:],
    "across rows": lambda w: w.flatten()[3:18].reshape(3, 5),
}


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_weight_is_sketched_with_its_own_signs(part: str, size: int) -> None:
    """Used once in part and once as it is: the sketch of the sum."""
    cut = PARTS[part]

    def forward(m: Net, x: Tensor) -> Tensor:
        shown = cut(m.w)
        part = functional.linear(x[..., : shown.shape[1]], shown).sin().sum(-1)
        return (part + functional.linear(x[..., :4], m.w).sum(-1))[..., None]

    module, inputs = Net(forward, w=WEIGHT).double(), (normal(4, 3, 8).double(),)
    cotangents = cotangents_for(module, inputs)
    truth = sketched_gram(module, inputs, cotangents, Sketch(size, 0))
    found = measured(module, inputs, cotangents, size)
    assert relative_error(found.per_probe, truth) < 1e-12
    assert found.engine == "sketch"
