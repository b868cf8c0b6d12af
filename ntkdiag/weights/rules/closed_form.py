"""ClosedForm: a rule with its parameters and scale, which makes a table exact between and beyond its grid points."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import require_number
from ntkdiag.process import schedules
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.weights.rules import evaluate as rules
from ntkdiag.weights.rules.catalogue import find


@dataclass(frozen=True)
class ClosedForm:
    """scale · min(rule, clip) on one target.

    Attributes:
        rule: A name in `RULES`.
        target: The target it is evaluated on.
        parameters: All of the rule's parameters.
        clip: Upper bound of the weight before scaling, or None.
        schedule: None where the rule on this target does not depend on it.
        scale: Constant factor, such as a normalisation.
    """

    rule: str
    target: str
    parameters: dict[str, Any] = field(default_factory=dict)
    clip: float | None = None
    schedule: Schedule | None = None
    scale: float = 1.0

    @classmethod
    def of(
        cls, rule: str, target: str, schedule: Schedule | None, clip: float | None, parameters: dict[str, Any]
    ) -> ClosedForm:
        """Check names, fill in defaults, and drop a schedule on which the rule does not depend."""
        form = find(rule)
        values = form.settle(parameters)
        kept = schedule if rules.depends_on_schedule(form, target, values) else None
        return cls(form.name, target, values, clip, kept)

    def __call__(self, log_snr: Tensor) -> Tensor:
        """Weights in float64 for log-SNR of any shape."""
        weight = rules.evaluate(
            self.rule,
            self.target,
            log_snr.to(torch.float64),
            self.schedule,
            clip=self.clip,
            **self.parameters,
        )
        return self.scale * weight

    def describe(self) -> dict[str, Any]:
        """As JSON can hold it; `from_description` reads it."""
        return {
            "rule": self.rule,
            "parameters": self.parameters,
            "clip": self.clip,
            "schedule": self.schedule.describe() if self.schedule else None,
            "scale": self.scale,
        }

    @classmethod
    def from_description(
        cls,
        target: str,
        *,
        rule: str,
        parameters: dict[str, Any],
        clip: float | None,
        schedule: dict[str, Any] | None,
        scale: float,
    ) -> ClosedForm:
        """Read what `describe` wrote.

        Raises:
            InputError: an unknown rule, parameter or schedule, or a scale that is not positive.
        """
        require_number("scale of a rule", scale, above=0.0)
        path = None if schedule is None else schedules.named(**schedule)
        return replace(cls.of(rule, target, path, clip, parameters), scale=scale)

    @property
    def text(self) -> str:
        """Name and settings in one line, such as "min_snr(gamma=5)"."""
        settings = {**self.parameters, **({} if self.clip is None else {"clip": self.clip})}
        listed = ", ".join(
            f"{key}={value if isinstance(value, str) else f'{value:g}'}" for key, value in settings.items()
        )
        return f"{self.rule}({listed})" if listed else self.rule
