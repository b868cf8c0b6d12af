"""What a user's network says itself: the schedule that it was trained on and its target, in attributes of those names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from ntkdiag.process.schedules.base import Schedule

_SCHEDULES = ("schedule", "scheduler", "noise_scheduler")
_TARGETS = ("target", "prediction_type")


@dataclass(frozen=True)
class Said:
    """What a network says; None where it says nothing.

    Attributes:
        schedule: The noise schedule.
        target: Name of the target.
    """

    schedule: Schedule | None = None
    target: str | None = None


def said_by(network: nn.Module) -> Said:
    """What the attributes of a network say.

    Args:
        network: Its attribute `schedule` (`scheduler`, `noise_scheduler`) is read where it is an `ntkdiag` schedule or a
            scheduler of the diffusers library, and `target` (`prediction_type`) where it is the name of a target. Without
            a target, the scheduler's `prediction_type` counts. Other things of these names are left alone.
    """
    schedules = (_schedule(getattr(network, name, None)) for name in _SCHEDULES)
    targets = (_target(getattr(network, name, None)) for name in _TARGETS)
    schedule = next((found for found in schedules if found is not None), None)
    target = next((found for found in targets if found is not None), None)
    if target is None and schedule is not None and len(schedule.predicted) == 1:
        target = schedule.predicted[0]
    return Said(schedule, target)


def settled(schedule: Schedule | None, target: str | None, own: Said) -> tuple[Schedule, str]:
    """Schedule and target, where the options and the network between them say both and do not differ.

    Args:
        schedule, target: Those of the options; None where they were not given.
        own: What the network says.

    Raises:
        InputError: one of them is said by neither, or both say it and differ.
    """
    path, name = _agreed("schedule", schedule, own.schedule), _agreed("target", target, own.target)
    missing = [f"--{one}" for one, found in (("schedule", path), ("target", name)) if found is None]
    if path is None or name is None:
        raise InputError(
            " and ".join(missing),
            expected="what the network was trained on, since its function returns a plain module",
            got="nothing",
            fix=f"Give {' and '.join(missing)}, set attributes of these names on the module, or return an ntkdiag.Denoiser.",
        )
    return path, name


def _agreed(name: str, given: Any, own: Any) -> Any:
    if given is not None and own is not None and given != own:
        raise InputError(
            f"--{name}",
            expected=f"{own}, as the network's attribute {name} says, or nothing",
            got=str(given),
        )
    return own if given is None else given


def _schedule(value: Any) -> Schedule | None:
    from ntkdiag.process import schedules
    from ntkdiag.process.schedules.base import Schedule

    if value is None or isinstance(value, Schedule):
        return value
    try:
        return schedules.from_diffusers(value)
    except InputError:
        return None


def _target(value: Any) -> str | None:
    from ntkdiag.process.target import target_name

    try:
        return target_name(value) if isinstance(value, str) else None
    except InputError:
        return None
