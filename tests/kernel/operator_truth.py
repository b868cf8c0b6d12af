"""What the tests of the operator share: the explicit Jacobian, random vectors, and a small image denoiser."""

from __future__ import annotations

from typing import Any

import torch
from networks.case import Inputs
from references import brute_rows
from torch import Tensor, nn

from ntkdiag import models
from ntkdiag.denoiser import Denoiser
from ntkdiag.kernel import NTKOperator, gram_of
from ntkdiag.process import schedules

SHAPE = (1, 4, 4)


def jacobian(module: nn.Module, inputs: Inputs, names: list[str] | None = None) -> Tensor:
    """J [N·D, P] by one backward an output, rows sample-major, columns in the module's order."""
    out = module(*(tensor.clone() for tensor in inputs))
    samples, outputs = out.shape[0], out[0].numel()
    each = torch.eye(outputs, dtype=out.dtype).reshape(outputs, 1, *out.shape[1:]).expand(-1, *out.shape)
    rows = brute_rows(module, inputs, each, names)
    return torch.cat([part.transpose(0, 1).reshape(samples * outputs, -1) for part in rows.values()], 1).cpu()


def gram_by(engine: str, module: nn.Module, inputs: Inputs, cotangents: Tensor, **options: Any) -> Tensor:
    """`gram_of` by an engine, or its entries v_iᵀ J_i J_jᵀ v_j by the operator: [R, N, N]."""
    if engine != "operator":
        return gram_of(module, inputs, cotangents, engine=engine, **options)
    operator, samples = NTKOperator.of(module, inputs, **options), len(inputs[0])
    width = operator.shape[0] // samples
    each = cotangents.numel() // len(cotangents) == samples * width and cotangents.shape[1] == samples
    rows = cotangents.reshape(len(cotangents), -1, width).expand(-1, samples, -1) if not each else cotangents
    grams = []
    for vectors in rows.reshape(len(cotangents), samples, width):
        blocks = torch.block_diag(*vectors[:, None]).T  # [N·D, N]
        grams.append(blocks.T.to(operator.like) @ operator.apply(blocks))
    return torch.stack(grams).double().detach()


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def image_denoiser(dtype: torch.dtype = torch.float64, **options: object) -> Denoiser:
    """A DiT on 1×4×4 images: attention, modulation, 16 outputs a sample."""
    network = models.build(
        "dit", SHAPE, seed=0, **{"width": 4, "depth": 1, "heads": 2, "frequencies": 2} | options
    )
    return Denoiser(network.to(dtype), schedules.cosine(), "v", call="log_snr")


def images(samples: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Noisy images and a log-SNR each."""
    return normal(samples, *SHAPE, seed=1, dtype=dtype), torch.linspace(-3, 3, samples, dtype=dtype)
