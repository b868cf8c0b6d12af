"""The plan of a measurement: what grows with what, and what the command says."""

from __future__ import annotations

import pytest
import torch
from diagnosis_cases import POINTS, mlp

from ntkdiag.cli.output.plan_text import plan_text
from ntkdiag.diagnosis import plan as plan_room
from ntkdiag.diagnosis.plan import plan
from ntkdiag.errors import InputError
from ntkdiag.kernel.work import Kernel


def whole(**change: object) -> dict[str, float]:
    return plan(mlp(), POINTS, **({"buckets": 3, "samples": 16, "probes": 2} | change)).whole  # type: ignore[arg-type]


def test_twice_the_processes_do_half_the_work_each() -> None:
    one, two, four = (whole(processes=count) for count in (1, 2, 4))
    assert one["received_bytes"] == 0
    assert 0.4 * one["operations"] < two["operations"] < 0.6 * one["operations"]
    assert 0.4 * two["operations"] < four["operations"] < 0.7 * two["operations"]
    assert two["received_bytes"] > 0


@pytest.mark.parametrize("change", [{"samples": 32}, {"probes": 4}, {"buckets": 6}, {"networks": 3}])
def test_more_of_anything_costs_more(change: dict[str, int]) -> None:
    assert whole(**change)["operations"] > 1.3 * whole()["operations"]


def test_many_samples_are_measured_bucket_by_bucket() -> None:
    """Of more than 4,096 samples in all buckets, products between buckets are formed for few alone."""
    some, many = (
        plan(mlp(), POINTS, 10, samples=samples).table.set_index("part")["operations"]
        for samples in (400, 800)
    )
    assert many["residual kernel"] > 3 * some["residual kernel"]
    assert many["trace kernel"] < 2 * some["trace kernel"]


def test_slow_engines_have_no_plan() -> None:
    with pytest.raises(InputError, match="whose cost is known"):
        whole(engine="exact")


def test_seconds_of_a_core_are_not_said_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"device": torch.device("meta")}
    monkeypatch.setattr(plan_room, "Kernel", lambda *args, **options: Kernel(*args, **options | card))
    found = plan_room.plan(mlp(), POINTS, 2, samples=4, probes=1, memory=10**9)
    assert found.table["seconds"].isna().all() and found.whole["operations"] > 0
    assert plan_text(found).splitlines()[-3].split()[-1] == "-"
