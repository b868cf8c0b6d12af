"""Reference networks, one file each. All take (x, log_snr, cond=None) and return the shape of x."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ntkdiag.errors import InputError, explain_calls, kind_of, require_one_of, require_positive_int
from ntkdiag.models.dit import DiT
from ntkdiag.models.mlp import MLP
from ntkdiag.models.unet import UNet
from ntkdiag.models.uvit import UViT

__all__ = ["MLP", "MODELS", "DiT", "UNet", "UViT", "build"]

MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "dit": DiT, "unet": UNet, "uvit": UViT}


def build(name: str, shape: tuple[int, ...], seed: int = 0, **options: Any) -> nn.Module:
    """Make a reference network whose initial weights depend on the seed alone.

    Args:
        name: "mlp", "dit", "unet" or "uvit".
        shape: Shape of one sample, without the batch dimension.
        seed: Seed of the initial weights; torch's own generator is left as it was.
        options: Arguments of the network's class (`width`, `depth`, ...).

    Returns:
        The network, in float32 on torch's default device. It is called with the log-SNR:
        `Denoiser(network, ..., call="log_snr")`.

    Raises:
        InputError: unknown name or option, or sizes that do not fit together.

    Example:
        >>> network = build("dit", (1, 8, 8), width=32, depth=2)
        >>> network(torch.zeros(3, 1, 8, 8), torch.zeros(3)).shape
        torch.Size([3, 1, 8, 8])
    """
    network = MODELS[require_one_of("model", name, MODELS)]
    known = [option for option in inspect.signature(network).parameters if option != "shape"]
    for option in options:
        require_one_of(f"option of model '{name}'", option, known)
    if not isinstance(shape, Iterable):
        raise InputError("shape", expected="the shape of one sample, such as (1, 8, 8)", got=kind_of(shape))
    sizes = tuple(require_positive_int(f"shape {tuple(shape)}", size) for size in shape)
    # Initialisers draw from torch's default generator, so it is seeded here and restored afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return network(sizes, **options)


explain_calls(__name__, "nd.models.build('mlp', shape)")
