"""What a measurement would cost, as text."""

from __future__ import annotations

import math
from typing import Any

from ntkdiag.diagnosis.plan import Plan
from ntkdiag.errors import listed

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def plan_text(plan: Plan) -> str:
    """A row for each part and one for the whole, of one process each."""
    header = ["each process", "operations", "training steps", "receives", "memory", "seconds of a core"]
    parts: list[Any] = [*plan.table.to_dict("records"), {"part": "in all"} | plan.whole]
    rows = [header, *map(_row, parts)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(_aligned(row, widths)) for row in rows]
    count = "1 process" if plan.processes == 1 else f"{plan.processes} processes"
    notes = [
        f"\n{count}; a training step has 128 samples. Seconds are measured here on a few samples, for a "
        "core of this machine; nothing was written."
    ]
    if plan.left_out:
        notes.append(f"Not counted, since slow engines serve them: {listed(plan.left_out)}.")
    return "\n".join([*lines, *notes])


def _row(values: dict[str, Any]) -> list[str]:
    return [
        str(values["part"]),
        f"{values['operations']:.1e}",
        f"{values['training_steps']:.1f}",
        _bytes(values["received_bytes"]),
        _bytes(values["memory_bytes"]),
        "-" if math.isnan(values["seconds"]) else f"{values['seconds']:.1f}",
    ]


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    first, *rest = (
        cell.ljust(width) if place == 0 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return [first, *rest]


def _bytes(count: float) -> str:
    place = 0
    while count >= 1000 and place < len(_UNITS) - 1:
        count, place = count / 1024, place + 1
    return f"{count:.3g} {_UNITS[place]}"
