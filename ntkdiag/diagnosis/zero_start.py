"""Networks at their zero start: a last layer of zeros, as adaLN-zero transformers and many U-Nets begin.

Nothing but that layer has a gradient then, so that the kernel is that of the last layer and says nothing of the rest. A
control at its zero start gets random weights there, scaled as those of a linear layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ntkdiag.conditions import Conditions, rows_of
from ntkdiag.data.samples import Samples
from ntkdiag.denoiser import Denoiser
from ntkdiag.kernel.autograd import PlainAutograd
from ntkdiag.kernel.sharded import gathering_of, sharded_as, with_values
from ntkdiag.modes import measuring
from ntkdiag.process.log_snr import level_like
from ntkdiag.randomness import generator

_SAMPLES = 2


def zero_last_layer(denoiser: Denoiser, samples: Samples, cond: Conditions | None = None) -> tuple[str, ...]:
    """Names of the weights of zero that keep every other parameter from having a gradient.

    Args:
        denoiser: The network.
        samples: Data, [N, *shape]; two are used.
        cond: Conditions of the samples by name, [N, ...].

    Returns:
        Parameters of at least two axes; empty where the network is not at a zero start.
    """
    network = denoiser.network
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    if not any(map(_is_zero_weight, with_values(network, trained))):
        return ()
    moved = _with_gradient(denoiser, samples, cond or {}, trained)
    last = {name: trained[name] for name in moved}
    alone = moved and len(moved) < len(trained) and not any(v.any() for v in with_values(network, last))
    return tuple(name for name in moved if trained[name].ndim > 1) if alone else ()


def wake(network: nn.Module, names: tuple[str, ...], seed: int) -> None:
    """Give weights of zero normal numbers of standard deviation 1/√(inputs of one output).

    Args:
        network: Changed in place; every process that has a part of it calls this.
        names: Of its parameters, as `zero_last_layer` returns them.
        seed: Of the numbers.
    """
    random = generator(seed, "zero start")
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name in names:
            weight = parameters[name]
            inputs = weight.numel() // weight.shape[0]
            values = torch.randn(weight.shape, generator=random) / math.sqrt(inputs)
            weight.copy_(sharded_as(weight, values))


def _with_gradient(
    denoiser: Denoiser, samples: Samples, cond: Conditions, trained: dict[str, nn.Parameter]
) -> list[str]:
    """Names of the parameters that have a gradient from a random direction of the output, at random inputs."""
    place = next(iter(trained.values()))
    level = float(denoiser.schedule.quantile(0.5))
    x = samples[:_SAMPLES].to(place)
    few = rows_of(denoiser.conditions_from(cond), torch.arange(len(x)))
    with torch.inference_mode(False), torch.enable_grad(), measuring(denoiser):

        def direction(output: Tensor) -> Tensor:
            return torch.randn(output.shape, generator=generator(0, "zero start")).to(output)

        if gathering_of(denoiser) is not None:  # all gradients need not be there at the same time
            log_snr = level_like(level, place).expand(len(x))
            with PlainAutograd(denoiser, trained, lambda name, gradient: gradient.abs().sum()) as plain:
                sizes = plain.pull(denoiser.inputs(x, log_snr, few or None), direction)[1]
            return [name for name, size in sizes.items() if size is not None and bool(size > 0)]
        output = denoiser(x.clone(), level, few or None)
        found = torch.autograd.grad(
            (output * direction(output)).sum(),
            list(trained.values()),
            allow_unused=True,
            materialize_grads=True,
        )
    return [name for name, gradient in zip(trained, found, strict=True) if bool(gradient.any())]


def _is_zero_weight(value: Tensor) -> bool:
    return value.ndim > 1 and value.numel() > 0 and not bool(value.any())
