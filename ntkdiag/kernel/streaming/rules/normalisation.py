"""Affine parameters of normalisations: layer, group, instance, RMS, and batch norm in eval mode.

y = γ x̂ + β, so the per-sample gradients are Σ g x̂ and Σ g over the places that share γ and β; x̂ is computed again from the
layer's input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.rule import Formula, rule

Shape = tuple[int, ...]
Normalise = Callable[[Tensor], Tensor]


def _over_shape(normalise: Normalise) -> dict[str, Formula]:
    """Parameters of the normalised shape: inputs are [N, T, *normalized_shape]."""
    return {
        "weight": lambda grad, input: (grad * normalise(input)).sum(1),
        "bias": lambda grad: grad.sum(1),
    }


@rule(
    "layer norm",
    [functional.layer_norm, torch.layer_norm],
    core=lambda normalized_shape, **_: len(normalized_shape),
)
def layer_norm(
    input: Tensor,
    normalized_shape: Shape,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> dict[str, Formula]:
    """Normalised over the last dimensions."""
    return _over_shape(lambda x: functional.layer_norm(x, normalized_shape, None, None, eps))


@rule(
    "rms norm",
    [functional.rms_norm, torch.rms_norm],
    core=lambda normalized_shape, **_: len(normalized_shape),
)
def rms_norm(
    input: Tensor, normalized_shape: Shape, weight: Tensor | None = None, eps: float | None = None
) -> dict[str, Formula]:
    """Divided by the root mean square over the last dimensions."""
    return _over_shape(lambda x: functional.rms_norm(x, normalized_shape, None, eps))


def _all_but_first(input: Tensor, **_: object) -> int:
    return input.ndim - 1


def _over_channels(normalise: Normalise) -> dict[str, Formula]:
    """A parameter for each channel: inputs are [N, T, C, *positions]."""
    return {
        "weight": lambda grad, input: _channel_sums(
            grad * normalise(input.flatten(0, 1)).reshape(input.shape)
        ),
        "bias": _channel_sums,
    }


def _channel_sums(grad: Tensor) -> Tensor:
    """[N, T, C, *positions] → [N, C]."""
    return grad.reshape(*grad.shape[:3], -1).sum((1, 3))


@rule("group norm", [functional.group_norm, torch.group_norm], core=_all_but_first)
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> dict[str, Formula]:
    """Normalised over groups of channels."""
    return _over_channels(lambda x: functional.group_norm(x, num_groups, None, None, eps))


@rule("instance norm", [functional.instance_norm], core=_all_but_first)
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> dict[str, Formula]:
    """Normalised over the positions of each channel, by its own statistics or by running ones."""
    if use_input_stats:
        return _over_channels(lambda x: functional.instance_norm(x, eps=eps))
    return batch_norm(input, running_mean, running_var, eps=eps)


@rule("instance norm", [torch.instance_norm], core=_all_but_first)
def torch_instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> dict[str, Formula]:
    """The same with its arguments in another order."""
    return instance_norm(input, running_mean, running_var, use_input_stats=use_input_stats, eps=eps)


@rule("batch norm", [functional.batch_norm], core=_all_but_first)
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> dict[str, Formula]:
    """With running statistics: an affine map of each channel."""
    if training or running_mean is None:
        raise Unsupported("batch statistics, which mix samples")
    return _over_channels(
        lambda x: functional.batch_norm(x, running_mean, running_var, None, None, False, 0.0, eps)
    )


@rule("batch norm", [torch.batch_norm], core=_all_but_first)
def torch_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> dict[str, Formula]:
    """The same with its arguments in another order."""
    return batch_norm(input, running_mean, running_var, training=training, eps=eps)
