"""Weights in the training scripts of the diffusers library.

A DDPM-style script, whose loss is `F.mse_loss(..., reduction="none")`, one number a sample after the mean:

    weights = ScriptWeights(ntkdiag.WeightTable.load("weights.csv"), noise_scheduler)
    loss = F.mse_loss(model_pred.float(), target.float(), reduction="none").flatten(1).mean(1)
    loss = (weights(timesteps) * loss).mean()

A flow-style or EDM-style script, which weighs by `sigmas` [B, 1, 1, 1] in place of compute_loss_weighting_for_sd3:

    weights = ScriptWeights(ntkdiag.WeightTable.load("weights.csv"), noise_scheduler)
    weighting = weights.of_sigmas(sigmas)
    loss = (weighting.float() * (model_pred.float() - target.float()) ** 2).flatten(1).mean(1).mean()

With a `Refresher`, add `weights.after_step(global_step)` where the script counts its steps, and
`accelerator.register_for_checkpointing(weights)` where it prepares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.integrations.wrapped import Wrapped, require_target
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.schedules.continuous import EDM, Flow
from ntkdiag.process.schedules.diffusers_scheduler import from_diffusers, prediction_type
from ntkdiag.process.schedules.timesteps import Timesteps
from ntkdiag.process.target import target_name
from ntkdiag.weights import WeightSource, WeightTable


class ScriptWeights(Wrapped):
    """Weights by timestep or by sigma, whichever a script of the diffusers library has.

    Args:
        weights: A `WeightSource`, or the path of a table.
        scheduler: The script's noise scheduler, or a `Schedule`; read now, so rescale betas before.
        loss_target: Target of the squared error. Default: see `loss_target`.

    Raises:
        InputError: weights for another target than the loss is taken of, or a scheduler that is not recognised.

    Example:
        >>> weights = ScriptWeights(nd.weights.rule("min_snr", "epsilon"), nd.schedules.linear_beta(), "epsilon")
        >>> weights(torch.tensor([0, 500, 999])).shape
        torch.Size([3])
    """

    def __init__(
        self, weights: WeightSource | Path | str, scheduler: Any, loss_target: str | None = None
    ) -> None:
        super().__init__(weights)
        if loss_target is not None:
            require_target(self.source, target_name(loss_target), "as loss_target says")
        elif not isinstance(scheduler, Schedule):
            target, why = _loss_target(scheduler)
            require_target(self.source, target, why)
        self._timesteps = Timesteps(scheduler)
        self._schedule = self._timesteps.schedule

    def __call__(self, timesteps: Tensor) -> Tensor:
        """Weights for the timesteps of a batch.

        Args:
            timesteps: As the scheduler counts them, of any shape.

        Returns:
            Float32, of that shape and on that device.

        Raises:
            InputError: timesteps that the scheduler does not have, or a batch of them beyond the rows of a measured table.
        """
        level = self._timesteps.log_snr(timesteps)
        if isinstance(self.source, WeightTable):
            self.source.require_within(level)
        return self.source(level).float()

    def of_sigmas(self, sigmas: Tensor) -> Tensor:
        """Weights for the sigmas of a batch.

        Args:
            sigmas: As the scheduler's `sigmas`: t of a flow, else the noise level σ/α; of any shape.

        Returns:
            Float32, of that shape and on that device.

        Raises:
            InputError: a negative sigma, or one above 1 on a flow.
        """
        level = sigmas.to(torch.float64)
        highest = 1.0 if isinstance(self._schedule, Flow) else float("inf")
        bad = ~((level >= 0) & (level <= highest))
        if bad.any():
            raise InputError(
                "sigmas", expected=f"numbers from 0 to {highest:g}", got=f"{level[bad].flatten()[0]:g}"
            )
        log_snr = (
            2 * ((1 - level).log() - level.log()) if isinstance(self._schedule, Flow) else -2 * level.log()
        )
        return self.source(log_snr).float()


def loss_target(scheduler: Any) -> str:
    """The target of the squared error in scripts with this scheduler.

    Args:
        scheduler: A scheduler object of the diffusers library.

    Returns:
        Its `prediction_type`, and flow for flow matching. For EDM schedulers x0: scripts bring the output of the
        network to x0 with `precondition_outputs` and compare that.

    Raises:
        InputError: a scheduler without a prediction type.
    """
    return _loss_target(scheduler)[0]


def _loss_target(scheduler: Any) -> tuple[str, str]:
    """The target of a script with this scheduler, and the reason in words."""
    schedule = from_diffusers(scheduler)
    if isinstance(schedule, Flow):
        return "flow", "since the scheduler is one of flow matching"
    if isinstance(schedule, EDM):
        return "x0", "since scripts compare the preconditioned output of EDM schedulers with x0"
    prediction = prediction_type(scheduler)
    if prediction is None:
        raise InputError(
            "scheduler",
            expected="config.prediction_type",
            got="none",
            fix="Give the target of the loss as loss_target=.",
        )
    return target_name(prediction), f"since the scheduler's prediction_type is {prediction!r}"
