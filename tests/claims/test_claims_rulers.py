"""Rulers: rank correlation with an interval, and what each would have the rank do; shares of high-floor buckets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from claims_cases import levels, simulate
from scipy import stats

from ntkdiag.claims.description.floor_shares import floor_shares
from ntkdiag.claims.description.rulers import follows, kendall, ruler_table, rulers_of
from ntkdiag.process import schedules
from ntkdiag.spectra import Replicates
from ntkdiag.spectra.uncertainty.left_out import leave_out

EVERY = np.ones(10, dtype=bool)


def test_tau_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    ruler = rng.integers(0, 4, 9).astype(float)  # with ties
    curves = rng.standard_normal((5, 9)).round(1)
    expected = [stats.kendalltau(ruler, curve).statistic for curve in curves]
    assert kendall(ruler, curves) == pytest.approx(expected)
    assert kendall(np.ones(5), np.arange(5.0)) == 0
    assert kendall(np.array([1.0, 1 + 1e-12, 2]), np.array([2.0, 1, 3])) == pytest.approx(
        stats.kendalltau([1, 1, 2], [2, 1, 3]).statistic
    )


def _ranks(**planted: object) -> tuple[dict[str, list[Replicates]], np.ndarray]:
    diagnosis = simulate(**planted)  # type: ignore[arg-type]
    grams = diagnosis.grams["trace"].numpy()
    return {"effective_rank": [leave_out(["effective_rank"], g)["effective_rank"] for g in grams]}, grams


def test_the_interval_of_tau_holds_the_value_and_closes_with_more_samples() -> None:
    rank = np.linspace(0.5, 0.75, 10)
    widths = []
    for samples in (16, 128):
        found, _ = _ranks(flatness=rank, samples=samples, shared=0.2)
        tau, low, high = follows(found["effective_rank"], np.arange(10.0), samples)
        assert -1 <= low <= tau <= high <= 1
        widths.append(high - low)
    assert tau > 0.8 and widths[1] < widths[0]


def test_the_interval_of_tau_mostly_holds_that_of_the_population() -> None:
    """The true curve rises with the order, but for one step back: τ = 43/45. Curves of few samples change places."""
    rank = np.linspace(0.5, 0.8, 10)
    rank[[4, 5]] = rank[[5, 4]]
    hits, exact = 0, 0
    for seed in range(60):
        found, _ = _ranks(flatness=rank, samples=24, shared=0.5, seed=seed)
        tau, low, high = follows(found["effective_rank"], np.arange(10.0), 24)
        hits += low - 1e-9 <= 43 / 45 <= high + 1e-9
        exact += tau == pytest.approx(43 / 45)
    assert hits >= 50 and exact < 50


def test_rulers_are_what_they_say() -> None:
    diagnosis = simulate("v")
    rulers = {ruler.name: ruler for ruler in rulers_of(diagnosis)}
    assert next(iter(rulers)) == "recoverable share"
    density = schedules.cosine().density(torch.from_numpy(levels())).numpy()
    assert rulers["training density"].values == pytest.approx(density)
    assert "R_v = 4.44 p" in rulers["training density"].note
    assert rulers["amplitude"].values / density == pytest.approx(np.full(10, 2**0.5 * np.pi))
    assert rulers["share of x0 in the input"].values == pytest.approx(
        schedules.cosine().alpha(torch.from_numpy(levels())).square().numpy()
    )
    other = {ruler.name: ruler for ruler in rulers_of(simulate("epsilon"))}
    assert other["training density"].note == ""


def test_each_ruler_says_at_which_ends_the_rank_would_fall() -> None:
    diagnosis = simulate("v")
    replicates = {
        "effective_rank": [
            leave_out(["effective_rank"], gram)["effective_rank"] for gram in diagnosis.grams["trace"].numpy()
        ]
    }
    table = ruler_table(diagnosis, replicates, 32, EVERY).set_index("ruler")
    assert table.loc["amplitude", ["noisy", "clean"]].tolist() == ["falls", "falls"]
    assert table.loc["signal-to-noise ratio", ["noisy", "clean"]].tolist() == ["falls", "rises"]
    assert table.loc["recoverable share", ["noisy", "clean"]].tolist() == ["falls", "rises"]
    assert table.loc["rank of the inputs", ["noisy", "clean"]].tolist() == ["rises", "falls"]
    assert table.loc["share of x0 in the input", "tau"] == table.loc["signal-to-noise ratio", "tau"]


def test_a_share_of_zero_at_an_end_is_a_fall_and_of_zero_everywhere_says_nothing() -> None:
    diagnosis = simulate("v")
    diagnosis.summary["bayes_share"] = np.where(levels() < -4, 0.0, 0.5)
    replicates: dict[str, list[Replicates]] = {
        "effective_rank": [Replicates(1.0 + b, np.ones(8)) for b in range(10)]
    }
    table = ruler_table(diagnosis, replicates, 8, EVERY).set_index("ruler")
    assert table.loc["recoverable share", ["noisy", "clean"]].tolist() == ["falls", "absent"]
    diagnosis.summary["bayes_share"] = 0.0
    table = ruler_table(diagnosis, replicates, 8, EVERY).set_index("ruler")
    assert table.loc["recoverable share", ["noisy", "clean"]].tolist() == ["cannot say", "cannot say"]


def test_shares_of_the_buckets_with_the_highest_floor_count_what_training_draws() -> None:
    diagnosis = simulate("v")
    table = floor_shares(diagnosis).set_index("quantity")
    path = schedules.cosine()
    ends = [
        torch.tensor(diagnosis.summary[f"log_snr_{end}"].tolist(), dtype=torch.float64)
        for end in ("low", "high")
    ]
    mass = (path.cdf(ends[1]) - path.cdf(ends[0])).numpy()
    mass /= mass.sum()
    losses = diagnosis.grams["losses"].numpy()
    expected = (mass[:3, None] * losses[:3]).sum() / (mass[:, None] * losses).sum()
    assert table.loc["loss", "share"] == pytest.approx(expected)
    assert table.loc["loss", "draws"] == pytest.approx(mass[:3].sum())
    assert table.loc["loss", "levels"] == "-9, -7, -5"
    energies = diagnosis.grams["residual"].diagonal().reshape(10, -1).numpy()
    expected = (mass[:3, None] * energies[:3]).sum() / (mass[:, None] * energies).sum()
    assert table.loc["gradient energy", "share"] == pytest.approx(expected)
    assert (table["low"] < table["share"]).all() and (table["share"] < table["high"]).all()


def test_shares_cover_that_of_the_population() -> None:
    diagnosis = simulate("v", samples=48)
    mass = floor_shares(diagnosis)["draws"][0]
    hits = 0
    for seed in range(200):
        drawn = np.random.default_rng([3, seed]).exponential(1.0, (10, 48)) * np.linspace(2, 1, 10)[:, None]
        diagnosis.grams["losses"] = torch.from_numpy(drawn)
        row = floor_shares(diagnosis).set_index("quantity").loc["loss"]
        means = np.linspace(2, 1, 10)
        weights = _masses(diagnosis)
        truth = (weights[:3] * means[:3]).sum() / (weights * means).sum()
        hits += row["low"] <= truth <= row["high"]
    assert 0 < mass < 1 and 166 <= hits <= 194  # nominal 180, three standard errors 12.7


def _masses(diagnosis: object) -> np.ndarray:
    summary = diagnosis.summary  # type: ignore[attr-defined]
    ends = [torch.tensor(summary[f"log_snr_{end}"].tolist(), dtype=torch.float64) for end in ("low", "high")]
    mass: np.ndarray = (schedules.cosine().cdf(ends[1]) - schedules.cosine().cdf(ends[0])).numpy()
    return mass / mass.sum()


def test_without_a_floor_or_losses_there_is_less_to_say() -> None:
    diagnosis = simulate("v")
    del diagnosis.grams["losses"]
    assert floor_shares(diagnosis)["quantity"].tolist() == ["gradient energy"]
    diagnosis.summary.loc[3, "floor"] = np.nan
    assert floor_shares(diagnosis).empty
