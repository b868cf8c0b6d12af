"""What goes wrong in one process goes wrong in all, in the same words; none waits for ever."""

from __future__ import annotations

import pytest
import shared_jobs
import torch
from process_group import ProcessGroup

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel import gram_of


def one_error(errors: list[Exception]) -> Exception:
    """The error that all processes raise."""
    assert len({(type(error), str(error)) for error in errors}) == 1, errors
    return errors[0]


@pytest.mark.parametrize(
    "error", [ValueError("what a strange sample"), MeasurementError("no"), RuntimeError("in the forward")]
)
@pytest.mark.parametrize("position", [1, 5])
def test_an_error_for_one_sample(two_processes: ProcessGroup, error: Exception, position: int) -> None:
    found = one_error(two_processes.errors(shared_jobs.failing, error, position))
    assert type(found) is type(error)
    assert str(error) in str(found)


def test_an_error_that_cannot_be_sent(two_processes: ProcessGroup) -> None:
    for position in (1, 5):
        found = two_processes.same(shared_jobs.unsendable, position)
        assert found.startswith("RuntimeError: Unsendable")


@pytest.mark.parametrize("position", [2, 6])
def test_numbers_that_are_not_finite(two_processes: ProcessGroup, position: int) -> None:
    found = one_error(two_processes.errors(shared_jobs.not_finite, position))
    assert isinstance(found, MeasurementError)
    assert "finite" in str(found)


@pytest.mark.parametrize("engine", ["streaming", "sketch"])
def test_memory_that_runs_out_in_one_process(two_processes: ProcessGroup, engine: str) -> None:
    found = two_processes.same(shared_jobs.narrow, 3, 7, engine=engine, distributed=True)  # shares of 3 and 4
    expected = shared_jobs.narrow(9, 7, engine=engine)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("differing", "what"),
    [
        ({"weights": 1}, "weights"),
        ({"data": 1}, "values of the inputs"),
        ({"data": -1}, "number of samples"),
        ({"directions": 1}, "directions"),
    ],
)
def test_processes_that_are_given_different_things(
    two_processes: ProcessGroup, differing: dict[str, int], what: str
) -> None:
    found = one_error(two_processes.errors(shared_jobs.of_rank, 6, **differing))
    assert isinstance(found, InputError)
    assert f"the same {what}" in str(found)
    assert "process 1" in str(found)


def test_the_same_things(two_processes: ProcessGroup) -> None:
    assert two_processes.same(shared_jobs.of_rank, 6).shape == (2, 6, 6)


def test_different_places(two_processes: ProcessGroup) -> None:
    found = two_processes.errors(shared_jobs.elsewhere)
    assert all(isinstance(each, MeasurementError) and "the same place" in str(each) for each in found)


def test_after_an_error_that_is_caught_all_go_on(two_processes: ProcessGroup) -> None:
    assert two_processes.same(shared_jobs.recovered) == "process 1 has had enough"


def test_without_a_group() -> None:
    with pytest.raises(InputError, match="torchrun"):
        gram_of(torch.nn.Linear(2, 2), (torch.ones(3, 2),), torch.ones(1, 2), distributed=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("counts", [[2, 1], [0, 2], [1, 0]])
def test_exchanges(two_processes: ProcessGroup, counts: list[int], dtype: torch.dtype) -> None:
    every = torch.cat([torch.arange(n * 3).reshape(n, 3) + 100 * rank for rank, n in enumerate(counts)]).to(
        dtype
    )
    for rank, found in enumerate(two_processes.run(shared_jobs.exchanged, counts, dtype)):
        whole, columns, flags, *turns = found
        assert torch.equal(whole, every)
        assert torch.equal(columns, every[:, slice(0, 1) if rank == 0 else slice(1, 3)])
        assert torch.equal(flags, every.bool())
        own = every[: counts[0]] if rank == 0 else every[counts[0] :]
        assert torch.equal(turns[rank], own)  # of two processes, one receives at each turn
        assert torch.equal(turns[1 - rank], every)
