"""Buckets: edges, medians, assignment, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.buckets import TAIL, Buckets, trained_range
from ntkdiag.process.schedules.base import Schedule

# Stable Diffusion's: √β rising linearly from √.00085 to √.012.
STABLE_DIFFUSION = schedules.from_table(
    torch.logit(
        torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    )
)
ZERO_SNR = schedules.from_table([4.0, 2.0, 0.0, -math.inf])


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.cosine(),
        schedules.flow(0.3, 1.0),
        schedules.flow(shift=3.0),
        schedules.edm(),
        schedules.linear_log_snr(),
        schedules.linear_beta(),
        STABLE_DIFFUSION,
    ],
    ids=lambda schedule: schedule.name,
)
def test_default_buckets_lie_between_a_thousandth_and_all_but_a_thousandth_of_training(
    schedule: Schedule,
) -> None:
    buckets = Buckets.default(schedule, 4)
    assert len(Buckets.default(schedule)) == 10
    ends = [float(schedule.cdf(end)) for end in (buckets.edges[0], buckets.edges[-1])]
    assert ends == pytest.approx([0.001, 0.999], rel=1e-9)
    assert buckets == Buckets.uniform(buckets.edges[0], buckets.edges[-1], 4)
    assert not any(buckets.outside(schedule))


def test_default_buckets_of_stable_diffusion_are_where_it_trains() -> None:
    """0.1% of 1,000 steps is one: the range ends halfway between the outermost step and the next."""
    steps = STABLE_DIFFUSION.log_snr(torch.tensor([0.5, 998.5], dtype=torch.float64)).tolist()
    assert trained_range(STABLE_DIFFUSION) == pytest.approx((steps[1], steps[0]), abs=1e-9)
    assert trained_range(STABLE_DIFFUSION) == pytest.approx((-5.36, 6.72), abs=0.005)


def test_a_step_of_zero_snr_is_left_out_of_the_default_range() -> None:
    low, high = trained_range(ZERO_SNR)
    assert (low, high) == pytest.approx((-1 + 0.006, 5 - 0.008), abs=1e-9)


def test_the_default_range_needs_a_schedule_and_a_count() -> None:
    with pytest.raises(InputError, match="bucket count"):
        Buckets.default(schedules.cosine(), 0)
    with pytest.raises(InputError, match=r"a schedule such as nd.schedules.cosine\(\); got int"):
        Buckets.default(10)  # type: ignore[arg-type]


def test_buckets_where_the_schedule_never_trains_are_refused_or_marked() -> None:
    wide = Buckets.uniform(-10, 10, 10)
    assert [c for c, out in zip(wide.centers, wide.outside(STABLE_DIFFUSION), strict=True) if out] == [
        -9,
        -7,
        9,
    ]
    assert Buckets.of(wide, STABLE_DIFFUSION, extrapolate=True) == wide
    words = r"expected log-SNR -5\.37 to 7\.418, which is where schedule 'from_table' trains; got buckets at -9, -7, 9"
    with pytest.raises(InputError, match=words + r"\. Leave them out"):
        Buckets.of(wide, STABLE_DIFFUSION)
    with pytest.raises(
        InputError, match=words + r"\. With extrapolate=True .* are measured all the same, and marked"
    ):
        Buckets.of(list(wide.edges), STABLE_DIFFUSION, extrapolate=False)
    # A bucket counts where it is measured, and an unbounded schedule trains everywhere.
    assert Buckets.of([-8, 7.9, 8], schedules.edm()).count == 2
    assert Buckets.of([-7, -3, 2], STABLE_DIFFUSION).centers == (-5.0, -0.5)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 9, 10, 11, 12, 100])
def test_symmetric_ends_give_exactly_symmetric_buckets(count: int) -> None:
    made = [
        Buckets.uniform(-10, 10, count),
        Buckets.uniform(-0.1, 0.1, count),
        Buckets.default(schedules.cosine(), count),
        Buckets.default(schedules.flow(), count),
        Buckets.from_density(schedules.cosine(), count),
        Buckets.from_density(schedules.flow(0.0, 1.0), count),
    ]
    for buckets in made:
        for numbers in (buckets.edges, buckets.centers):
            assert [-number for number in reversed(numbers)] == list(numbers)
    assert made[0].edges[0] == -10 and made[0].edges[-1] == 10
    assert made[0].edges == pytest.approx(np.linspace(-10, 10, count + 1), abs=1e-14)


def test_uniform_buckets() -> None:
    buckets = Buckets.uniform(-10, 10, count=4)
    assert buckets.edges == (-10.0, -5.0, 0.0, 5.0, 10.0)
    assert buckets.centers == (-7.5, -2.5, 2.5, 7.5)
    assert len(buckets) == buckets.count == 4


def test_buckets_from_edges() -> None:
    buckets = Buckets.from_edges(torch.tensor([-4, 0, 1]))
    assert (buckets.edges, buckets.centers) == ((-4.0, 0.0, 1.0), (-2.0, 0.5))


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.cosine(),
        schedules.flow(0.0, 1.0),
        schedules.edm(),
        schedules.linear_log_snr(),
        schedules.linear_beta(),
    ],
    ids=lambda schedule: schedule.name,
)
@pytest.mark.parametrize("count", [1, 7])
def test_buckets_from_density_are_visited_equally_and_halved_by_their_centers(
    schedule: Schedule, count: int
) -> None:
    buckets = Buckets.from_density(schedule, count)
    points = sorted([*buckets.edges, *buckets.centers])
    mass = schedule.cdf(torch.tensor(points, dtype=torch.float64)).diff()
    outside = 2 * TAIL if math.isinf(schedule.support[0]) else 0.0
    torch.testing.assert_close(mass, torch.full_like(mass, (1 - outside) / (2 * count)), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (4, Buckets.default(schedules.cosine(), 4)),
        (np.int64(3), Buckets.default(schedules.cosine(), 3)),
        (Buckets.uniform(0, 1, 2), Buckets.uniform(0, 1, 2)),
        ([-4, 0, 1.5], Buckets.from_edges([-4, 0, 1.5])),
        ((-1, 1), Buckets.from_edges([-1, 1])),
        (range(3), Buckets.from_edges([0, 1, 2])),
        (np.linspace(-2, 2, 5), Buckets.from_edges([-2, -1, 0, 1, 2])),
        (torch.tensor([-2.0, 5.0]), Buckets.from_edges([-2, 5])),
    ],
)
def test_a_count_and_edges_are_taken_for_buckets(given: Any, wanted: Buckets) -> None:
    assert Buckets.of(given, schedules.cosine()) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "got None"),
        ("10", "a count such as 10, or edges .* got '10'"),
        (2.5, "got 2.5"),
        (True, "got bool"),
        ([], "got list"),
        ([[-1, 0], [0, 1]], "got list"),
        (["a", "b"], "got list"),
        (np.array([1 + 2j, 3]), "got ndarray"),
        (0, "bucket count: expected an integer of at least 1"),
        ([3, 1], "increasing"),
    ],
)
def test_what_is_no_buckets_is_refused_in_words(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Buckets.of(given, schedules.cosine())


def test_buckets_from_density_hold_what_training_draws() -> None:
    schedule = schedules.edm()
    buckets = Buckets.from_density(schedule, 5)
    index = buckets.assign(schedule.sample(10_000, torch.Generator().manual_seed(0)))
    counts = torch.bincount(index[index >= 0], minlength=5)
    assert int(counts.min()) > 1850 and int(counts.max()) < 2150
    assert int((index < 0).sum()) < 50


def test_buckets_from_density_leave_a_step_of_zero_snr_out() -> None:
    buckets = Buckets.from_density(schedules.from_table([4.0, 2.0, 0.0, -math.inf]), 3)
    assert all(map(math.isfinite, buckets.edges))
    assert buckets.edges[-1] == 5.0


def test_assign_counts_lower_edges_in_and_the_last_edge_too() -> None:
    buckets = Buckets.from_edges([-2.0, 0.0, 1.0])
    levels = [-2.1, -2.0, -0.1, 0.0, 0.9, 1.0, 1.1, -math.inf, math.inf, math.nan]
    index = buckets.assign(torch.tensor(levels))
    assert index.tolist() == [-1, 0, 0, 1, 1, 1, -1, -1, -1, -1]
    assert index.dtype == torch.int64


@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_assign_keeps_the_shape(shape: tuple[int, ...]) -> None:
    assert Buckets.uniform(-1, 1, 2).assign(torch.zeros(shape)).shape == shape
    assert Buckets.uniform(-1, 1, 2).assign(0.5).tolist() == 1


@settings(max_examples=30, deadline=None)
@given(
    edges=st.lists(st.integers(-50, 50), min_size=2, max_size=9, unique=True).map(sorted),
    level=st.floats(-60, 60),
)
def test_assign_finds_the_interval(edges: list[int], level: float) -> None:
    index = int(Buckets.from_edges(edges).assign(level))
    holders = [i for i in range(len(edges) - 1) if edges[i] <= level < edges[i + 1]]
    expected = holders[0] if holders else (len(edges) - 2 if level == edges[-1] else -1)
    assert index == expected


def test_every_center_lies_in_its_own_bucket() -> None:
    for buckets in (Buckets.uniform(-3, 9, 5), Buckets.from_density(schedules.cosine(), 6)):
        centers = torch.tensor(buckets.centers, dtype=torch.float64)
        assert buckets.assign(centers).tolist() == list(range(len(buckets)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Buckets.uniform(3, 3, 4), "finite log-SNR, low < high; got 3 to 3"),
        (lambda: Buckets.uniform(-math.inf, 3, 4), "finite log-SNR"),
        (lambda: Buckets.uniform(0, 3, 0), "bucket count: expected an integer of at least 1; got 0"),
        (lambda: Buckets.from_density(schedules.cosine(), 0), "bucket count"),
        (lambda: Buckets.from_edges([1.0]), "at least two finite, increasing"),
        (lambda: Buckets.from_edges([0.0, 0.0]), "increasing"),
        (lambda: Buckets.from_edges([0.0, math.nan]), "increasing"),
        (lambda: Buckets.from_edges([0.0, math.inf]), "finite"),
        (lambda: Buckets((0.0, 1.0, 2.0), (0.5,)), "one number inside each of 2 buckets"),
        (lambda: Buckets((0.0, 1.0), (1.5,)), "one number inside each of 1 buckets"),
    ],
)
def test_bad_buckets_are_refused_in_words(call: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()  # type: ignore[operator]
