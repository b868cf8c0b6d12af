"""Every reference network with labels, by the engines and the operator, against plain autograd in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_networks import shaken
from references import brute_gram, relative_error
from streaming_truth import streamed

from ntkdiag import models, schedules
from ntkdiag.denoiser import Denoiser
from ntkdiag.kernel import NTKOperator, gram_of
from ntkdiag.models import MODELS

TINY = {
    "mlp": {"width": 6, "depth": 2},
    "dit": {"width": 8, "depth": 1, "heads": 2},
    # Attention at both levels; one of them has a group norm over groups of a single channel.
    "unet": {"channels": 2, "multipliers": (1, 3), "head_width": 3},
    "uvit": {"width": 8, "depth": 3, "heads": 2},
}
SAMPLES = 3


def inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 2, 4, 4, generator=generator, dtype=torch.float64)
    return x, torch.tensor([-6.0, 0.5, 7.0], dtype=torch.float64), torch.tensor([0, 2, 3])


@pytest.fixture(params=MODELS)
def network(request):
    return shaken(models.build(request.param, (2, 4, 4), frequencies=2, classes=3, **TINY[request.param]))


def directions(count):
    return torch.randn(
        count, SAMPLES, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def test_the_streaming_engine_serves_every_parameter_itself(network):
    cotangents = directions(2)
    found = streamed(network, inputs(), cotangents)
    assert found.engine == "streaming"
    assert not [how for how in found.coverage.values() if how.startswith("exact") or how == "unused"]
    assert relative_error(found.per_probe, brute_gram(network, inputs(), cotangents)) < 1e-10


def test_the_exact_engine_agrees_with_autograd(network):
    cotangents = directions(1)
    found = gram_of(network, inputs(), cotangents, engine="exact", check=False)
    assert relative_error(found, brute_gram(network, inputs(), cotangents)) < 1e-10


def test_the_operator_multiplies_with_the_full_kernel(network):
    x, level, label = inputs()
    denoiser = Denoiser(network, schedules.cosine(), "v", call="log_snr")
    operator = NTKOperator(denoiser, x, level, cond={"label": label})
    rows = []
    for value in network(x, level, label).flatten():
        grads = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    jacobian = torch.stack(rows)
    vector = torch.randn(len(jacobian), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert operator.method == "forward mode"
    assert relative_error(torch.as_tensor(operator @ vector.numpy()), jacobian @ (jacobian.T @ vector)) < 1e-9
