"""Denoiser: any network together with the process it was trained on and the target it predicts.

Everything that measures or trains uses a `Denoiser`, so only the `call` given here knows how the network takes
its input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ntkdiag.adapters import Calling, FromElsewhere, Reading
from ntkdiag.errors import InputError, require_one_of, require_type
from ntkdiag.notebook import html_facts
from ntkdiag.process.log_snr import Level, expand, level_like
from ntkdiag.process.schedules.base import Schedule, require_schedule
from ntkdiag.process.target import TARGETS, target_name
from ntkdiag.process.target import value as target_value

# (network, x [N,*shape], log_snr [N], cond) → prediction [N,*shape]
Call = Callable[[nn.Module, Tensor, Tensor, Any], Tensor]


class Denoiser(FromElsewhere, nn.Module):
    """A network that predicts `target` from a noisy input on `schedule`.

    Args:
        network: Any module.
        schedule: The noising process x = α x0 + σ ε the network was (or will be) trained on.
        target: What the network predicts: epsilon, x0, v, score, flow or F. None for a schedule that was read from a
            scheduler whose `prediction_type` says it.
        call: How the network is called. None: `network(x, time)` with the schedule's own time [N];
            "log_snr": `network(x / √(α²+σ²), log_snr)`, the input scaled to the variance-preserving path,
            which is how the reference networks of this package are called. Or a function
            `call(network, x, log_snr, cond) → prediction`. If there is a cond, the first two pass it as the
            third argument. Time and log-SNR come in float32 or wider, whatever the dtype of x.

    Raises:
        InputError: unknown target or call, a network that is not a module, or a target other than the `prediction_type` of
            the scheduler that the schedule was read from.

    Example:
        >>> network = nd.models.build("mlp", (2,))
        >>> denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> denoiser(torch.zeros(5, 2), log_snr=0.0).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        target: str | None = None,
        call: str | Call | None = None,
    ) -> None:
        super().__init__()
        require_type("network", network, nn.Module, "a torch.nn.Module")
        if isinstance(network, Denoiser):
            raise InputError("network", expected="a bare network", got="a Denoiser, which is one already")
        require_schedule("schedule", schedule)
        self.network = network
        self.schedule = schedule
        self.target = _checked_target(target, schedule)
        self._call = self._resolve(call)

    def forward(self, x: Tensor, log_snr: Tensor | float, cond: Any = None) -> Tensor:
        """Predict the target.

        Args:
            x: Noisy input [N, *shape].
            log_snr: Log-SNR, one number or [N].
            cond: Conditioning that is passed to the network, [N, ...] or None.

        Returns:
            Prediction of the target, [N, *shape].

        Raises:
            InputError: `x` is no tensor, the number of log-SNR values is not that of the samples, or the network's output
                has another shape than its input.
        """
        require_type("x", x, Tensor, "a tensor [N, ...]", fix="Convert it with torch.as_tensor.")
        level = level_like(log_snr, x)
        if level.ndim > 1 or level.numel() not in (1, x.shape[0]):
            raise InputError(
                "log_snr", expected=f"one number or {x.shape[0]}", got=f"shape {tuple(level.shape)}"
            )
        level = level.expand(x.shape[0])
        prediction = self._call(self.network, x, level, cond)
        if not isinstance(prediction, Tensor) or prediction.shape != x.shape:
            got = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
            raise InputError(
                "network output",
                expected=f"a tensor of the input's shape {tuple(x.shape)}",
                got=got,
                fix="Give Denoiser a call=function(network, x, log_snr, cond) that returns the prediction alone.",
            )
        return prediction

    def training_pair(self, x0: Tensor, epsilon: Tensor, log_snr: Level) -> tuple[Tensor, Tensor]:
        """The noisy input that the network is trained on, and the target that it should predict from it.

        Args:
            x0: Data [N, *shape].
            epsilon: Standard normal noise [N, *shape].
            log_snr: Log-SNR, one number or [N].

        Returns:
            x = α x0 + σ ε and y = c_x x0 + c_ε ε, each [N, *shape] in the dtype of `x0`.

        Raises:
            InputError: shapes that do not match.
        """
        x = self.schedule.diffuse(x0, epsilon, log_snr)
        return x, target_value(self.target, self.schedule, log_snr, x0, epsilon)

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.parameters())
        network = f"{type(self.network).__name__}, {parameters:,} parameters"
        return f"Denoiser({network}, predicts {self.target} on {self.schedule!r})"

    def _repr_html_(self) -> str:
        rows = {
            "network": type(self.network).__name__,
            "parameters": f"{sum(parameter.numel() for parameter in self.parameters()):,}",
            "predicts": self.target,
            "schedule": repr(self.schedule),
        }
        return html_facts("Denoiser", rows)

    @classmethod
    def of_reading(cls, reading: Reading) -> Self:
        """The denoiser of a network from elsewhere; see `ntkdiag.adapters`."""
        return cls(reading.network, reading.schedule, reading.target, reading.call)

    @property
    def reading(self) -> Reading:
        """The network with everything that is stated of it, as the load check takes it."""
        call = self._call if isinstance(self._call, Calling) else self._calling()
        return Reading(self.network, self.schedule, self.target, call)

    def _calling(self) -> Calling:
        """The call in parts, where it is one of the two named ones."""
        if self._call == self._with_time:
            return Calling(_invoke, self.schedule.time, "the schedule's time")
        if self._call == self._with_log_snr:
            return Calling(_invoke, lambda log_snr: log_snr, "log-SNR", self._to_unit)
        own = self._call
        return Calling(own, lambda log_snr: log_snr, "the time of its call function", fixed=True)

    def _to_unit(self, log_snr: Tensor) -> Tensor:
        """The factor that brings the input to the variance-preserving path."""
        return 1 / torch.hypot(self.schedule.alpha(log_snr), self.schedule.sigma(log_snr))

    def _resolve(self, call: str | Call | None) -> Call:
        if callable(call):
            return call
        by_name: dict[str, Call] = {"time": self._with_time, "log_snr": self._with_log_snr}
        return by_name[require_one_of("call", call or "time", by_name)]

    def _with_time(self, network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        time = self.schedule.time(log_snr)
        prediction: Tensor = network(x, time) if cond is None else network(x, time, cond)
        return prediction

    def _with_log_snr(self, network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        alpha, sigma = self.schedule.alpha(log_snr), self.schedule.sigma(log_snr)
        unit = x / expand(torch.hypot(alpha, sigma), x)
        prediction: Tensor = network(unit, log_snr) if cond is None else network(unit, log_snr, cond)
        return prediction


def _invoke(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    prediction: Tensor = network(x, time, *cond.values())
    return prediction


def require_denoiser(what: str, got: object) -> None:
    """Refuse anything but a `Denoiser`; of a bare network the error says how to make it one.

    Raises:
        InputError: `got` is no Denoiser.
    """
    bare = isinstance(got, nn.Module)
    require_type(
        what,
        got,
        Denoiser,
        "an ntkdiag.Denoiser",
        fix="Say what the network was trained on: nd.Denoiser(network, schedule, target)." if bare else None,
    )


def _checked_target(target: str | None, schedule: Schedule) -> str:
    """The target's name, if the scheduler that the schedule was read from does not say otherwise."""
    if target is None:
        if len(schedule.predicted) == 1:
            return schedule.predicted[0]
        raise InputError(
            "target", expected="one of " + ", ".join(schedule.predicted or TARGETS), got="nothing"
        )
    name = target_name(target)
    if schedule.predicted and name not in schedule.predicted:
        raise InputError(
            "target",
            expected=f"{' or '.join(schedule.predicted)}, which is what networks of this scheduler predict by its "
            "prediction_type",
            got=name,
            fix="If a call function converts the output to that, give dataclasses.replace(schedule, predicted=()).",
        )
    return name
