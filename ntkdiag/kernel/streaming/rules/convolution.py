"""Convolutions and transposed convolutions in 1 to 3 dimensions: stride, padding, dilation, groups.

A convolution is a linear map of windows, so its per-sample gradient is a sum over window positions of
(output gradient) ⊗ (window); a transposed one exchanges the roles of input and output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.contraction.gradients import Dense
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.rule import Call, ParameterUse, Saved, rule
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis

# Bytes of windows unfolded at a time: samples are taken in chunks of this size.
WINDOW_BYTES = 64 * 1024**2

FORWARD = [torch.conv1d, torch.conv2d, torch.conv3d]
TRANSPOSED = [torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d]


@rule("convolution", FORWARD)
def convolution(call: Call) -> list[ParameterUse]:
    """y = conv(x, W) + b; x [n, C, *positions], W [O, C/groups, *window]."""
    bound = call.bind(
        "input",
        "weight",
        "bias",
        "stride",
        "padding",
        "dilation",
        "groups",
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
    )
    x, weight = bound["input"], bound["weight"]
    if call.is_parameter(x):
        raise Unsupported("a parameter as the input of a convolution")
    space = weight.ndim - 2
    _require_batch(x, space)
    stride, dilation = _tuple(bound["stride"], space), _tuple(bound["dilation"], space)
    before, after = _padding(bound["padding"], weight.shape[2:], dilation)
    uses = []
    if call.is_parameter(weight):
        saved, window, groups = Saved(x), tuple(weight.shape[2:]), bound["groups"]

        def gradient(grad: Tensor, axis: SampleAxis) -> Dense:
            padded = _pad(saved.get(), before, after)
            rows = _window_products(grad, padded, window, stride, dilation, groups, axis)
            return Dense(rows.reshape(axis.samples, *weight.shape))

        uses.append(ParameterUse(weight, gradient))
    return uses + _bias(call, bound["bias"])


@rule("transposed convolution", TRANSPOSED)
def transposed_convolution(call: Call) -> list[ParameterUse]:
    """x = convᵀ(y, W) + b; W [C_in, C_out/groups, *window]."""
    bound = call.bind(
        "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
        stride=1, padding=0, output_padding=0, groups=1, dilation=1,
    )  # fmt: skip
    x, weight = bound["input"], bound["weight"]
    if call.is_parameter(x):
        raise Unsupported("a parameter as the input of a convolution")
    space = weight.ndim - 2
    _require_batch(x, space)
    stride, dilation = _tuple(bound["stride"], space), _tuple(bound["dilation"], space)
    pad = _tuple(bound["padding"], space)
    uses = []
    if call.is_parameter(weight):
        saved, window, groups = Saved(x), tuple(weight.shape[2:]), bound["groups"]

        def gradient(grad: Tensor, axis: SampleAxis) -> Dense:
            # position o of x touches window o·stride of the padded output, so the windows are those of the gradient
            kept = saved.get()
            padded = _pad(grad, pad, pad)
            rows = _window_products(kept, padded, window, stride, dilation, groups, axis)
            return Dense(rows.reshape(axis.samples, *weight.shape))

        uses.append(ParameterUse(weight, gradient))
    return uses + _bias(call, bound["bias"])


def _bias(call: Call, bias: Any) -> list[ParameterUse]:
    if not call.is_parameter(bias):
        return []
    return [ParameterUse(bias, lambda grad, axis: Dense(_channels_last(grad, axis).sum(1)))]


def _channels_last(grad: Tensor, axis: SampleAxis) -> Tensor:
    """[N, k, C]."""
    _require_leading(axis)
    flat = grad.flatten(2).mT  # [n, positions, C]
    return axis.rows(flat, 1)


def _window_products(
    grad: Tensor, padded: Tensor, window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...],
    groups: int, axis: SampleAxis,
) -> Tensor:  # fmt: skip
    """Σ over positions of grad ⊗ window, [N, O, C/groups · window].

    Args:
        grad: [n, O, *positions].
        padded: [n, C, *padded positions], windows are read from here.
        window, stride, dilation: One number a spatial dimension.
        groups: Channel groups.
        axis: Samples in dimension 0, perhaps folded with frames or windows.
    """
    _require_leading(axis)
    outputs, channels, size = grad.shape[1], padded.shape[1], _product(window)
    dtype = torch.promote_types(grad.dtype, padded.dtype)
    positions = tuple(grad.shape[2:])
    per_image = padded.shape[1] * size * _product(positions) * padded.element_size()
    grads, images = axis.rows(grad, grad.ndim - 1), axis.rows(padded, padded.ndim - 1)  # [N, k, ...]
    chunk = max(1, WINDOW_BYTES // max(1, per_image * images.shape[1]))
    parts = []
    for start in range(0, axis.samples, chunk):
        some, seen = images[start : start + chunk], grads[start : start + chunk]
        count, folded = some.shape[:2]
        unfolded = _windows(
            some.flatten(0, 1), window, stride, dilation, positions
        )  # [c·k, C, window, positions]
        columns = unfolded.reshape(count, folded, groups, channels // groups * size, -1)
        left = seen.reshape(count, folded, groups, outputs // groups, -1)
        product = left.to(dtype) @ columns.to(dtype).mT  # [c, k, groups, O/groups, C/groups·window]
        summed = product.squeeze(1) if folded == 1 else product.sum(1)
        parts.append(summed.reshape(count, outputs, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _windows(
    padded: Tensor,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    positions: tuple[int, ...],
) -> Tensor:
    """Every window as a view, [n, C, *window, *positions] with both flattened."""
    steps = padded.stride()
    space = range(len(window))
    view = padded.as_strided(
        (*padded.shape[:2], *window, *positions),
        (
            *steps[:2],
            *(steps[2 + d] * dilation[d] for d in space),
            *(steps[2 + d] * stride[d] for d in space),
        ),
        padded.storage_offset(),
    )
    return view.reshape(*padded.shape[:2], _product(window), _product(positions))


def _pad(x: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
    pairs = [size for d in reversed(range(len(before))) for size in (before[d], after[d])]
    return functional.pad(x, pairs) if any(pairs) else x


def _padding(
    padding: Any, window: torch.Size, dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and after, a number a spatial dimension; "same" puts the odd one after."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = tuple(d * (w - 1) for d, w in zip(dilation, window, strict=True))
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    both = _tuple(padding, len(window))
    return both, both


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * count
    values = tuple(value)
    return values * count if len(values) == 1 else values


def _require_batch(x: Tensor, space: int) -> None:
    if x.ndim != space + 2:
        raise Unsupported("a convolution without a batch dimension")


def _require_leading(axis: SampleAxis) -> None:
    if axis.dim != 0:
        raise Unsupported("a convolution over the dimension that holds the samples")


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
