"""The settings of one training run, and two presets whose runs take seconds to minutes on two CPU cores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntkdiag.errors import InputError, require_one_of, require_positive_int


@dataclass(frozen=True)
class TrainConfig:
    """What a training run does, apart from its data, its denoiser and its weights.

    Args:
        steps: Optimizer steps in all.
        batch: Samples a step, drawn with replacement.
        learning_rate: Of AdamW, after the warm-up.
        weight_decay: Decoupled weight decay of AdamW, on every parameter.
        beta1: Decay of AdamW's first moment, in [0, 1).
        beta2: Decay of AdamW's second moment, in [0, 1).
        gradient_clip: Largest norm of the whole gradient; None for no clipping.
        warmup: Steps over which the learning rate rises linearly from learning_rate / warmup; 0 for none.
        ema_decay: Decay of the averaged weights, in [0, 1), once its own warm-up is over.
        seed: Seed of the batches, the noise and the noise levels, each with a generator of its own.
        log_every: Steps averaged in one row of the history.
        checkpoint_every: Steps between checkpoints.

    Raises:
        InputError: a setting is out of its range.
    """

    steps: int = 4000
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    gradient_clip: float | None = 1.0
    warmup: int = 100
    ema_decay: float = 0.999
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "checkpoint_every"):
            require_positive_int(name, getattr(self, name))
        for name in ("warmup", "seed"):
            require_positive_int(name, getattr(self, name), minimum=0)
        for name, high in _BELOW.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < high:
                raise InputError(name, expected=f"a number in [0, {high:g})", got=repr(value))
        clip = self.gradient_clip
        if clip is not None and (not isinstance(clip, int | float) or not 0 < clip < math.inf):
            raise InputError("gradient_clip", expected="a positive number or None", got=repr(clip))

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainConfig:
        """Settings for a data set of this package.

        Args:
            name: "digits" (the DiT of the default size) or "mixture" (the MLP of the default size).
            overrides: Settings to change.

        Raises:
            InputError: unknown preset or setting, or a setting out of its range.
        """
        return cls.from_dict(PRESETS[require_one_of("preset", name, PRESETS)] | overrides)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """Settings from a mapping; what is left out keeps its default.

        Raises:
            InputError: unknown setting, or a setting out of its range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            require_one_of("training setting", name, names)
        return cls(**settings)

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.learning_rate * (min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0)


# Settings that are numbers from 0 up to, but not including, a bound.
_BELOW = {
    "learning_rate": math.inf,
    "weight_decay": math.inf,
    "beta1": 1.0,
    "beta2": 1.0,
    "ema_decay": 1.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"steps": 4000, "batch": 128, "learning_rate": 2e-3},
    "mixture": {"steps": 4000, "batch": 256, "learning_rate": 2e-3, "log_every": 100},
}
