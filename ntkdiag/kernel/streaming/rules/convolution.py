"""Convolutions and transposed convolutions in 1 to 3 dimensions: stride, padding, dilation, groups.

A convolution is a linear map of windows, so its per-sample gradient is a sum over window positions of
(output gradient) ⊗ (window); a transposed one exchanges the roles of input and output.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.contraction.gradients import Unformed
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.rule import Formula, rule

Sizes = tuple[int, ...]
Size = int | Sizes

# Bytes of windows unfolded at a time: samples are taken in chunks of this size. Tuned here: on a CPU, what its second cache
# holds takes half the time of 64 MiB.
WINDOW_BYTES = {"cpu": 1024**2, "cuda": 64 * 1024**2}


def _image_dims(input: Tensor, weight: Tensor, **_: Any) -> int:
    """Channels and positions: only the first dimension of a batch is repeated over."""
    return weight.ndim - 1


@rule("convolution", [torch.conv1d, torch.conv2d, torch.conv3d], core=_image_dims)
def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> dict[str, Formula]:
    """y = conv(x, W) + b; x [n, C, *positions], W [O, C/groups, *window]."""
    _require_batch(input, weight)
    window = weight.shape[2:]
    steps, spacing = _per_dimension(stride, window), _per_dimension(dilation, window)
    before, after = _padding(padding, window, spacing)

    def weight_gradient(grad: Tensor, input: Tensor) -> Tensor | Unformed:
        return _gradient(grad, input, (before, after), window, steps, spacing, groups)

    return {"weight": weight_gradient, "bias": _channel_sums}


TRANSPOSED = [torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d]


@rule("transposed convolution", TRANSPOSED, core=_image_dims)
def transposed_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> dict[str, Formula]:
    """x = convᵀ(y, W) + b; W [C_in, C_out/groups, *window]."""
    _require_batch(input, weight)
    window = weight.shape[2:]
    steps, spacing = _per_dimension(stride, window), _per_dimension(dilation, window)
    pad = _per_dimension(padding, window)

    def weight_gradient(grad: Tensor, input: Tensor) -> Tensor | Unformed:
        # position o of the input reaches window o·stride of the padded output: windows are taken of the gradient
        return _gradient(input, grad, (pad, pad), window, steps, spacing, groups)

    return {"weight": weight_gradient, "bias": _channel_sums}


def _channel_sums(grad: Tensor) -> Tensor:
    """[N, T, C, *positions] → [N, C]."""
    return grad.flatten(3).mT.flatten(1, 2).sum(1)


def _gradient(
    left: Tensor, right: Tensor, padding: tuple[Sizes, Sizes], window: Sizes, *geometry: Any
) -> Tensor | Unformed:
    """`_window_products`; without groups, left to whoever needs them: a sketch has fewer channels."""

    def form(channels: Tensor, right: Tensor) -> Tensor:
        return _window_products(channels, _pad(right, *padding), window, *geometry)

    if geometry[-1] > 1:
        return form(left, right)
    return Unformed(left, right, form, left.shape[2] * right.shape[2] * math.prod(window))


def _window_products(
    grad: Tensor, padded: Tensor, window: Sizes, stride: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    """Σ over positions of grad ⊗ window, [N, O, C/groups, *window].

    Args:
        grad: [N, T, O, *positions].
        padded: [N, T, C, *padded positions]; windows are read from here.
        window, stride, dilation: One number for each spatial dimension.
        groups: Channel groups.
    """
    outputs, channels, size = grad.shape[2], padded.shape[2], math.prod(window)
    positions = tuple(grad.shape[3:])
    per_image = channels * size * math.prod(positions) * padded.element_size()
    limit = WINDOW_BYTES.get(padded.device.type, WINDOW_BYTES["cuda"])
    chunk = max(1, limit // max(1, per_image * padded.shape[1]))
    found: Tensor | None = None
    for start in range(0, len(padded), chunk):
        some, seen = padded[start : start + chunk], grad[start : start + chunk]
        count, folded = some.shape[:2]
        unfolded = _windows(
            some.flatten(0, 1), window, stride, dilation, positions
        )  # [c·T, C, window, positions]
        columns = unfolded.reshape(count, folded, groups, channels // groups * size, -1)
        left = seen.reshape(count, folded, groups, outputs // groups, -1)
        product = left @ columns.mT  # [c, T, groups, O/groups, C/groups·window]
        summed = product.squeeze(1) if folded == 1 else product.sum(1)
        summed = summed.reshape(count, outputs, channels // groups, *window)
        if count == len(padded):
            return summed
        if found is None:
            found = summed.new_empty(len(padded), *summed.shape[1:])
        found[start : start + chunk] = summed
    assert found is not None  # there is a sample
    return found


def _windows(padded: Tensor, window: Sizes, stride: Sizes, dilation: Sizes, positions: Sizes) -> Tensor:
    """Every window as a view, [n, C, *window, *positions] with both flattened."""
    steps = padded.stride()
    space = range(len(window))
    inside = (steps[2 + d] * dilation[d] for d in space)
    between = (steps[2 + d] * stride[d] for d in space)
    view = padded.as_strided(
        (*padded.shape[:2], *window, *positions), (*steps[:2], *inside, *between), padded.storage_offset()
    )
    return view.reshape(*padded.shape[:2], math.prod(window), math.prod(positions))


def _pad(x: Tensor, before: Sizes, after: Sizes) -> Tensor:
    pairs = [size for d in reversed(range(len(before))) for size in (before[d], after[d])]
    return functional.pad(x, pairs) if any(pairs) else x


def _padding(padding: Size | str, window: Sizes, dilation: Sizes) -> tuple[Sizes, Sizes]:
    """Zeros before and after, a number for each spatial dimension; "same" puts the odd one after."""
    if padding == "same":
        total = tuple(d * (w - 1) for d, w in zip(dilation, window, strict=True))
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    both = _per_dimension(0 if isinstance(padding, str) else padding, window)
    return both, both


def _per_dimension(value: Size, window: Sizes) -> Sizes:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * len(window) if len(values) == 1 else values


def _require_batch(input: Tensor, weight: Tensor) -> None:
    if input.ndim != weight.ndim:
        raise Unsupported("a convolution without a batch dimension")
