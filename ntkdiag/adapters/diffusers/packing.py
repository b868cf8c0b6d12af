"""Models of diffusers that take an image or a video as a sequence of patches: Flux, Flux 2, LTX-Video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError

PackedCall = Callable[[Tensor, Tensor, Mapping[str, Any]], Tensor]

# Side of Flux' patches, which its pipeline makes before the model.
_SIDE = 2


def packed_call(network: nn.Module, x_name: str, time_name: str) -> PackedCall | None:
    """The call of a model that takes patches; None for one that takes x as it is."""
    kind = type(network).__name__
    if kind == "FluxTransformer2DModel":
        return lambda x, time, cond: _flux(network, x, time, cond)
    if kind == "Flux2Transformer2DModel":
        return lambda x, time, cond: _flux2(network, x, time, cond)
    if kind == "LTXVideoTransformer3DModel":
        return lambda x, time, cond: _ltx(network, x, time, cond)
    return None


def _flux(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    """Flux on latents [N, C, H, W]: patches of 2 × 2, each with its place in img_ids; text has place 0."""
    _require("latents of Flux", x, 4, (2, 3))
    rows, columns = x.shape[2] // _SIDE, x.shape[3] // _SIDE
    given = dict(cond)
    ids = given.pop("img_ids", _places(rows, columns).to(x))
    text = given["encoder_hidden_states"]
    text_ids = given.pop("txt_ids", torch.zeros(text.shape[1], 3).to(x))
    output = network(
        hidden_states=pack(x), timestep=time, img_ids=ids, txt_ids=text_ids, return_dict=False, **given
    )[0]
    return unpack(output, rows, columns)


def _flux2(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    """Flux 2 on latents [N, 4C, H, W], whose channels are patches already; a place's fourth number counts words."""
    _require("latents of Flux 2", x, 4, ())
    rows, columns = x.shape[2:]
    given = dict(cond)
    places = torch.nn.functional.pad(_places(rows, columns), (0, 1))
    ids = given.pop("img_ids", places.to(x))
    words = torch.arange(given["encoder_hidden_states"].shape[1])
    text_ids = given.pop("txt_ids", torch.nn.functional.pad(words[:, None], (3, 0)).to(x))
    output = network(
        hidden_states=x.flatten(2).transpose(1, 2),
        timestep=time,
        img_ids=ids,
        txt_ids=text_ids,
        return_dict=False,
        **given,
    )[0]
    image: Tensor = output.transpose(1, 2).reshape(x.shape[0], -1, rows, columns)
    return image


def pack(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, H/2 · W/2, 4C]; in a patch channel comes first, then row, then column."""
    return to_channels(x, _SIDE).flatten(2).transpose(1, 2)


def to_channels(x: Tensor, side: int) -> Tensor:
    """Patches as channels, [N, C, H, W] → [N, side² C, H/side, W/side], in the order of `pack`.

    Raises:
        InputError: sides that patches do not divide.
    """
    if x.ndim != 4 or x.shape[2] % side or x.shape[3] % side:
        raise InputError(
            "latents",
            expected=f"[N, channels, height, width] with sides that {side} divides",
            got=list(x.shape),
        )
    samples, channels, height, width = x.shape
    parts = x.reshape(samples, channels, height // side, side, width // side, side)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(samples, -1, height // side, width // side)


def unpack(patches: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `pack`."""
    samples, _, size = patches.shape
    parts = patches.reshape(samples, rows, columns, size // _SIDE**2, _SIDE, _SIDE)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(samples, -1, rows * _SIDE, columns * _SIDE)


def _places(rows: int, columns: int) -> Tensor:
    """(0, row, column) of every patch, [rows · columns, 3]."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3)


def _ltx(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    """LTX-Video on latents [N, C, frames, H, W]: a token for every place."""
    _require("latents of LTX-Video", x, 5, ())
    tokens = x.flatten(2).transpose(1, 2)
    frames, height, width = x.shape[2:]
    sizes = {"num_frames": frames, "height": height, "width": width, **cond}
    output = network(hidden_states=tokens, timestep=time, return_dict=False, **sizes)[0]
    video: Tensor = output.transpose(1, 2).reshape(x.shape[0], -1, frames, height, width)
    return video


def _require(what: str, x: Tensor, axes: int, even: tuple[int, ...]) -> None:
    if x.ndim != axes or any(x.shape[axis] % _SIDE for axis in even):
        raise InputError(
            what,
            expected="[N, channels, height, width] with even sides" if axes == 4 else "[N, C, frames, H, W]",
            got=list(x.shape),
        )
