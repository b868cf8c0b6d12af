"""What a network returns on the samples of the load check, in one way of calling it, and the errors of a meaning of that."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.adapters.load_check.draws import CheckDraws
from ntkdiag.adapters.load_check.errors import Errors, errors
from ntkdiag.adapters.reading import Calling, Reading
from ntkdiag.errors import InputError, first_line
from ntkdiag.process.log_snr import level_like


def stated_outputs(reading: Reading, draws: CheckDraws) -> tuple[Tensor, Tensor]:
    """What the network returns as it is stated to be called, and what that predicts; [B, N, *shape] each.

    Raises:
        InputError: the forward fails, or returns another shape.
    """
    try:
        output = _forward(reading, reading.call, draws)
        predicted = predictions_of(reading, reading.call, output, draws)
        if predicted.shape[1:] != draws.x0.shape:
            raise ValueError(f"an output of shape {list(predicted.shape[2:])}")
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            "network",
            expected=f"one that takes samples of shape {list(draws.x0.shape[1:])} at {reading.call.time_name}",
            got=first_line(error),
        ) from error
    return output, predicted


def outputs_of(reading: Reading, call: Calling, draws: CheckDraws) -> Tensor | None:
    """What the network returns in another way of calling it, [B, N, *shape]; None where it fails."""
    try:
        output = _forward(reading, call, draws)
    except Exception:  # a table of embeddings without such a row, for one
        return None
    return output if output.shape[1:] == draws.x0.shape and bool(output.isfinite().all()) else None


def predictions_of(reading: Reading, call: Calling, output: Tensor, draws: CheckDraws) -> Tensor:
    """What outputs [B, N, *shape] of a call predict."""
    if call.convert is None:
        return call.sign * output
    rows = [
        call.convert(row, *_inputs(reading, draws, level))
        for level, row in zip(draws.levels.tolist(), output, strict=True)
    ]
    return call.sign * torch.stack(rows)


def times_and_scales(call: Calling, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The times that a call has, and the factors of its input; [B] each."""
    times = call.time(levels).double()
    return times, torch.ones_like(times) if call.scale is None else call.scale(levels).double()


def is_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Whether times and scales are the same to any network: 999 t and 1000 t are."""
    return all(bool(((a - b).abs() <= 5e-3 * b.abs().max()).all()) for a, b in zip(one, other, strict=True))


def errors_of(
    output: Tensor, meaning: tuple[Tensor, Tensor], draws: CheckDraws, all_draws: CheckDraws
) -> Errors:
    """Errors of outputs [B, n, *shape] on some of the draws, relative to the variance of all."""
    x0 = all_draws.x0.flatten(1).double().cpu()
    return errors(
        output.flatten(2).double().cpu(),
        (meaning[0].double(), meaning[1].double()),
        draws.levels.exp(),
        draws.x0.flatten(1).double().cpu(),
        draws.epsilon.flatten(1).double().cpu(),
        (x0 - x0.mean(0)).square().mean(),
    )


def _forward(reading: Reading, call: Calling, draws: CheckDraws) -> Tensor:
    rows = [
        call.output(reading.network, *_inputs(reading, draws, level), draws.cond)
        for level in draws.levels.tolist()
    ]
    return torch.stack(rows)


def _inputs(reading: Reading, draws: CheckDraws, level: float) -> tuple[Tensor, Tensor]:
    log_snr = level_like(level, draws.x0).expand(len(draws.x0))
    return reading.schedule.diffuse(draws.x0, draws.epsilon, log_snr), log_snr
