"""Checkpoints: one .safetensors file of tensors, and training.json, which says which file that is.

The JSON is replaced last and at once, so a process killed at any moment leaves the previous checkpoint
whole. Nothing in a checkpoint is executed when it is read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.errors import InputError
from ntkdiag.train.checkpoints.weight_files import read_tensors

MANIFEST = "training.json"


class Manifest(BaseModel):
    """All of a checkpoint that is not a tensor.

    Attributes:
        format: Version of this layout.
        step: Optimizer steps done.
        tensors: Name of the tensor file, in the same folder.
        config: The `TrainConfig`.
        problem: What is trained on what: data, schedule, target, buckets.
        history: The columns so far; null where a bucket saw no sample.
        filled: Steps since the last row of the history.
        seconds: Time spent training.
        weights: State of the weight source.
        environment: Versions and device.
        notes: Whatever the caller of `train` wanted kept.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    step: int = Field(ge=0)
    tensors: str = Field(pattern=r"^checkpoint-\d+\.safetensors$")
    config: dict[str, Any]
    problem: dict[str, Any]
    history: dict[str, list[float | None]]
    filled: int = Field(ge=0)
    seconds: float = Field(ge=0)
    weights: dict[str, Any]
    environment: dict[str, str]
    notes: dict[str, Any]


def tensor_file(step: int) -> str:
    """Name of the tensor file of a step."""
    return f"checkpoint-{step:08d}.safetensors"


def write_checkpoint(folder: Path, manifest: Manifest, tensors: dict[str, Tensor]) -> None:
    """Make this the folder's checkpoint; the one before it is deleted last.

    Args:
        folder: An existing folder.
        manifest: Its `tensors` names the file to write.
        tensors: Contiguous tensors that share no memory.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = folder / manifest.tensors
    try:
        # Each step has a file of its own, so the one the manifest names meanwhile is never written over.
        safetensors.torch.save_file(tensors, path)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            str(folder), expected="a folder with room to write a checkpoint", got=error
        ) from error
    # Not write_json, which sorts keys: the columns of the history keep their order.
    text = json.dumps(manifest.model_dump(), indent=2, allow_nan=False)
    provenance.write_text(folder / MANIFEST, text + "\n")
    for old in folder.glob("checkpoint-*"):
        if old != path:
            old.unlink(missing_ok=True)


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest of a training folder.

    Raises:
        InputError: there is none, or it is not one of this package.
    """
    path = Path(folder) / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            str(folder), expected="a folder with a training run in it", got=f"no {MANIFEST} there"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise InputError(str(path), expected="a training record", got=f"{place}: {first['msg']}") from error


def read_checkpoint(folder: Path | str) -> tuple[Manifest, dict[str, Tensor]]:
    """Manifest and tensors of a training folder.

    Raises:
        InputError: either is missing or damaged.
    """
    manifest = read_manifest(folder)
    return manifest, read_tensors(Path(folder) / manifest.tensors)
