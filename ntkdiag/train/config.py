"""The settings of one training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntkdiag.errors import (
    InputError,
    require_int,
    require_number,
    require_one_of,
    require_positive_int,
    require_type,
)
from ntkdiag.train.noise_levels import SAMPLING
from ntkdiag.train.presets import Preset

OPTIMIZERS = ("adamw", "sgd", "muon")
# Of bfloat16 only: it has float32's range, so that no loss has to be scaled, as float16 would need it.
MIXED_PRECISION = ("no", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run; data, denoiser and loss weights are arguments of `train`.

    Args:
        steps: Number of optimizer steps.
        batch: Samples in a step, drawn with replacement; of all processes together.
        optimizer: "adamw", "sgd", or "muon" (for matrices, AdamW for the rest; torch has it since 2.9).
        learning_rate: Learning rate after the warm-up; Muon's steps are scaled so that AdamW's rate serves it.
        weight_decay: Decoupled weight decay on every parameter; SGD adds it to the gradient.
        beta1: Decay of AdamW's first moment, and momentum of SGD and Muon, in [0, 1).
        beta2: Decay of AdamW's second moment, in [0, 1).
        gradient_clip: Largest norm of the gradient of all parameters together; None for no clipping.
        warmup: Steps in which the learning rate rises linearly from learning_rate / warmup; 0 for none.
        ema_decay: Decay of the averaged weights, in [0, 1); smaller in the first steps (see `moving_average`).
        ema_width: Relative width of a power-function average in place of `ema_decay`, above 0 and below 0.2887, such as 0.1
            (see `moving_average`); None for `ema_decay`.
        seed: Seed of three generators: for the data points, the noise and the noise levels.
        log_every: Steps that one row of the history averages over.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many checkpoints are kept, the last ones. To go back to an earlier one, copy its .json over
            training.json.
        keep_every: Steps between averaged weights that are kept to the end, beside the initial and the last ones, so that
            `nd.trust.drift` can measure along the run; 0 keeps none.
        sample_every: Steps between samples of the averaged network in the run's folder, from the same noise; 0 for none.
        condition_dropout: Share of samples that are trained without their conditions, in [0, 1), as guidance needs it (0.1
            is usual); for a network that takes conditions and says what stands for none.
        stratified: Draw one noise level from each of `batch` parts of equal probability, which lowers the noise of the loss.
        sampling: "density" draws noise levels by the schedule's density and multiplies losses by their weights; "table"
            draws them in proportion to the weights too, and divides the losses by them: the same objective, other variance.
        align: Weight of the alignment loss, at least 0: features of one module are drawn towards those of a small encoder of
            the clean samples, which is trained once on the data (REPA-like, see `ntkdiag.train.alignment`). 0 for none.
        align_module: Name of that module; None for the one a third of the way through the longest list of modules.
        accumulate: Parts in which a process takes its samples of a step, one after the other: less memory, and the same
            gradient up to rounding, unless the network draws itself (dropout) or looks at its batch (BatchNorm).
        mixed_precision: "bf16" for matrix products in bfloat16 (torch's autocast), while weights, losses and the optimizer
            stay as they are; "no".

    Raises:
        InputError: a setting is out of its range.

    Example:
        >>> nd.train.TrainConfig(steps=100, warmup=10).rate(0)  # one tenth of the learning rate
        0.0001
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
    ema_width: float | None = None
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 500
    keep_checkpoints: int = 1
    keep_every: int = 0
    sample_every: int = 0
    condition_dropout: float = 0.0
    stratified: bool = False
    sampling: str = "density"
    optimizer: str = "adamw"
    align: float = 0.0
    align_module: str | None = None
    accumulate: int = 1
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "checkpoint_every", "keep_checkpoints", "accumulate"):
            require_positive_int(name, getattr(self, name))
        for name in ("warmup", "seed", "keep_every", "sample_every"):
            require_int(name, getattr(self, name), at_least=0)
        for name, high in _BELOW.items():
            require_number(name, getattr(self, name), at_least=0.0, below=high)
        if self.gradient_clip is not None:
            require_number("gradient_clip (None for no clipping)", self.gradient_clip, above=0.0)
        if self.ema_width is not None:
            require_number("ema_width (None for ema_decay)", self.ema_width, above=0.0, below=_WIDEST)
        require_one_of("optimizer", self.optimizer, OPTIMIZERS)
        require_one_of("sampling", self.sampling, SAMPLING)
        require_one_of("mixed_precision", self.mixed_precision, MIXED_PRECISION)
        if self.accumulate > self.batch:
            raise InputError(
                "accumulate", expected=f"at most batch, {self.batch} samples", got=self.accumulate
            )
        require_type("stratified", self.stratified, bool, "true or false")
        if self.align_module is not None:
            require_type("align_module", self.align_module, str, "the name of a module")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainConfig:
        """The settings of a preset, which suit its network and data.

        Args:
            name: "digits", "fashion", "fashion_small", "fine_tuning", "images", "latents", "mixture", or the path of a
                preset's file (see `Preset`).
            overrides: Settings that differ from the preset.

        Raises:
            InputError: unknown preset or setting, or a setting out of its range.

        Example:
            >>> nd.train.TrainConfig.preset("mixture", steps=200).batch
            256
        """
        return cls.from_dict(Preset.named(name).training | overrides)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """Settings from a mapping; settings that are left out have their default.

        Raises:
            InputError: unknown setting, or a setting out of its range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            require_one_of("training setting", name, names)
        return cls(**settings)

    def rate(self, step: int) -> float:
        """Learning rate of a step; the first step is 0."""
        return self.learning_rate * (min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0)


# Just above the relative width of the plain mean of all steps, 1/√12.
_WIDEST = 0.2887

# Settings that are numbers of at least 0, and the bound that they are below.
_BELOW = {
    "learning_rate": None,
    "weight_decay": None,
    "beta1": 1.0,
    "beta2": 1.0,
    "ema_decay": 1.0,
    "condition_dropout": 1.0,
    "align": None,
}
