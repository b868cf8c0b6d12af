"""The operator of a denoiser: restrictions, blocks, preconditioner, scipy's solvers, symmetry as a property."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_truth import SHAPE, image_denoiser, images, jacobian, normal
from scipy.sparse.linalg import LinearOperator, cg, eigsh, lobpcg
from torch import Tensor

import ntkdiag as nd
from ntkdiag.denoiser import Denoiser
from ntkdiag.kernel import NTKOperator
from ntkdiag.kernel.preconditioner import adam
from ntkdiag.process import schedules

SAMPLES, OUTPUTS = 4, 16
X, LEVELS = images(SAMPLES)
DENOISER = image_denoiser()
J = jacobian(DENOISER, (X, LEVELS))


def dense(operator: LinearOperator) -> np.ndarray:
    return operator @ np.eye(operator.shape[1])


def close(found: np.ndarray, truth: Tensor) -> None:
    np.testing.assert_allclose(found, truth.numpy(), rtol=1e-10, atol=1e-10 * float(truth.abs().max()))


# --- the whole, and parts of it


def test_all_entries_are_those_of_the_explicit_kernel_and_of_gram() -> None:
    operator = NTKOperator(DENOISER, X, LEVELS)
    assert operator.shape == (SAMPLES * OUTPUTS, SAMPLES * OUTPUTS)
    assert operator.method == "forward mode"
    close(dense(operator), J @ J.T)
    x0 = torch.zeros_like(X)
    sigma = DENOISER.schedule.sigma(LEVELS).reshape(-1, 1, 1, 1)
    full = nd.gram(DENOISER, x0, LEVELS, kernel="full", epsilon=X / sigma)
    close(dense(operator), full.matrix)


def test_one_log_snr_serves_all_samples() -> None:
    close(dense(NTKOperator(DENOISER, X, 1.5)), dense_of(DENOISER, X, torch.full((SAMPLES,), 1.5).double()))


def dense_of(denoiser: Denoiser, x: Tensor, levels: Tensor) -> Tensor:
    j = jacobian(denoiser, (x, levels))
    return j @ j.T


def test_conditioning_reaches_the_network() -> None:
    denoiser, labels = image_denoiser(classes=3), torch.tensor([0, 2, 1, 2])
    found = dense(NTKOperator(denoiser, X, LEVELS, cond=labels))
    j = jacobian(denoiser, (X, LEVELS, labels))
    close(found, j @ j.T)
    assert not np.allclose(found, dense(NTKOperator(denoiser, X, LEVELS, cond=labels.flip(0))))


@pytest.mark.parametrize("mask", [False, True])
def test_rows_and_columns_cut_blocks_out(mask: bool) -> None:
    rows, columns = [2, 0], [1, 3, 2]
    kernel = (J @ J.T).reshape(SAMPLES, OUTPUTS, SAMPLES, OUTPUTS)
    if mask:  # a bucket, as a comparison gives it; positions come out in order
        rows, columns = [0, 1], [2, 3]
        operator = NTKOperator(DENOISER, X, LEVELS, rows=LEVELS < 0, columns=LEVELS > 0)
    else:
        operator = NTKOperator(DENOISER, X, LEVELS, rows=rows, columns=torch.tensor(columns))
    truth = kernel[rows][:, :, columns].reshape(len(rows) * OUTPUTS, len(columns) * OUTPUTS)
    assert operator.shape == tuple(truth.shape)
    close(dense(operator), truth)
    close(dense(operator.T), truth.T)
    close(operator.jacobian @ np.eye(J.shape[1])[:, :3], j_rows(rows)[:, :3])


def j_rows(samples: list[int]) -> Tensor:
    return J.reshape(SAMPLES, OUTPUTS, -1)[samples].flatten(0, 1)


def test_a_block_costs_its_own_samples_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = DENOISER.network.forward
    monkeypatch.setattr(DENOISER.network, "forward", lambda x, t: (seen.append(len(x)), forward(x, t))[1])
    operator = NTKOperator(DENOISER, X, LEVELS, rows=[0], columns=[1, 2])
    seen.clear()
    operator.apply(torch.ones(2 * OUTPUTS).double())
    assert seen == [1]  # the graph of the columns was kept from trying out


def test_outputs_are_kept_by_a_mask() -> None:
    """One token of a DiT with patches of 2×2, for one bucket against another."""
    token = torch.zeros(SHAPE, dtype=torch.bool)
    token[:, :2, 2:] = True
    operator = NTKOperator(DENOISER, X, LEVELS, outputs=token, rows=[0, 1], columns=[2])
    parts = J.reshape(SAMPLES, OUTPUTS, -1)[:, token.flatten()]
    close(dense(operator), parts[:2].flatten(0, 1) @ parts[2].T)
    close(operator.jacobian.T @ np.eye(8), parts[:2].flatten(0, 1).T)


def test_channels_are_kept_by_a_mask() -> None:
    network = nd.models.build("dit", (2, 2, 2), width=4, depth=1, heads=1, frequencies=2).double()
    denoiser = Denoiser(network, schedules.cosine(), "v", call="log_snr")
    x = normal(2, 2, 2, 2)
    channel = torch.zeros(2, 2, 2, dtype=torch.bool)
    channel[1] = True
    j = jacobian(denoiser, (x, torch.zeros(2).double())).reshape(2, 8, -1)[:, 4:].flatten(0, 1)
    close(dense(NTKOperator(denoiser, x, 0.0, outputs=channel)), j @ j.T)


def test_parameters_are_chosen_by_their_name_in_the_network() -> None:
    chosen = [n for n, _ in DENOISER.named_parameters() if n.startswith(("network.out", "network.embed"))]
    j = jacobian(DENOISER, (X, LEVELS), chosen)
    operator = NTKOperator(DENOISER, X, LEVELS, params=["out.*", "embed.*"])
    assert operator.jacobian.shape == tuple(j.shape)
    close(dense(operator), j @ j.T)


def test_the_preconditioner_of_adam() -> None:
    denoiser = image_denoiser()
    optimizer = torch.optim.Adam(denoiser.network.parameters(), eps=1e-3)
    for step in range(2):
        optimizer.zero_grad()
        denoiser(X + step, LEVELS).square().sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    scale = adam(optimizer, denoiser.network)
    j = jacobian(denoiser, (X, LEVELS))
    flat = torch.cat([scale[name].flatten() for name, _ in denoiser.network.named_parameters()])
    found = NTKOperator(denoiser, X, LEVELS, preconditioner=scale, rows=[0, 1], columns=[1, 2])
    close(dense(found), (j[: 2 * OUTPUTS] / flat) @ j[OUTPUTS : 3 * OUTPUTS].T)
    close(dense(found.T), (j[OUTPUTS : 3 * OUTPUTS] / flat) @ j[: 2 * OUTPUTS].T)
    prefixed = {f"network.{name}": each for name, each in scale.items()}
    ones = torch.ones(1, *SHAPE, dtype=torch.float64)
    gram = nd.gram_of(denoiser, (X, LEVELS), ones, preconditioner=prefixed)
    whole = NTKOperator(denoiser, X, LEVELS, preconditioner=scale)
    assert float((whole @ np.ones(len(j))).sum()) == pytest.approx(float(gram.sum()), rel=1e-10)


# --- identities, for any vectors


seeds = st.integers(0, 2**31)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([1, 2, SAMPLES, None]), st.sampled_from([None, [0], [3, 1]]))
def test_the_two_products_are_adjoint(seed: int, chunk: int | None, rows: Any) -> None:
    j = NTKOperator(DENOISER, X, LEVELS, chunk=chunk, rows=rows).jacobian
    u, v = normal(j.shape[1], seed=seed).numpy(), normal(j.shape[0], seed=seed + 1).numpy()
    pushed, pulled = j @ u, j.T @ v
    assert pushed @ v == pytest.approx(u @ pulled, abs=1e-11 * np.linalg.norm(pushed) * np.linalg.norm(v))


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans(), st.floats(-3, 3))
def test_the_operator_is_symmetric_positive_and_linear(seed: int, scaled: bool, factor: float) -> None:
    scale = {n: 0.5 + normal(*p.shape, seed=9).abs() for n, p in DENOISER.network.named_parameters()}
    operator = NTKOperator(DENOISER, X, LEVELS, preconditioner=scale if scaled else None)
    a, b = normal(len(J), seed=seed), normal(len(J), seed=seed + 1)
    left, right = operator.apply(a), operator.apply(b)
    size = float(left.norm() * b.norm())
    assert float(left @ b) == pytest.approx(float(a @ right), abs=1e-11 * size)
    assert float(a @ left) >= 0
    torch.testing.assert_close(operator.apply(a + factor * b), left + factor * right, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        operator.apply(torch.stack([a, b], 1)), torch.stack([left, right], 1), rtol=0, atol=0
    )


# --- scipy takes it as it is


TRUTH = np.linalg.eigvalsh((J @ J.T).numpy())


def test_eigsh() -> None:
    found, vectors = eigsh(NTKOperator(DENOISER, X, LEVELS), k=5)
    np.testing.assert_allclose(found, TRUTH[-5:], rtol=1e-9)
    np.testing.assert_allclose((J @ J.T).numpy() @ vectors, vectors * found, atol=1e-8 * TRUTH[-1])


def test_lobpcg() -> None:
    start = normal(len(J), 3, seed=5).numpy()
    found, _ = lobpcg(NTKOperator(DENOISER, X, LEVELS), start, largest=True, tol=1e-8, maxiter=100)
    np.testing.assert_allclose(np.sort(found), TRUTH[-3:], rtol=1e-6)


def test_cg() -> None:
    """Kernel ridge regression: (K + κ) a = y, with the shift added by scipy's own arithmetic of operators."""
    operator, wanted = NTKOperator(DENOISER, X, LEVELS), normal(len(J), seed=6).numpy()
    kappa = 0.1 * TRUTH[-1]
    shifted = operator + kappa * LinearOperator(operator.shape, matvec=lambda v: v, dtype=operator.dtype)
    found, failed = cg(shifted, wanted, rtol=1e-12)
    assert failed == 0
    truth = np.linalg.solve((J @ J.T).numpy() + kappa * np.eye(len(J)), wanted)
    np.testing.assert_allclose(found, truth, rtol=1e-8, atol=1e-12)
