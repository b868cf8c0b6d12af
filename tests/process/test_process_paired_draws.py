"""Paired draws: which seed moves what, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.randomness import generator

DATA = torch.arange(40, dtype=torch.float32).reshape(20, 2)


def test_draws_are_points_of_the_data_none_twice() -> None:
    draws = PairedDraws.draw(DATA, 20, seed=3)
    assert sorted(draws.x0.tolist()) == DATA.tolist()
    assert not torch.equal(draws.x0, DATA)
    assert len(draws) == 20 and draws.epsilon.shape == (20, 2)


def test_equal_seeds_give_equal_draws() -> None:
    first, again, other = (PairedDraws.draw(DATA, 8, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.x0, again.x0) and torch.equal(first.epsilon, again.epsilon)
    assert not torch.equal(first.x0, other.x0) and not torch.equal(first.epsilon, other.epsilon)


def test_data_and_noise_are_redrawn_each_alone() -> None:
    base = PairedDraws.draw(DATA, 8, seed=5)
    new_noise = PairedDraws.draw(DATA, 8, seed=5, noise_seed=9)
    new_data = PairedDraws.draw(DATA, 8, seed=5, data_seed=9)
    assert torch.equal(base.x0, new_noise.x0) and not torch.equal(base.epsilon, new_noise.epsilon)
    assert torch.equal(base.epsilon, new_data.epsilon) and not torch.equal(base.x0, new_data.x0)
    both = PairedDraws.draw(DATA, 8, seed=0, data_seed=5, noise_seed=5)
    assert torch.equal(both.x0, base.x0) and torch.equal(both.epsilon, base.epsilon)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    PairedDraws.draw(DATA, 8)
    schedules.cosine().sample(4, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


def test_one_seed_feeds_two_streams() -> None:
    of_the_choice = torch.randn(8, 2, generator=generator(5, stream=0), dtype=torch.float64).float()
    assert not torch.equal(PairedDraws.draw(DATA, 8, seed=5).epsilon, of_the_choice)


def test_noise_is_standard_normal() -> None:
    draws = PairedDraws.draw(torch.zeros(4000, 5), 4000)
    assert float(draws.epsilon.mean()) == pytest.approx(0, abs=5 / math.sqrt(20_000))
    assert float(draws.epsilon.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / 20_000))


def test_noise_does_not_depend_on_the_dtype() -> None:
    single, double = (PairedDraws.draw(DATA.to(dtype), 8) for dtype in (torch.float32, torch.float64))
    assert (single.epsilon.dtype, double.epsilon.dtype) == (torch.float32, torch.float64)
    assert torch.equal(single.epsilon, double.epsilon.float())


def test_the_same_draws_serve_every_level() -> None:
    draws, schedule = PairedDraws.draw(DATA, 8), schedules.cosine()
    assert torch.equal(draws.at(schedule, math.inf), draws.x0)
    assert torch.equal(draws.at(schedule, -math.inf), draws.epsilon)
    levels = torch.linspace(-3, 3, 8)
    torch.testing.assert_close(
        draws.at(schedule, levels)[3:4],
        draws.__class__(draws.x0[3:4], draws.epsilon[3:4]).at(schedule, float(levels[3])),
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: PairedDraws.draw(DATA, 21), "at most the 20 points of the data; got 21"),
        (lambda: PairedDraws.draw(DATA, 0), "samples: expected an integer of at least 1"),
        (lambda: PairedDraws.draw(DATA.long(), 3), "a floating-point tensor"),
        (lambda: PairedDraws.draw([1.0], 1), "a floating-point tensor .*got list"),  # type: ignore[arg-type]
        (lambda: PairedDraws.draw(DATA, 3, seed=-1), "seed: expected an integer of at least 0; got -1"),
        (lambda: PairedDraws(torch.zeros(3, 2), torch.zeros(3, 1)), r"the shape \(3, 2\) of x0"),
    ],
)
def test_bad_draws_are_refused_in_words(call: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()  # type: ignore[operator]
