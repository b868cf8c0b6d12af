"""What one sample costs in a network: operations, which are the same on every machine, and seconds on this one."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ntkdiag.conditions import rows_of
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.kernel.work.operations import OperationCounter
from ntkdiag.modes import evaluating, measuring

# Samples of a timed pass.
_TIMED = 4


def forward_operations(denoiser: Denoiser, data: Data) -> int:
    """Floating point operations of the forward of one sample, two for each multiplication with an addition.

    Those of matrix products, convolutions and attention, as torch counts them; 0 for a network in which it cannot.

    Args:
        denoiser: The network.
        data: Whose first sample is taken.

    Example:
        >>> network = nd.models.build("mlp", (2,), width=8, depth=1)
        >>> denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> forward_operations(denoiser, nd.data.load("mixture")) > 0
        True
    """
    counter = OperationCounter()
    try:
        with evaluating(denoiser) as like:
            x, level, cond = _inputs(denoiser, data, 1, like)
            with counter:
                denoiser(x, level, cond)
    except Exception:  # such as a mode of torch that the network's code does not bear
        return 0
    return counter.total


def seconds_of_pass(denoiser: Denoiser, data: Data) -> float | None:
    """Seconds that a forward and backward pass of training takes here for each sample of a small batch.

    Args:
        denoiser: The network.
        data: Whose first samples are taken.

    Returns:
        None where the network has no gradient.
    """
    parameters = [one for one in denoiser.parameters() if one.requires_grad]
    try:
        with measuring(denoiser), torch.enable_grad():
            x, level, cond = _inputs(denoiser, data, min(_TIMED, len(data.train)), next(iter(parameters)))
            took = []
            for _ in range(2):  # the first also sets up what torch keeps for later
                started = time.perf_counter()
                output = denoiser(x, level, cond)
                found = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
                for gradient in found:  # an accelerator may not be there yet
                    if gradient is not None:
                        gradient.sum().item()
                        break
                took.append((time.perf_counter() - started) / len(x))
    except Exception:  # what is wrong with it, the measurement says
        return None
    return min(took)


def _inputs(
    denoiser: Denoiser, data: Data, count: int, like: Tensor
) -> tuple[Tensor, float, dict[str, Tensor] | None]:
    rows = torch.arange(count)
    cond = rows_of(denoiser.conditions_from(data.conditions), rows)
    return data.train[rows].to(like), float(denoiser.schedule.quantile(0.5)), dict(cond) or None
