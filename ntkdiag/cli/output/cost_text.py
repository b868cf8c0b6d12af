"""What a run would cost, in words; lines begin with # so that they may stand in a preset."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntkdiag.train import Cost

_UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def cost_text(cost: Cost) -> str:
    """Two lines that fit 80 columns."""
    return (
        f"# {cost.parameters:,} parameters; {cost.samples:,} samples, {cost.passes:.3g} passes over the data\n"
        f"# {cost.flops:.2e} operations; about {_duration(cost.seconds)} here without the optimizer's steps"
    )


def _duration(seconds: float) -> str:
    name, unit = next((unit for unit in _UNITS if seconds >= unit[1]), _UNITS[-1])
    return f"{seconds / unit:.2g} {name}"
