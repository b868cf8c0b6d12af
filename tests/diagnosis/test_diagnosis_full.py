"""measure_full against dense linear algebra on the explicit kernel: eigenpairs, alignments, moments, density, edges."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diagnosis_cases import BUCKETS, POINTS, linear, mlp, vectors
from torch import Tensor, nn

import ntkdiag as nd
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis.full_kernel import (
    DATA_MODES,
    FullKernel,
    FullSettings,
    measure_full,
    work_of_full,
)
from ntkdiag.diagnosis.steps import Steps
from ntkdiag.errors import InputError
from ntkdiag.process import schedules, target
from ntkdiag.process.bayes.principal import Principal
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.spectra import effective_rank

ONE = Buckets.uniform(-2, 2, count=1)
SHARP = FullSettings(top_k=5, tolerance=1e-9, trace_vectors=16, quadrature_vectors=6, quadrature_steps=30)


def network(kind: str) -> tuple[Denoiser, Tensor]:
    """A denoiser and data: two outputs and distinct eigenvalues, or six outputs that share every eigenvalue."""
    if kind == "mlp":
        return mlp("epsilon").double(), POINTS.train.double()
    return linear(), vectors().train


def measured(
    kind: str, samples: int = 6, settings: FullSettings = SHARP, buckets: Buckets = BUCKETS, **options: Any
) -> tuple[FullKernel, Denoiser, PairedDraws]:
    denoiser, data = network(kind)
    draws = PairedDraws.draw(data, samples, 3)
    return measure_full(denoiser, data, draws, buckets, settings, **options), denoiser, draws


def explicit(denoiser: Denoiser, draws: PairedDraws, level: float) -> Tensor:
    """Θ/(N·D), [N·D, N·D], from one gradient an output."""
    full = nd.gram(denoiser, draws.x0, level, kernel="full", epsilon=draws.epsilon, engine="exact").matrix
    return full / len(full)


def signals(denoiser: Denoiser, draws: PairedDraws, level: float) -> tuple[np.ndarray, np.ndarray]:
    x = draws.at(denoiser.schedule, level)
    wanted = target.value(
        denoiser.target, denoiser.schedule, torch.tensor(level).double(), draws.x0, draws.epsilon
    )
    with torch.no_grad():
        return wanted.flatten().numpy(), (denoiser(x, level) - wanted).flatten().numpy()


def of(table: pd.DataFrame, bucket: int) -> pd.DataFrame:
    return table[table["bucket"] == bucket]


# --- against the explicit kernel


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_eigenpairs_are_those_of_the_explicit_kernel(kind: str) -> None:
    found, denoiser, draws = measured(kind)
    size = draws.x0.numel()
    assert found.eigenfunctions.shape == (3, 5, *draws.x0.shape)
    for b, level in enumerate(BUCKETS.centers):
        kernel = explicit(denoiser, draws, level)
        e = torch.linalg.eigvalsh(kernel).flip(0).numpy()
        spectrum = of(found.spectra, b)
        assert spectrum["index"].tolist() == [1, 2, 3, 4, 5]
        assert spectrum["log_snr"].tolist() == [level] * 5
        np.testing.assert_allclose(spectrum["eigenvalue"], e[:5], rtol=1e-9)
        u = found.eigenfunctions[b].double().reshape(5, size).T
        torch.testing.assert_close(u.T @ u, torch.eye(5).double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(kernel @ u, u * torch.from_numpy(e[:5]), atol=1e-6 * e[0], rtol=0)
        row = found.summary.iloc[b]
        assert row["converged"] and row["method"] == "forward mode"
        assert (spectrum["residual"] <= 1e-9 * e[0] * 1.01).all()
        assert row["top_eigenvalue"] == pytest.approx(e[0], rel=1e-9)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_alignments_and_data_share_are_those_of_the_explicit_eigenvectors(kind: str) -> None:
    """Within a shared eigenvalue only sums over its eigenvectors are defined: six at a time for the linear network."""
    _, data = network(kind)
    settings = replace(SHARP, top_k=12)
    found, denoiser, draws = measured(kind, settings=settings)
    modes = Principal.of_points(data).leading(DATA_MODES)
    together = 1 if kind == "mlp" else 6
    for b, level in enumerate(BUCKETS.centers):
        u = torch.linalg.eigh(explicit(denoiser, draws, level))[1].flip(1)[:, :12]
        wanted, residual = signals(denoiser, draws, level)
        spectrum = of(found.spectra, b)
        truth = {
            "target_alignment": (u.T.numpy() @ wanted) ** 2 / (wanted**2).sum(),
            "residual_alignment": (u.T.numpy() @ residual) ** 2 / (residual**2).sum(),
            "data_share": (u.T.reshape(12, len(draws), -1) @ modes).square().sum((1, 2)).numpy(),
        }
        for name, value in truth.items():
            sums = spectrum[name].to_numpy().reshape(-1, together).sum(1)
            np.testing.assert_allclose(sums, value.reshape(-1, together).sum(1), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_intervals_of_the_effective_rank_cover(kind: str) -> None:
    """90% intervals, 8 seeds and 3 buckets."""
    held: list[bool] = []
    truths: list[float] = []  # the seed is that of the vectors: network and draws are the same
    for seed in range(8):
        found, denoiser, draws = measured(kind, seed=seed)
        for b, level in enumerate(BUCKETS.centers):
            if seed == 0:
                e = torch.linalg.eigvalsh(explicit(denoiser, draws, level)).clamp(min=0).numpy()
                truths.append(effective_rank(e))
            truth, row = truths[b], found.summary.iloc[b]
            slack = 1e-6 * truth
            held.append(row["effective_rank_low"] - slack <= truth <= row["effective_rank_high"] + slack)
    assert np.mean(held) >= 0.75


def test_ranks_of_float32_outputs_of_scale_1e_13_are_those_of_scale_one() -> None:
    denoiser = mlp("epsilon")
    draws = PairedDraws.draw(POINTS.train, 24, 3)
    settings = FullSettings(top_k=5, trace_vectors=6, quadrature_vectors=4, quadrature_steps=20)
    one = measure_full(denoiser, POINTS.train, draws, ONE, settings).summary.iloc[0]
    denoiser.network.register_forward_hook(lambda module, inputs, output: output * 1e-13)
    tiny = measure_full(denoiser, POINTS.train, draws, ONE, settings).summary.iloc[0]
    assert tiny["trace"] == pytest.approx(1e-26 * one["trace"], rel=1e-4)
    for name in ("participation_ratio", "stable_rank", "effective_rank"):
        assert one[name] > 2 and tiny[name] == pytest.approx(one[name], rel=1e-4), name


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_moments_hold_the_explicit_ones(kind: str) -> None:
    found, denoiser, draws = measured(kind)
    size = draws.x0.numel()
    for b, level in enumerate(BUCKETS.centers):
        e = torch.linalg.eigvalsh(explicit(denoiser, draws, level)).clamp(min=0).numpy()
        p, row = e[e > 0] / e.sum(), found.summary.iloc[b]
        truth = {
            "trace": e.sum(),
            "participation_ratio": e.sum() ** 2 / (e**2).sum(),
            "effective_rank": math.exp(-(p * np.log(p)).sum()),
        }
        for name in ("trace", "participation_ratio"):  # 3 · 16 vectors are as many as rows, or more: exact
            assert row[name] == pytest.approx(truth[name], rel=1e-9), name
            assert row[f"{name}_low"] == pytest.approx(row[f"{name}_high"])
        assert row["stable_rank"] == pytest.approx(e.sum() / e.max(), rel=1e-9)
        width = math.log(row["effective_rank_high"] / row["effective_rank_low"])
        error = abs(math.log(row["effective_rank"] / truth["effective_rank"]))
        assert error < 2 * width and width < math.log(1.6)
        trace_kernel = nd.gram(
            denoiser, draws.x0, level, epsilon=draws.epsilon, probes=6, engine="exact"
        ).matrix
        assert row["trace"] == pytest.approx(float(trace_kernel.trace()) / len(draws), rel=1e-9)
        assert row["products"] >= size


def test_few_vectors_give_intervals_that_cover() -> None:
    """Where the vectors do not span the kernel: 90% intervals of trace and participation ratio over 40 seeds."""
    settings = FullSettings(top_k=1, trace_vectors=3, quadrature_vectors=0)
    covered = []
    denoiser, data = network("linear")
    draws = PairedDraws.draw(data, 4, 3)
    e = torch.linalg.eigvalsh(explicit(denoiser, draws, 0.0)).numpy()
    truth = {"trace": e.sum(), "participation_ratio": e.sum() ** 2 / (e**2).sum()}
    for seed in range(40):
        row = measure_full(denoiser, data, draws, ONE, settings, seed=seed).summary.iloc[0]
        assert row["trace_low"] < row["trace"] < row["trace_high"]
        covered.append([row[f"{n}_low"] <= value <= row[f"{n}_high"] for n, value in truth.items()])
    assert (np.mean(covered, 0) >= 0.78).all()  # 90% less two and a half standard errors


def test_contraction_is_gradient_flow_on_the_residual() -> None:
    whole, denoiser, draws = measured("mlp", settings=replace(SHARP, contraction_steps=12))
    part, _, _ = measured("mlp", settings=replace(SHARP, contraction_steps=3))
    for b, level in enumerate(BUCKETS.centers):
        kernel = explicit(denoiser, draws, level)
        residual = torch.from_numpy(signals(denoiser, draws, level)[1])
        curve, bounds = of(whole.contraction, b), of(part.contraction, b)
        assert curve["time"].iloc[0] * float(torch.linalg.eigvalsh(kernel)[-1]) == pytest.approx(0.01)
        for time, low, high, least, most in zip(
            *(curve[name] for name in ("time", "low", "high")), bounds["low"], bounds["high"], strict=True
        ):
            moved = torch.matrix_exp(-time * kernel) @ residual
            truth = float(moved.square().sum() / residual.square().sum())
            assert (low, high) == pytest.approx((truth, truth), abs=1e-7)  # the Krylov space is whole
            assert least - 1e-9 <= truth <= most + 1e-9
        assert (bounds["high"] - bounds["low"]).max() > 1e-3  # three steps do not settle it


@pytest.mark.parametrize(
    ("samples", "rank"), [(6, 36), (8, 42)]
)  # six inputs and a bias, for each of six outputs
def test_density_counts_the_eigenvalues_above_zero(samples: int, rank: int) -> None:
    found, denoiser, draws = measured("linear", samples=samples, buckets=ONE)
    curve = found.density
    step = float(np.diff(curve["log_eigenvalue"]).mean())
    low, mean, high = (float(curve[name].sum()) * step for name in ("low", "density", "high"))
    assert low - 0.01 <= rank <= high + 0.01
    assert mean == pytest.approx(rank, rel=0.1)
    assert (curve["low"] <= curve["density"]).all() and (curve["density"] <= curve["high"]).all()
    e = torch.linalg.eigvalsh(explicit(denoiser, draws, 0.0))[-1]
    top = curve["log_eigenvalue"] > math.log(float(e)) - 0.3
    assert float(curve["density"][top].sum()) * step > 4  # six copies of the largest, smeared


# --- edges


def test_every_row_can_be_asked_for_and_no_more() -> None:
    found, denoiser, draws = measured("linear", samples=2, settings=replace(SHARP, top_k=12), buckets=ONE)
    e = torch.linalg.eigvalsh(explicit(denoiser, draws, 0.0)).flip(0)
    np.testing.assert_allclose(found.spectra["eigenvalue"], e, atol=1e-9 * float(e[0]))
    for name in ("target_alignment", "residual_alignment"):
        assert found.spectra[name].sum() == pytest.approx(1, abs=1e-9)
    row = found.summary.iloc[0]
    assert row["effective_rank_low"] == pytest.approx(
        row["effective_rank_high"], rel=1e-9
    )  # nothing left to estimate
    with pytest.raises(InputError, match="top_k: expected at most the 12 rows of the kernel; got 13"):
        measured("linear", samples=2, settings=replace(SHARP, top_k=13), buckets=ONE)


def test_one_sample() -> None:
    found, denoiser, draws = measured("mlp", samples=1, settings=replace(SHARP, top_k=2), buckets=ONE)
    e = torch.linalg.eigvalsh(explicit(denoiser, draws, 0.0)).flip(0)
    np.testing.assert_allclose(found.spectra["eigenvalue"], e, rtol=1e-9)
    assert found.summary["trace"][0] == pytest.approx(float(e.sum()))


def still(weight: Tensor, bias: Tensor | None = None) -> Denoiser:
    """f = bias, with a parameter that moves nothing unless `bias` is one."""
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_() if bias is None else layer.bias.copy_(bias)

    def call(network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        return 0 * network(x) if bias is None else network(0 * x)

    return Denoiser(layer, schedules.cosine(), "x0", call=call)


def test_a_kernel_of_zeros_has_no_rank_no_density_and_moves_nothing() -> None:
    data = vectors().train
    draws = PairedDraws.draw(data, 4, 0)
    found = measure_full(still(torch.eye(6)), data, draws, BUCKETS, SHARP)
    for name in (
        "top_eigenvalue",
        "trace",
        "trace_high",
        "participation_ratio",
        "stable_rank",
        "effective_rank",
    ):
        assert (found.summary[name] == 0).all(), name
    assert (found.spectra["eigenvalue"] == 0).all()
    assert found.spectra["target_alignment"].between(0, 1).all()
    assert found.density.empty and found.contraction.empty
    assert list(found.density.columns) == ["bucket", "log_snr", "log_eigenvalue", "density", "low", "high"]
    assert torch.isfinite(found.eigenfunctions).all()


def test_constant_data_has_no_modes_and_a_residual_of_zero_no_alignment() -> None:
    point = torch.arange(6.0).double()
    data = point.expand(8, 6)
    draws = PairedDraws.draw(data, 4, 0)
    found = measure_full(still(torch.eye(6), bias=point), data, draws, ONE, SHARP)
    assert (found.spectra["data_share"] == 0).all()
    assert found.spectra["residual_alignment"].isna().all()
    assert found.contraction.empty
    assert found.spectra["eigenvalue"].iloc[0] == pytest.approx(4 / 24)  # ∂f/∂bias: ones(4, 4) ⊗ I, over N·D
    assert found.spectra["target_alignment"].notna().all()


def test_without_quadrature_there_is_no_density_and_no_effective_rank() -> None:
    found, _, _ = measured("mlp", settings=replace(SHARP, quadrature_vectors=0), buckets=ONE)
    assert found.density.empty
    assert "effective_rank" not in found.summary


def test_chunks_change_nothing_and_a_seed_gives_the_same() -> None:
    first, _, _ = measured("mlp", buckets=ONE, seed=5)
    again, _, _ = measured("mlp", buckets=ONE, seed=5)
    parts, _, _ = measured("mlp", buckets=ONE, seed=5, settings=replace(SHARP, chunk=2))
    pd.testing.assert_frame_equal(first.summary, again.summary)
    assert torch.equal(first.eigenfunctions, again.eigenfunctions)
    np.testing.assert_allclose(parts.spectra["eigenvalue"], first.spectra["eigenvalue"], rtol=1e-9)


def test_the_network_is_measured_in_eval_mode_and_left_in_its_own() -> None:
    def call(network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        return network(x)

    layers = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)).double()
    denoiser, data = Denoiser(layers, schedules.cosine(), "x0", call=call), vectors().train
    draws = PairedDraws.draw(data, 4, 0)
    live = measure_full(denoiser.train(), data, draws, ONE, SHARP)
    assert layers[1].training
    still_ = measure_full(denoiser.eval(), data, draws, ONE, SHARP)
    pd.testing.assert_frame_equal(live.spectra, still_.spectra)


def test_progress_is_reported() -> None:
    reported: list[tuple[str, int, int]] = []
    settings = FullSettings(top_k=1, quadrature_vectors=0)
    work = work_of_full(settings, samples=6)
    steps = Steps(lambda *step: reported.append(step), 3 * work)
    measured("mlp", samples=6, settings=settings, steps=steps)
    assert [done for _, done, _ in reported] == [0, work, work, 2 * work, 2 * work, 3 * work]
    named = "measuring · full kernel of the given network, noise level {} of 3"
    assert [what for what, _, _ in reported[::2]] == [named.format(place) for place in (1, 2, 3)]
