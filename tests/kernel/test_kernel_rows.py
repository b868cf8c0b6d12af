"""The engines that form every row gradient, exact and autograd, against closed forms and a loop over samples and outputs."""

from __future__ import annotations

import kernel_truth
import pytest
import torch
from kernel_networks import Tied, dit_denoiser, linear, mlp_denoiser, normal, perceptron, shaken
from torch import Tensor, nn

from ntkdiag.kernel import autograd, exact
from ntkdiag.kernel.directions import given
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.row_grams import RowGradients, Rows, grouped_grams

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(params=[exact, autograd], ids=["exact", "autograd"])
def row_gradients(request: pytest.FixtureRequest) -> RowGradients:
    return request.param.row_gradients


def gram(
    row_gradients: RowGradients,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    memory: int | None = None,
    names: str | None = None,
    inverse_preconditioner: dict[str, Tensor] | None = None,
) -> Tensor:
    parameters = select_parameters(module.eval(), names)
    problem = Problem(
        module, parameters, inputs, given(cotangents), str, inverse_preconditioner or {}, memory
    )
    grams = grouped_grams(row_gradients, problem, cotangents)
    assert grams.keys() == parameters.keys()
    return torch.stack(list(grams.values())).sum(0)


def per_sample(cotangents: Tensor, samples: int) -> Tensor:
    """[R, *out] → [R, N, *out]."""
    return cotangents[:, None].expand(-1, samples, *cotangents.shape[1:])


def cases() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    level = torch.tensor([-3.0, 0.5, 2.0], dtype=torch.float64)
    convolution = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.SiLU(), nn.Conv2d(2, 1, 3)
    )
    return {
        "perceptron": (perceptron(), (normal(4, 3),)),
        "denoiser": (mlp_denoiser(), (normal(3, 3, 2), level)),
        "attention": (dit_denoiser(), (normal(3, 1, 4, 4), level)),
        "labels": (dit_denoiser(classes=3), (normal(3, 1, 4, 4), level, torch.tensor([0, 2, 2]))),
        "convolution": (shaken(convolution), (normal(3, 1, 5, 5),)),
        "tied": (shaken(Tied()), (normal(4, 4),)),
        "batch norm": (shaken(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh())), (normal(3, 3),)),
    }


@pytest.mark.parametrize("case", cases())
def test_rows_are_those_of_a_loop_over_samples_and_outputs(case: str, row_gradients: RowGradients) -> None:
    module, inputs = cases()[case]
    module.eval()
    truth = kernel_truth.jacobian(module, inputs)
    samples, out = inputs[0].shape[0], module(*inputs).shape[1:]
    each_output = torch.eye(out.numel(), dtype=truth.dtype).reshape(-1, 1, *out).expand(-1, samples, *out)
    for output, vectors in enumerate(each_output):
        found = row_gradients(module, select_parameters(module), inputs, vectors)
        torch.testing.assert_close(torch.cat(list(found.values()), 1), truth[:, output], **TOLERANCE)
    cotangents = normal(3, samples, *out, seed=5)
    torch.testing.assert_close(
        gram(row_gradients, module, inputs, cotangents),
        kernel_truth.contracted(truth, cotangents),
        **TOLERANCE,
    )


def test_a_linear_network_has_its_closed_form(row_gradients: RowGradients) -> None:
    """f = W x + b: J_iᵀ v_i = (v_i x_iᵀ, v_i), so entries are (v_i · v_j)(x_i · x_j + 1)."""
    x, cotangents = normal(6, 3), normal(2, 6, 5, seed=1)
    inner = x @ x.T + 1
    expected = torch.einsum("ria,rja->rij", cotangents, cotangents) * inner
    torch.testing.assert_close(gram(row_gradients, linear(), (x,), cotangents), expected, **TOLERANCE)


@pytest.mark.parametrize("memory", [None, 1, 0, 1_000, 5_000, 10**9])
def test_memory_changes_nothing_but_the_work(memory: int | None, row_gradients: RowGradients) -> None:
    module, x, cotangents = perceptron(), normal(7, 3), normal(2, 7, 4, seed=2)
    expected = kernel_truth.contracted(kernel_truth.jacobian(module, (x,)), cotangents)
    torch.testing.assert_close(gram(row_gradients, module, (x,), cotangents, memory), expected, **TOLERANCE)


def test_memory_bounds_the_rows_that_exist_at_a_time(row_gradients: RowGradients) -> None:
    seen: list[int] = []

    def counting(module: nn.Module, parameters: dict, inputs: tuple[Tensor, ...], vectors: Tensor) -> Rows:
        rows = row_gradients(module, parameters, inputs, vectors)
        seen.append(sum(part.numel() * part.element_size() for part in rows.values()))
        return rows

    module, x, cotangents = perceptron(), normal(7, 3), normal(1, 7, 4, seed=2)
    one_row = sum(p.numel() * 8 for p in module.parameters())
    gram(counting, module, (x,), cotangents, memory=5 * one_row)
    assert max(seen) == 2 * one_row  # two tiles of two samples


def test_weights_scale_each_parameters_share(row_gradients: RowGradients) -> None:
    module, x, cotangents = perceptron(), normal(4, 3), normal(2, 4, 4, seed=3)
    weights = {name: normal(*p.shape, seed=4).abs() for name, p in module.named_parameters()}
    scale = torch.cat([part.flatten() for part in weights.values()])
    truth = kernel_truth.jacobian(module, (x,)) * scale.sqrt()
    torch.testing.assert_close(
        gram(row_gradients, module, (x,), cotangents, inverse_preconditioner=weights),
        kernel_truth.contracted(truth, cotangents),
        **TOLERANCE,
    )


def test_tied_weights_count_once_with_the_sum_of_their_uses(row_gradients: RowGradients) -> None:
    module = shaken(Tied())
    x, cotangents = normal(4, 4), normal(1, 4, 4, seed=6)
    split = shaken(Tied())
    split.load_state_dict(module.state_dict())
    split.decode.weight = nn.Parameter(module.encode.weight.detach().clone())
    truth = kernel_truth.jacobian(split, (x,))
    names = [name for name, p in split.named_parameters() for _ in range(p.numel())]
    first = truth[:, :, [name == "encode.weight" for name in names]]
    second = truth[:, :, [name == "decode.weight" for name in names]]
    found = gram(row_gradients, module, (x,), cotangents, names="encode.weight")
    torch.testing.assert_close(found, kernel_truth.contracted(first + second, cotangents), **TOLERANCE)
    apart = kernel_truth.contracted(first, cotangents) + kernel_truth.contracted(second, cotangents)
    assert not torch.allclose(found, apart, rtol=1e-2)


def test_the_result_is_float64_whatever_the_network_is(row_gradients: RowGradients) -> None:
    module, x, cotangents = perceptron(), normal(5, 3), normal(2, 5, 4, seed=2)
    wide = gram(row_gradients, module, (x,), cotangents)
    narrow = gram(row_gradients, module.float(), (x.float(),), cotangents.float())
    assert narrow.dtype == wide.dtype == torch.float64
    torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=1e-5)
    assert not torch.equal(narrow, wide)


def test_no_gradient_is_left_behind(row_gradients: RowGradients) -> None:
    module = perceptron()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    found = gram(row_gradients, module, (normal(4, 3),), normal(1, 4, 4))
    assert not found.requires_grad
    for name, parameter in module.named_parameters():
        assert parameter.grad is None and parameter.requires_grad and torch.equal(parameter, before[name])
