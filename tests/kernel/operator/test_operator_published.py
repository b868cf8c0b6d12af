"""The operator on networks of others: diffusers' U-Nets, DiT and U-ViT, beside the streaming engine."""

from __future__ import annotations

import pytest
import torch
from networks.case import Build, Case
from operator_truth import normal
from references import relative_error
from streaming_truth import state

from ntkdiag.kernel import NTKOperator, gram_of
from ntkdiag.kernel.operator.products import DOUBLE_BACKWARD, FORWARD

pytest.importorskip("diffusers")
from networks.published import PUBLISHED

# Group norm of a strided activation, as attention leaves it here, has a forward-mode derivative since torch 2.14.
OTHERS = {"unet": FORWARD if torch.__version__ >= (2, 14) else DOUBLE_BACKWARD}
# This one normalises in float32 whatever its own precision.
TOLERANCE = {"masked_token_uvit": 1e-6}


@pytest.mark.parametrize("build", PUBLISHED, ids=lambda build: build.__name__)
def test_networks_of_others_agree_with_the_streaming_engine(build: Build) -> None:
    """For a vector v with the parts v_i of each sample, v_iᵀ K v is a row sum of the Gram matrix of the J_iᵀ v_i."""
    module, inputs = Case(build.__name__, build)(seed=0)
    before = state(module)
    operator = NTKOperator.of(module, inputs)
    v = normal(operator.shape[1])
    each = operator.apply(v) * v
    assert state(module) == before
    assert operator.method == OTHERS.get(build.__name__, FORWARD)
    samples = len(inputs[0])
    shape = module(*inputs).shape
    truth = gram_of(module, inputs, v.reshape(1, *shape))[0].sum(1)
    assert relative_error(each.reshape(samples, -1).sum(1), truth) < TOLERANCE.get(build.__name__, 1e-10)
