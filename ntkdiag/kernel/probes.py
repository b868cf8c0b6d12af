"""Probes: the output directions the Jacobian is contracted with, which decide what kernel is measured.

A cotangent v turns sample i into the parameter gradient g_i = J_iᵀ v; a kernel entry is g_i · g_j.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_positive_int


def sign_probes(
    output_shape: torch.Size, probes: int, seed: int, dtype: torch.dtype, *, exhaust: bool = True
) -> Tensor:
    """Random ±1 vectors shared by all samples: unbiased for the trace kernel (1/D) tr J_i J_jᵀ.

    The mean over probes of (J_iᵀ v)·(J_jᵀ v) is unbiased because E v vᵀ = I / D; its variance per probe is
    (2/D²)(‖S‖_F² − Σ_a S_aa²) with S the symmetric part of J_i J_jᵀ (Hutchinson 1990).

    Args:
        output_shape: Shape of one sample's output (D elements).
        probes: Number of vectors R; from D upwards the D one-hot vectors are returned, which is exact.
        seed: Seed of the signs, apart from those of data and noise.
        dtype: Floating dtype of the result.
        exhaust: Whether one-hot vectors may be returned. Those are no independent probes, whose spread would be an error.

    Returns:
        [R, *output_shape], scaled so that the kernel is the *mean* over probes.
    """
    require_positive_int("probes", probes)
    outputs = math.prod(output_shape)
    if probes >= outputs and exhaust:
        return all_outputs(output_shape, dtype)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (probes, *output_shape), generator=generator) * 2 - 1
    return signs.to(dtype) / math.sqrt(outputs)


def mean_probe(output_shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The one vector 1/√D, [1, *output_shape]: the kernel of the averaged output ("pseudo"), not the trace kernel."""
    return torch.full((1, *output_shape), 1 / math.sqrt(math.prod(output_shape)), dtype=dtype)


def orthonormal_probes(output_shape: torch.Size, probes: int, seed: int, dtype: torch.dtype) -> Tensor:
    """A random orthonormal basis V of an R-dimensional output subspace, [R, *output_shape].

    Vᵀ Θ V then has eigenvalues that interlace those of the full kernel Θ (Cauchy).

    Raises:
        InputError: more directions asked for than the output has.
    """
    require_positive_int("probes", probes)
    outputs = math.prod(output_shape)
    if probes > outputs:
        raise InputError("probes", expected=f"at most the {outputs} outputs of a sample", got=probes)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(outputs, probes, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(normal)
    vectors: Tensor = basis.T.reshape(probes, *output_shape).to(dtype)
    return vectors


def all_outputs(output_shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Every one-hot vector, [D, *output_shape]: the full kernel."""
    outputs = math.prod(output_shape)
    return torch.eye(outputs, dtype=dtype).reshape(outputs, *output_shape)
