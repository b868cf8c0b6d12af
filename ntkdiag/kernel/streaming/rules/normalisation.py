"""Affine parameters of normalisations: layer, group, instance, RMS, and batch norm in eval mode.

y = γ x̂ + β, so the gradients are those of a product and a sum; x̂ is recomputed from the layer's input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.contraction.broadcasting import reduce_to
from ntkdiag.kernel.streaming.contraction.gradients import Dense
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.rule import Call, ParameterUse, Saved, rule
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


@rule("layer norm", [functional.layer_norm, torch.layer_norm])
def layer_norm(call: Call) -> list[ParameterUse]:
    """Normalised over the last dimensions."""
    bound = call.bind("input", "normalized_shape", "weight", "bias", "eps", "cudnn_enable", eps=1e-5)
    shape, eps = tuple(bound["normalized_shape"]), bound["eps"]
    return _affine(call, bound, lambda x: functional.layer_norm(x, shape, None, None, eps), shape)


@rule("rms norm", [functional.rms_norm, torch.rms_norm])
def rms_norm(call: Call) -> list[ParameterUse]:
    """Divided by the root mean square over the last dimensions."""
    bound = call.bind("input", "normalized_shape", "weight", "eps")
    shape, eps = tuple(bound["normalized_shape"]), bound["eps"]
    return _affine(call, bound, lambda x: functional.rms_norm(x, shape, None, eps), shape)


@rule("group norm", [functional.group_norm, torch.group_norm])
def group_norm(call: Call) -> list[ParameterUse]:
    """Normalised over groups of channels."""
    bound = call.bind("input", "num_groups", "weight", "bias", "eps", "cudnn_enabled", eps=1e-5)
    groups, eps = bound["num_groups"], bound["eps"]
    return _affine(
        call, bound, lambda x: functional.group_norm(x, groups, None, None, eps), _channels(bound["input"])
    )


@rule("instance norm", [functional.instance_norm, torch.instance_norm])
def instance_norm(call: Call) -> list[ParameterUse]:
    """Normalised over the positions of each channel."""
    bound = call.bind(
        "input", *_middle(call), "use_input_stats", "momentum", "eps", "cudnn_enabled",
        use_input_stats=True, momentum=0.1, eps=1e-5,
    )  # fmt: skip
    mean, var, eps, own = bound["running_mean"], bound["running_var"], bound["eps"], bound["use_input_stats"]

    def normalise(x: Tensor) -> Tensor:
        if own:
            return functional.instance_norm(x, eps=eps)
        return functional.batch_norm(x, mean, var, None, None, False, 0.0, eps)

    return _affine(call, bound, normalise, _channels(bound["input"]))


@rule("batch norm", [functional.batch_norm, torch.batch_norm])
def batch_norm(call: Call) -> list[ParameterUse]:
    """With running statistics: an affine map of each channel."""
    bound = call.bind(
        "input", *_middle(call), "training", "momentum", "eps", "cudnn_enabled",
        training=False, momentum=0.1, eps=1e-5,
    )  # fmt: skip
    mean, var, eps = bound["running_mean"], bound["running_var"], bound["eps"]
    if bound["training"] or mean is None:
        raise Unsupported("batch statistics, which mix samples")
    return _affine(
        call,
        bound,
        lambda x: functional.batch_norm(x, mean, var, None, None, False, 0.0, eps),
        _channels(bound["input"]),
    )


def _middle(call: Call) -> tuple[str, ...]:
    """Arguments after the input: torch.nn.functional takes the statistics first, torch the parameters."""
    statistics, parameters = ("running_mean", "running_var"), ("weight", "bias")
    own = call.function in (torch.batch_norm, torch.instance_norm)
    return (*parameters, *statistics) if own else (*statistics, *parameters)


def _channels(x: Tensor) -> tuple[int, ...]:
    """The shape that a parameter a channel broadcasts by, [C, 1, ...]."""
    return (x.shape[1], *(1,) * (x.ndim - 2))


def _affine(
    call: Call, bound: dict[str, object], normalise: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> list[ParameterUse]:
    x, weight, bias = bound["input"], bound["weight"], bound.get("bias")
    assert isinstance(x, Tensor)  # every one of these operations takes a tensor first
    if call.is_parameter(x):
        raise Unsupported("a parameter as the input of a normalisation")
    uses = []
    if isinstance(weight, Tensor) and call.is_parameter(weight):
        saved, like = Saved(x), weight.detach().reshape(shape)

        def weight_form(grad: Tensor, axis: SampleAxis) -> Dense:
            return _reshaped(reduce_to(grad * normalise(saved.get()), like, axis), axis, like, weight)

        uses.append(ParameterUse(weight, weight_form))
    if isinstance(bias, Tensor) and call.is_parameter(bias):
        flat = bias.detach().reshape(shape)
        uses.append(
            ParameterUse(bias, lambda grad, axis: _reshaped(reduce_to(grad, flat, axis), axis, flat, bias))
        )
    return uses


def _reshaped(dense: Dense, axis: SampleAxis, like: Tensor, parameter: Tensor) -> Dense:
    if dense.own is not None:
        raise Unsupported(f"a normalisation over the dimension that holds the samples ({tuple(like.shape)})")
    return Dense(dense.rows.reshape(axis.samples, *parameter.shape))
