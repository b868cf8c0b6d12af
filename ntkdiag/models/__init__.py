"""Reference networks, one file each. All take (x, log_snr, cond=None) and return the shape of x."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from ntkdiag.errors import require_one_of, require_positive_int
from ntkdiag.models.dit import DiT
from ntkdiag.models.mlp import MLP

__all__ = ["MLP", "MODELS", "DiT", "build"]

MODELS: dict[str, type[MLP] | type[DiT]] = {"mlp": MLP, "dit": DiT}


def build(name: str, shape: tuple[int, ...], seed: int = 0, **options: Any) -> nn.Module:
    """Make a reference network with weights that depend on the seed alone.

    Args:
        name: "mlp" or "dit".
        shape: Shape of one sample, without the batch dimension.
        seed: Seed of the initial weights; torch's own generator is left as it was.
        options: Arguments of the network's class (`width`, `depth`, ...).

    Returns:
        The network, in float32 on torch's current default device. It takes the log-SNR itself:
        `Denoiser(network, ..., call="log_snr")`.

    Raises:
        InputError: unknown name or option, or sizes that do not fit together.
    """
    network = MODELS[require_one_of("model", name, MODELS)]
    known = [option for option in inspect.signature(network).parameters if option != "shape"]
    for option in options:
        require_one_of(f"option of model '{name}'", option, known)
    sizes = tuple(require_positive_int(f"shape {tuple(shape)}", size) for size in shape)
    # nn.Module initialisers draw from torch's default generator; lend it the seed and put it back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return network(sizes, **options)
