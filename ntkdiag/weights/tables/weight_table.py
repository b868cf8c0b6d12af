"""WeightTable: loss weights on a grid of log-SNR, evaluated at any log-SNR, normalised, saved and loaded.

A table made from a rule keeps the rule and is exact everywhere; a measured one is interpolated linearly in ln w
between its grid points. A table never changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_type
from ntkdiag.notebook import html_rows
from ntkdiag.process.log_snr import as_numbers
from ntkdiag.process.schedules.base import Schedule, require_schedule
from ntkdiag.process.schedules.discrete import log_snr_of_steps, without_steps
from ntkdiag.process.schedules.timesteps import Timesteps
from ntkdiag.process.target import target_name
from ntkdiag.weights.rules.closed_form import ClosedForm
from ntkdiag.weights.tables import files
from ntkdiag.weights.tables.columns import Interpolation, check_columns, check_rule, check_within
from ntkdiag.weights.tables.mean import density_mean

# Rows that a notebook shows of a table.
_MOST_SHOWN = 24


@dataclass(frozen=True, eq=False, repr=False)
class WeightTable:
    """Weights on the squared error of one target. It is a `WeightSource` that never changes.

    Attributes:
        log_snr: Grid [n], increasing, float64 on the CPU.
        weight: Weights ≥ 0 [n].
        target: The target whose squared error is weighted.
        name: One line that names the weights.
        low, high: Interval of each weight [n], or None.
        meta: How the weights were made, as JSON can hold it.
        rule: The closed form behind the grid, or None for a measured table.

    Raises:
        InputError: columns that are not those of a table (the row is named), an unknown target, or a rule that
            does not give the weights.

    Example:
        >>> table = WeightTable(torch.tensor([-2.0, 0.0, 2.0]), torch.tensor([1.0, 2.0, 1.0]), "v")
        >>> table(torch.tensor([-1.0, 0.0]))
        tensor([1.4142, 2.0000])
    """

    log_snr: Tensor
    weight: Tensor
    target: str
    name: str = "measured"
    low: Tensor | None = None
    high: Tensor | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    rule: ClosedForm | None = None

    def __post_init__(self) -> None:
        self._set("target", target_name(self.target))
        require_type("name of a weight table", self.name, str, "one line of text")
        if not self.name.isprintable() or not self.name or self.name != self.name.strip():
            raise InputError("name of a weight table", expected="one line of text", got=repr(self.name))
        what = f"weight table '{self.name}'"
        for column in ("log_snr", "weight", "low", "high"):
            value = getattr(self, column)
            if value is not None or column in ("log_snr", "weight"):
                copied = as_numbers(f"{what}, {column}", value, torch.float64).detach().cpu().clone()
                self._set(column, copied.reshape(-1) if copied.ndim == 0 else copied)
        check_columns(what, self.columns)
        if self.rule is not None:
            check_rule(what, self.rule(self.log_snr), self.weight)

    @property
    def columns(self) -> dict[str, Tensor]:
        """The columns of this table by name, without those that are None."""
        named = {"log_snr": self.log_snr, "weight": self.weight, "low": self.low, "high": self.high}
        return {name: column for name, column in named.items() if column is not None}

    @cached_property
    def _between_rows(self) -> Interpolation:
        return Interpolation(self.log_snr, self.weight)

    def __call__(self, log_snr: float | Tensor) -> Tensor:
        """Weights at log-SNR of any shape.

        Args:
            log_snr: One number or a tensor; ±inf is the end of the grid or the rule's limit.

        Returns:
            Weights ≥ 0 in its shape, dtype and device (float64 for a number).

        Raises:
            InputError: NaN, or a rule that is not finite there.
        """
        level = as_numbers(f"log_snr for weight table '{self.name}'", log_snr, torch.float64)
        if torch.isnan(level).any():
            raise InputError(f"log_snr for weight table '{self.name}'", expected="numbers", got="NaN")
        weight = self.rule(level) if self.rule is not None else self._between_rows(level)
        if isinstance(log_snr, Tensor) and log_snr.is_floating_point():
            return weight.to(log_snr.dtype)
        return weight

    def from_timesteps(self, scheduler: Any, timesteps: Tensor) -> Tensor:
        """Weights for a schedule's own time.

        Args:
            scheduler: A `Schedule`, or a scheduler object of the diffusers library (which is read anew at
                every call: in a training loop pass `schedules.from_diffusers(scheduler)` for a table,
                or keep `to_steps`).
            timesteps: Times of any shape, as that scheduler counts them (1000 t of most flows, ln(s)/4 of EDM), which is
                also the time of `schedules.from_diffusers(scheduler)`.

        Returns:
            Weights of that shape; in PyTorch's default dtype for integer steps, so that they multiply
            a loss without widening it.

        Raises:
            InputError: times that the scheduler does not have; or three and more none of which lies within the rows of a
                table without a rule, which are times in another unit.
        """
        given = as_numbers("timesteps", timesteps)
        dtype = given.dtype if given.is_floating_point() else torch.get_default_dtype()
        level = Timesteps(scheduler).log_snr(given)
        self.require_within(level)
        return self(level).to(dtype)

    def require_within(self, log_snr: Tensor) -> None:
        """Refuse three and more log-SNR, as of the times of a batch, none of which lies within the rows of a measured table.

        Raises:
            InputError: that is so; one or two are warned of. A rule has weights everywhere.
        """
        if self.rule is None:
            check_within(f"weight table '{self.name}'", self.log_snr, log_snr.cpu())

    def from_sigmas(self, sigma: float | Tensor) -> Tensor:
        """Weights for noise levels σ/α ≥ 0 of EDM and k-diffusion, in their shape and dtype."""
        level = as_numbers("sigma", sigma, torch.float64)
        if not (level >= 0).all():
            raise InputError("sigma", expected="noise levels ≥ 0", got="a negative number or NaN")
        weight = self(-2 * level.log())
        return weight.to(sigma.dtype) if isinstance(sigma, Tensor) and sigma.is_floating_point() else weight

    def to_steps(self, schedule: Schedule) -> Tensor:
        """Weights of every step of a discrete schedule, float64 [steps]: a buffer to index by timestep.

        Raises:
            InputError: the schedule is continuous.
        """
        require_schedule("schedule", schedule)
        return self(log_snr_of_steps(schedule))

    def mean_under(self, schedule: Schedule) -> float:
        """Mean weight over the log-SNR that training on `schedule` samples.

        Raises:
            InputError: the mean is infinite.
        """
        require_schedule("schedule", schedule)
        return density_mean(self, schedule, f"weight table '{self.name}'")

    def normalised(self, schedule: Schedule) -> WeightTable:
        """The same weights at mean 1 under the schedule's density, so that they leave the learning rate unchanged.

        Raises:
            InputError: the mean is zero or infinite.
        """
        mean = self.mean_under(schedule)
        if not mean > 0:
            raise InputError(
                f"weight table '{self.name}'",
                expected=f"some weight where '{schedule.name}' samples",
                got="mean 0",
            )
        about = {"schedule": without_steps(schedule.describe()), "mean_before": mean}
        meta = {**self.meta, "normalised": about}
        if self.rule is not None:
            scaled = replace(self.rule, scale=self.rule.scale / mean)
            return replace(self, weight=scaled(self.log_snr), rule=scaled, meta=meta)
        columns: dict[str, Any] = {
            name: column / mean for name, column in self.columns.items() if name != "log_snr"
        }
        return replace(self, **columns, meta=meta)

    def save(self, path: Path | str) -> None:
        """Write a .csv or .json file, whole or not at all; `load` returns the same bits.

        Raises:
            InputError: another suffix, or a folder that cannot be written to.
        """
        columns = {name: column.tolist() for name, column in self.columns.items()}
        rule = self.rule.describe() if self.rule else None
        files.write(
            path, {"name": self.name, "target": self.target, "rule": rule, "meta": dict(self.meta), **columns}
        )

    @classmethod
    def load(cls, path: Path | str) -> WeightTable:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing or is not a valid weight table; the row is named.
        """
        content = files.read(path)
        columns = {name: getattr(content, name) for name in ("log_snr", "weight", "low", "high")}
        tensors = {
            name: torch.tensor(column, dtype=torch.float64)
            for name, column in columns.items()
            if column is not None
        }
        check_columns(str(path), tensors)
        target = target_name(content.target)
        rule = ClosedForm.from_description(target, **content.rule.model_dump()) if content.rule else None
        if rule is not None:
            check_rule(str(path), rule(tensors["log_snr"]), tensors["weight"])
        return cls(**tensors, target=target, name=content.name, meta=content.meta, rule=rule)

    def after_step(self, step: int) -> None:
        """Do nothing: a table never changes."""

    def state_dict(self) -> dict[str, Any]:
        """Target and columns, by which a checkpoint recognises these weights."""
        return {"target": self.target, "log_snr": self.log_snr.tolist(), "weight": self.weight.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that a checkpoint was made with these weights.

        Raises:
            InputError: it was made with others.
        """
        own = self.state_dict()
        same = own["target"] == state.get("target") and all(
            _close(own[name], state.get(name, [])) for name in ("log_snr", "weight")
        )
        if not same:
            raise InputError(
                f"weight table '{self.name}'",
                expected="the weights the checkpoint was trained with",
                got="others",
                fix="Resume with the same weights, or start a new run.",
            )

    def __repr__(self) -> str:
        low, high = self.log_snr[0].item(), self.log_snr[-1].item()
        reach = f"{len(self.weight)} rows, log-SNR {low:g} to {high:g}"
        return f"WeightTable('{self.name}' on {self.target}, {reach})"

    def _repr_html_(self) -> str:
        """At most `_MOST_SHOWN` rows, evenly spread; the title says how many there are."""
        every = -(-len(self.weight) // _MOST_SHOWN)
        rows = zip(*(column[::every].tolist() for column in self.columns.values()), strict=True)
        title = repr(self) if every == 1 else f"{self!r}; one row in {every} is shown"
        return html_rows(title, list(self.columns), rows)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _close(left: list[float], right: list[float]) -> bool:
    return len(left) == len(right) and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=0.0) for a, b in zip(left, right, strict=True)
    )
