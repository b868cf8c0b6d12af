"""What is known of a network from elsewhere: how it is called, on which process, and what its output means.

Each family of networks has one file beside this one, whose function gives a `Reading`. `Denoiser` makes itself of it, and
the load check (`load_check/`) compares it with neighbouring ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError
from ntkdiag.process.log_snr import expand
from ntkdiag.process.schedules.base import Schedule

# From log-SNR [N] to the time that the network is called with, or to the factor of its input.
OfLevel = Callable[[Tensor], Tensor]
# (network, input [N, *shape], time [N], conditions by name) → output
Invoke = Callable[[nn.Module, Tensor, Tensor, Mapping[str, Any]], Tensor]
# (output, noisy input x, log-SNR [N]) → prediction
Convert = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Calling:
    """A call of a network in parts, each of which the load check can exchange.

    Called as `Denoiser` calls: `calling(network, x, log_snr, cond)`, with x and log_snr on the schedule. The prediction is
    sign · convert(invoke(network, scale(log_snr) · x, time(log_snr), conditions)).

    Attributes:
        invoke: Calls the network and takes the prediction out of what it returns.
        time: The time that the network is called with.
        time_name: The unit of that time, in words.
        scale: The factor of its input; None for 1.
        sign: −1 where the network predicts the negative of the target.
        convert: From the output to the prediction, where that is another quantity; None where they are the same.
        output_target: What the output itself is, where `convert` is given.
        arguments: Name of a condition of the data → the network's argument; other conditions are passed under their names.
            A bare tensor is the first of them.
        null: Name of a condition → the value that stands for none, where the network has one.
        defaults: From the noisy input to arguments that are used where no condition gives them.
        fixed: Whether time and scale are the user's own affair, inside `invoke`, and cannot be exchanged.
        whole_times: Whether the time is rounded to a whole number (int64), as tables of embeddings need.

    Example:
        >>> from ntkdiag.adapters import Calling
        >>> network = torch.nn.Linear(2, 2)
        >>> calling = Calling(lambda net, x, time, cond: net(x), time=torch.sigmoid, time_name="α²", sign=-1.0)
        >>> nd.Denoiser(network, nd.schedules.cosine(), "v", call=calling)(torch.zeros(3, 2), 0.0).shape
        torch.Size([3, 2])
    """

    invoke: Invoke
    time: OfLevel
    time_name: str
    scale: OfLevel | None = None
    sign: float = 1.0
    convert: Convert | None = None
    output_target: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    null: Mapping[str, Any] = field(default_factory=dict)
    defaults: Callable[[Tensor], Mapping[str, Any]] = field(default=lambda x: {})
    whole_times: bool = False
    fixed: bool = False

    def __call__(self, network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        output = self.output(network, x, log_snr, cond)
        prediction = output if self.convert is None else self.convert(output, x, log_snr)
        return prediction if self.sign == 1.0 else self.sign * prediction

    def output(self, network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        """What the network returns, before sign and conversion; [N, *shape]."""
        time = self.time(log_snr)
        told = time.round().long() if self.whole_times else time
        scaled = x if self.scale is None else x * expand(self.scale(log_snr), x)
        return self.invoke(network, scaled, told, self.conditions(x, cond))

    def conditions(self, x: Tensor, cond: Any) -> dict[str, Any]:
        """Conditions by the network's own names.

        Args:
            x: The noisy input, for the number of samples and the device.
            cond: None, a tensor (the first condition), or a mapping from names.
        """
        if cond is None:
            return dict(self.defaults(x))
        given = cond if isinstance(cond, Mapping) else {next(iter(self.arguments), "cond"): cond}
        return {
            **self.defaults(x),
            **{self.arguments.get(name, name): value for name, value in given.items()},
        }


@dataclass(frozen=True)
class Reading:
    """A network with what is stated of it.

    Attributes:
        network: The module.
        schedule: The process that it was trained on.
        target: What the call predicts.
        call: How it is called.

    Example:
        >>> reading = denoiser.reading
        >>> reading.target, reading.call.time_name
        ('v', 'log-SNR')
    """

    network: nn.Module
    schedule: Schedule
    target: str
    call: Calling


def whole_times(time: OfLevel) -> Calling:
    """The call network(x, time, conditions …) with times rounded to whole numbers."""

    def invoke(network: nn.Module, x: Tensor, steps: Tensor, cond: Mapping[str, Any]) -> Tensor:
        prediction: Tensor = network(x, steps, *cond.values())
        return prediction

    return Calling(invoke, time, "whole steps", whole_times=True)


def require_module(what: str, network: Any) -> nn.Module:
    """Return `network` if it is a module.

    Raises:
        InputError: otherwise.
    """
    if not isinstance(network, nn.Module):
        raise InputError(what, expected="a torch.nn.Module", got=type(network).__name__)
    return network


def first_channels(output: Any, x: Tensor) -> Tensor:
    """The prediction in what a network returns: of 2C channels (with a learned variance) the first C.

    Args:
        output: A tensor, a tuple that begins with one, or an object with `sample`.
        x: The network's input, [N, C, ...].
    """
    if isinstance(output, tuple | list):
        output = output[0]
    output = getattr(output, "sample", output)
    learned_variance = (
        isinstance(output, Tensor)
        and output.ndim == x.ndim > 2
        and output.shape[1] == 2 * x.shape[1]
        and output.shape[2:] == x.shape[2:]
    )
    prediction: Tensor = output[:, : x.shape[1]] if learned_variance else output
    return prediction


def sigma_of(log_snr: Tensor) -> Tensor:
    """The noise level σ/α."""
    return torch.exp(-log_snr / 2)
