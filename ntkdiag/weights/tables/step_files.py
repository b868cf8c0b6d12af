"""A file with one weight for each step of a scheduler, which any trainer can load and index by timestep."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from safetensors.torch import save

from ntkdiag.errors import require_one_of
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.provenance import versions, write_bytes
from ntkdiag.weights.tables.weight_table import WeightTable

STEP_SUFFIXES = (".npy", ".safetensors")


def save_steps(table: WeightTable, schedule: Schedule, path: Path | str) -> None:
    """Write `table.to_steps(schedule)`, whole or not at all.

    Args:
        table: The weights.
        schedule: A discrete one, such as linear_beta() or from_diffusers(scheduler).
        path: .npy: the float64 array [T] alone. .safetensors: the tensor "weight", float64 [T], and as metadata the
            table's name and target, the schedule and the versions of the packages.

    Raises:
        InputError: another suffix, a continuous schedule, or a folder that cannot be written to.

    Example:
        >>> schedule = nd.schedules.linear_beta(steps=100)
        >>> nd.weights.save_steps(nd.weights.rule("min_snr", "epsilon", schedule), schedule, "steps.npy")
        >>> np.load("steps.npy").shape
        (100,)
    """
    suffix = require_one_of(f"suffix of {path}", Path(path).suffix.lower(), STEP_SUFFIXES)
    weight = table.to_steps(schedule)
    if suffix == ".npy":
        stream = io.BytesIO()
        np.save(stream, weight.numpy(), allow_pickle=False)
        write_bytes(path, stream.getvalue())
        return
    about = {
        "name": table.name,
        "target": table.target,
        "schedule": json.dumps(schedule.describe()),
        "versions": json.dumps(versions()),
    }
    write_bytes(path, save({"weight": weight}, about))
