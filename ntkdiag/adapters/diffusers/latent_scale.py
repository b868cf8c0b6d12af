"""From what a VAE encodes to what its network takes: patches where the pipeline makes them, then a shift and a factor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.adapters.diffusers.packing import to_channels
from ntkdiag.errors import InputError

# Networks whose pipeline normalises latents by the VAE's batch norm as `LatentScale.of` does. Others take the same VAE with
# other patches or another ε.
_BY_BATCH_NORM = ("Flux2Transformer2DModel",)


@dataclass(frozen=True)
class LatentScale:
    """A latent is (z − shift) · factor, of z in patches of `side` × `side` as channels.

    Attributes:
        shift, factor: One for all channels or one for each.
        side: 1 where there are no patches.
        text: In words.
    """

    shift: Tensor
    factor: Tensor
    side: int
    text: str

    @classmethod
    def of(cls, vae: nn.Module, path: Path, network: str) -> LatentScale:
        """What a VAE states: scaling_factor and shift_factor, a mean and deviation for each channel, or batch norm.

        Args:
            vae: With its weights.
            path: Its folder, for errors.
            network: The class of the network beside it.

        Raises:
            InputError: it states none of these, or a number that cannot be.
        """
        config = getattr(vae, "config", {})
        if hasattr(vae, "bn"):
            return cls._of_batch_norm(vae, path, network)
        mean, deviation = (_constant(vae, config, name) for name in ("latents_mean", "latents_std"))
        if (mean is None) != (deviation is None):
            raise InputError(
                str(path),
                expected="a VAE that states scaling_factor and shift_factor",
                got=type(vae).__name__,
            )
        scaling = _number(path, config, "scaling_factor", 1.0)
        if scaling == 0:
            raise InputError(str(path), expected="a scaling_factor other than 0", got="0")
        shift = _number(path, config, "shift_factor", 0.0)
        if mean is None or deviation is None:
            text = f"scaling {scaling:g}, shift {shift:g}"
            return cls(torch.tensor(shift), torch.tensor(scaling), 1, text)
        return cls(mean, scaling / deviation, 1, f"scaling {scaling:g}, mean and std")

    @classmethod
    def _of_batch_norm(cls, vae: nn.Module, path: Path, network: str) -> LatentScale:
        """The running mean and variance of the batch norm of AutoencoderKLFlux2, on patches."""
        norm: Any = vae.bn
        config = getattr(vae, "config", {})
        if network not in _BY_BATCH_NORM:
            raise InputError(
                str(path),
                expected=f"a VAE with batch norm beside {' or '.join(_BY_BATCH_NORM)}, whose latents are known",
                got=f"{type(vae).__name__} beside {network}",
                fix="Give latents as the network takes them, and say so with {latents}.",
                arguments={"latents": True},
            )
        sides = config.get("patch_size")
        plain = isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and not norm.affine
        if not plain or not isinstance(sides, list | tuple) or len(set(sides)) != 1:
            raise InputError(
                str(path), expected="a batch norm with running statistics, and square patches", got=repr(norm)
            )
        epsilon = _number(path, config, "batch_norm_eps", norm.eps)
        factor = (norm.running_var.detach().float() + epsilon).rsqrt()
        return cls(norm.running_mean.detach().float(), factor, int(sides[0]), "running mean and variance")

    def __call__(self, z: Tensor) -> Tensor:
        """Latents [N, side² c, h / side, …] of what the VAE encodes, [N, c, h, …].

        Raises:
            InputError: sides that patches do not divide.
        """
        parts = z.float() if self.side == 1 else to_channels(z.float(), self.side)
        shift, factor = (_over_channels(part, parts) for part in (self.shift, self.factor))
        return (parts - shift) * factor


def _constant(vae: nn.Module, config: Mapping[str, Any], name: str) -> Tensor | None:
    """A number for each channel, in the config or a buffer."""
    stated = config.get(name)
    found = dict(vae.named_buffers()).get(name) if stated is None else torch.tensor(stated)
    return None if found is None else found.detach().float().reshape(-1)


def _number(path: Path, config: Mapping[str, Any], name: str, usual: float) -> float:
    value = config.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(str(path), expected=f"a finite number as {name}", got=repr(value))
    return float(value)


def _over_channels(part: Tensor, like: Tensor) -> Tensor:
    return part.to(like.device).reshape(-1, *(1,) * (like.ndim - 2))
