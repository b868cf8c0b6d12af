"""Denoiser: any network together with the process it was trained on and the target it predicts.

Everything that measures or trains uses a `Denoiser`, so only the `call` given here knows how the network takes
its input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ntkdiag.adapters import Calling, FromElsewhere, Reading
from ntkdiag.conditions import LABEL, placed, require_same_names, shared
from ntkdiag.errors import InputError, require_one_of, require_type
from ntkdiag.notebook import html_facts
from ntkdiag.process.log_snr import Level, expand, level_like
from ntkdiag.process.schedules.base import Schedule, require_schedule
from ntkdiag.process.target import TARGETS, target_name
from ntkdiag.process.target import value as target_value

# What `Calling` names the condition of a network that names none.
_BARE = "cond"

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
            `call(network, x, log_snr, cond) → prediction`, where cond holds the conditions by name. Time and log-SNR come in
            float32 or wider, whatever the dtype of x.
        conditions: What the network takes beside x and time, as name → argument of the network, such as
            {"label": "class_labels"}; or names alone, where arguments are called the same. Data has its conditions under
            these names, and class labels under "label". None for what the network itself says in an attribute `conditions`,
            as the reference networks do; without one it takes none.
        null: Name → the value of a sample that stands for "no condition" (a number or a tensor), as classifier-free guidance
            and dropping conditions in training need it. None for what the network says in an attribute `null_conditions`.

    Attributes:
        conditions: Name → argument of the network.
        null: Name → value.

    Raises:
        InputError: unknown target or call, a network that is not a module, a target other than the `prediction_type` of
            the scheduler that the schedule was read from, or names of conditions that are no words.

    Example:
        >>> network = nd.models.build("mlp", (2,))
        >>> denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> denoiser(torch.zeros(5, 2), log_snr=0.0).shape
        torch.Size([5, 2])
        >>> labelled = nd.Denoiser(nd.models.build("mlp", (2,), classes=3), nd.schedules.cosine(), "v", call="log_snr")
        >>> labelled.conditions, labelled.null
        ({'label': 'cond'}, {'label': 3})
        >>> labelled(torch.zeros(5, 2), 0.0, {"label": torch.tensor([0, 1, 2, 1, 0])}).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        target: str | None = None,
        call: str | Call | None = None,
        *,
        conditions: Mapping[str, str] | Iterable[str] | None = None,
        null: Mapping[str, Any] | None = None,
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
        own, own_null = _said_by(call if isinstance(call, Calling) else network)
        self.conditions = _named_arguments(own if conditions is None else conditions, conditions is not None)
        self.null = _checked_null(own_null if null is None else null, self.conditions, null is not None)

    def forward(self, x: Tensor, log_snr: Tensor | float, cond: Any = None, *more: Tensor) -> Tensor:
        """Predict the target.

        Args:
            x: Noisy input [N, *shape].
            log_snr: Log-SNR, one number or [N].
            cond: Conditions by name, each [N, ...], those of `conditions`; or the first of them, and `more` the others, in
                that order. Anything at all where the denoiser names no conditions: the network gets it as its third
                argument. With None it is called without.

        Returns:
            Prediction of the target, [N, *shape].

        Raises:
            InputError: `x` is no tensor, the number of log-SNR values or of rows of a condition is not that of the samples,
                a condition is missing or not one of the network's, or the network's output has another shape than its input.
        """
        require_type("x", x, Tensor, "a tensor [N, ...]", fix="Convert it with torch.as_tensor.")
        level = level_like(log_snr, x)
        if level.ndim > 1 or level.numel() not in (1, x.shape[0]):
            raise InputError(
                "log_snr", expected=f"one number or {x.shape[0]}", got=f"shape {tuple(level.shape)}"
            )
        level = level.expand(x.shape[0])
        prediction = self._call(self.network, x, level, self._by_name(cond, more, x))
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
            return Calling(
                _invoke, self.schedule.time, "the schedule's time", arguments=self.conditions, null=self.null
            )
        if self._call == self._with_log_snr:
            return Calling(
                _invoke,
                lambda log_snr: log_snr,
                "log-SNR",
                self._to_unit,
                arguments=self.conditions,
                null=self.null,
            )
        own = self._call
        return Calling(own, lambda log_snr: log_snr, "the time of its call function", fixed=True)

    def _to_unit(self, log_snr: Tensor) -> Tensor:
        """The factor that brings the input to the variance-preserving path."""
        return 1 / torch.hypot(self.schedule.alpha(log_snr), self.schedule.sigma(log_snr))

    def conditions_from(self, available: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the network takes of the conditions that data has, in the network's order.

        Args:
            available: Name → [N, ...]. Labels may be there that the network does not take.

        A network from elsewhere is called with its own defaults where data has none of them (its null label, say).

        Raises:
            InputError: one is missing, or there is another that the network does not take.
        """
        given = {name: each for name, each in available.items() if name != LABEL or name in self.conditions}
        if not given and isinstance(self._call, Calling):
            return {}
        require_same_names("conditions of the network", self.conditions, given)
        return {name: given[name] for name in self.conditions}

    def falls_back_to(self, available: Mapping[str, Tensor]) -> dict[str, Any]:
        """What stands for none of the conditions that data lacks, where the network is called with it; else empty.

        Args:
            available: As in `conditions_from`.

        Raises:
            InputError: as `conditions_from`.
        """
        missing = self.conditions and not self.conditions_from(available)
        return {name: self.null[name] for name in self.conditions if name in self.null} if missing else {}

    def inputs(self, x: Tensor, log_snr: Tensor, cond: Any = None) -> tuple[Tensor, ...]:
        """The tensors [N, ...] with which `self(*inputs)` predicts: x, log_snr, and the conditions in order.

        Args:
            x, log_snr: [N, *shape] and [N].
            cond: As in `forward`.

        Raises:
            InputError: as `forward`.
        """
        if cond is None:
            return x, log_snr
        if isinstance(cond, Mapping):
            return x, log_snr, *self._in_order(cond, x).values()
        named = self._by_name(cond, (), x)
        return (x, log_snr, *named.values()) if isinstance(named, dict) else (x, log_snr, named)

    def null_conditions(self, count: int) -> dict[str, Tensor]:
        """The conditions of `count` samples without condition; empty where the network takes none.

        Raises:
            InputError: it is not known what stands for "no condition".
        """
        missing = [name for name in self.conditions if name not in self.null]
        if missing:
            raise InputError(
                "null condition",
                expected=f"what stands for no {missing[0]} in this network",
                got="nothing",
                fix="Give its Denoiser {null}.",
                arguments={"null": f'{{"{missing[0]}": ...}}'},
            )
        return shared("null", {name: self.null[name] for name in self.conditions}, count)

    def _by_name(self, cond: Any, more: tuple[Tensor, ...], x: Tensor) -> Any:
        """The conditions by name, on the device of x and in its dtype; whatever was given where there are no names."""
        if cond is None or not (self.conditions or more or isinstance(cond, Mapping)):
            return cond
        if isinstance(self._call, Calling) and not more:  # it names its conditions and has defaults of them
            return cond
        if not isinstance(cond, Mapping):
            given = (cond, *more)
            if len(given) != len(self.conditions):
                raise InputError(
                    "conditions",
                    expected=f"{len(self.conditions)}: {', '.join(self.conditions)}",
                    got=str(len(given)),
                )
            cond = dict(zip(self.conditions, given, strict=True))
        return self._in_order(cond, x)

    def _in_order(self, cond: Mapping[str, Any], x: Tensor) -> dict[str, Tensor]:
        """All conditions of the network, on the device of x and in its dtype.

        Raises:
            InputError: one is missing, is not the network's, or has another number of rows than x.
        """
        require_same_names("conditions of the network", self.conditions, cond)
        for name, values in cond.items():
            if not isinstance(values, Tensor) or values.ndim == 0 or len(values) != len(x):
                got = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
                raise InputError(f"condition '{name}'", expected=f"a tensor of {len(x)} rows", got=got)
        return placed({name: cond[name] for name in self.conditions}, x)

    def _resolve(self, call: str | Call | None) -> Call:
        if callable(call):
            return call
        by_name: dict[str, Call] = {"time": self._with_time, "log_snr": self._with_log_snr}
        return by_name[require_one_of("call", call or "time", by_name)]

    def _with_time(self, network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        time = self.schedule.time(log_snr)
        return self._called(network, x, time, cond)

    def _with_log_snr(self, network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        alpha, sigma = self.schedule.alpha(log_snr), self.schedule.sigma(log_snr)
        unit = x / expand(torch.hypot(alpha, sigma), x)
        return self._called(network, unit, log_snr, cond)

    def _called(self, network: nn.Module, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        """The network with its conditions as keyword arguments."""
        prediction: Tensor
        if cond is None:
            prediction = network(x, time)
        elif isinstance(cond, dict):
            prediction = network(x, time, **{self.conditions[name]: each for name, each in cond.items()})
        else:
            prediction = network(x, time, cond)
        return prediction


def _invoke(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
    """Conditions by the network's own names, or what was given to a network that names none."""
    bare = cond.get(_BARE)
    named = {name: each for name, each in cond.items() if name != _BARE}
    prediction: Tensor = network(x, time, **named) if bare is None else network(x, time, bare)
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


def _said_by(source: Calling | nn.Module) -> tuple[Any, Any]:
    """Conditions and null conditions as a call in parts, or a network itself, says them; None where it does not."""
    if isinstance(source, Calling):
        return source.arguments, {name: source.null[name] for name in source.null if name in source.arguments}
    return getattr(source, "conditions", None), getattr(source, "null_conditions", None)


def _named_arguments(given: Any, by_user: bool) -> dict[str, str]:
    """Name of a condition → argument of the network; of an attribute that means something else, none."""
    try:
        pairs = dict(given) if isinstance(given, Mapping) else {name: name for name in given or ()}
        words = all(isinstance(word, str) and word.isidentifier() for pair in pairs.items() for word in pair)
    except TypeError:
        words = False
    if words and not isinstance(given, str):
        return pairs
    if not by_user:
        return {}
    raise InputError(
        "conditions",
        expected='names and arguments of the network, such as {"label": "class_labels"}',
        got=repr(given),
    )


def _checked_null(given: Any, conditions: Mapping[str, str], by_user: bool) -> dict[str, Any]:
    """Name → value; of an attribute that means something else, none."""
    if isinstance(given, Mapping) and set(given) <= set(conditions):
        return dict(given)
    if given is None or not by_user:
        return {}
    raise InputError(
        "null", expected=f"values of {', '.join(conditions) or 'no condition'} by name", got=repr(given)
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
