"""The refresher on two processes of torch.distributed (gloo): one table, whatever each of them measures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from ntkdiag.process import schedules
from ntkdiag.weights import Refresher
from ntkdiag.weights.refresh.ranks import RankMeasurement, equal_on_all, first_error, gather, mean

GRID = torch.linspace(-6, 6, 7, dtype=torch.float64)
STEPS = 70


class Rank:
    """What one process sees: scores and times of its own, and troubles at some refreshes."""

    def __init__(self, rank: int) -> None:
        self.rank, self.calls, self.now = rank, 0, 0.0

    def clock(self) -> float:
        return self.now

    def score(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        self.now += 2.0 + 3.0 * self.rank  # the slower one counts
        if self.calls == 2 and self.rank == 1:
            raise RuntimeError("out of memory")
        if self.calls == 3 and self.rank == 0:
            return GRID + 1, torch.ones(7)
        draw = torch.Generator().manual_seed(10 * self.calls + self.rank)
        return GRID, torch.rand(7, generator=draw, dtype=torch.float64) + 0.1

    def monitor(self) -> torch.Tensor:
        # It moves on process 1 alone: 0 and 60% are 30% on average.
        return torch.tensor([1.0 + 0.6 * self.rank * (self.now > 46)])


def source_of(rank: Rank) -> Refresher:
    return Refresher(
        rank.score, "v", schedules.cosine(), every=10, half_life=1.0, monitor=rank.monitor, check_every=4,
        budget=0.75, clock=rank.clock,
    )  # fmt: skip


def train(source: Refresher, rank: Rank, steps: range) -> None:
    for step in steps:
        rank.now += 1.0 + 0.3 * rank.rank
        source.after_step(step)


def work(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        world = Rank(rank)
        source = source_of(world)
        train(source, world, range(1, 36))
        resumed = source_of(world)
        resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
        train(resumed, world, range(36, STEPS + 1))
        weights = resumed(torch.linspace(-9, 9, 31, dtype=torch.float64))
        found = {
            "weights": [value.hex() for value in weights.tolist()],
            "history": [record.describe() for record in resumed.history],
        }
        Path(folder, f"rank{rank}.json").write_text(json.dumps(found))
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        both = multiprocessing.spawn(work, args=(str(folder),), nprocs=2, join=False)
        assert both is not None
        # Each wait ends when one of the two does; a process that waits for the other for ever ends the test.
        if not (both.join(timeout=240) or both.join(timeout=60)):
            for process in both.processes:
                process.kill()
            pytest.fail("a process waits for one that does not come")
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_both_processes_have_the_same_weights_to_the_bit(found: list[dict[str, Any]]) -> None:
    assert found[0]["weights"] == found[1]["weights"]
    assert len(set(found[0]["weights"])) > 3


def test_both_processes_have_the_same_history(found: list[dict[str, Any]]) -> None:
    assert found[0]["history"] == found[1]["history"]
    causes = {entry["cause"] for entry in found[0]["history"]}
    assert causes == {"every", "moved"}


def test_scores_are_averaged(found: list[dict[str, Any]]) -> None:
    draws = [
        torch.rand(7, generator=torch.Generator().manual_seed(10 + rank), dtype=torch.float64)
        for rank in (0, 1)
    ]
    expected = ((draws[0] + draws[1]) / 2 + 0.1).tolist()
    assert found[0]["history"][0]["score"] == pytest.approx(expected, rel=1e-14)


def test_a_failure_on_one_process_is_a_failure_on_all(found: list[dict[str, Any]]) -> None:
    measured = [entry for entry in found[0]["history"] if not entry["reason"].startswith("skipped")]
    assert [entry["accepted"] for entry in measured[:3]] == [True, False, False]
    assert measured[1]["reason"] == "on process 1: RuntimeError: out of memory"
    assert "the processes measured at different noise levels" in measured[2]["reason"]


def test_the_slower_process_sets_the_cost(found: list[dict[str, Any]]) -> None:
    # 5 s at 1.3 s a step on process 1, against 2 s at 1 s a step on process 0.
    costs = {round(entry["cost"], 4) for entry in found[0]["history"] if entry["cost"]}
    assert costs == {round(5 / 1.3, 4)}


def test_one_process_talks_to_itself() -> None:
    assert gather({"any": "thing"}) == [{"any": "thing"}]
    alone = [RankMeasurement(((1.0, 2.0),), "", 3.0)]
    assert (
        first_error(alone) == ""
        and mean(alone, 0).tolist() == [1.0, 2.0]
        and equal_on_all(alone, 0).tolist() == [1.0, 2.0]
    )
    assert first_error([RankMeasurement(error="broke")]) == "broke"


def test_columns_that_do_not_fit_are_refused() -> None:
    from ntkdiag.errors import MeasurementError

    uneven = [RankMeasurement(((1.0, 2.0),)), RankMeasurement(((1.0,),))]
    with pytest.raises(MeasurementError, match="different numbers of noise levels"):
        mean(uneven, 0)
    with pytest.raises(MeasurementError, match="at different noise levels"):
        equal_on_all(uneven, 0)
