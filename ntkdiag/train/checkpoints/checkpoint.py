"""Checkpoints: a .safetensors file of tensors, and training.json, which names that file.

The JSON file is replaced last and atomically, so a process that is killed at any moment leaves the previous
checkpoint intact. Reading a checkpoint executes nothing in it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.errors import InputError
from ntkdiag.provenance.unfinished import usual_mode
from ntkdiag.tensor_files import read_safetensors

MANIFEST = "training.json"
# A checkpoint, the copy of its record, or what a dead process left of one.
_CHECKPOINT = re.compile(r"checkpoint-(\d+)(.*)")


class Manifest(BaseModel):
    """The content of training.json: everything in a checkpoint that is not a tensor.

    Attributes:
        format: Version of this file format.
        step: Number of optimizer steps done.
        tensors: Name of the tensor file, in the same folder.
        config: The `TrainConfig`.
        problem: Data, schedule, target and buckets.
        history: Columns of the history so far; null where a bucket had no sample.
        filled: Steps since the last row of the history.
        seconds: Time spent in training, in seconds.
        weights: State of the loss weights.
        environment: Versions and device.
        notes: The remarks that `train` was given.
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

    @field_validator("problem")
    @classmethod
    def _says_its_data(cls, problem: dict[str, Any]) -> dict[str, Any]:
        data = problem.get("data")
        if not isinstance(data, dict) or not {"name", "digest", "shape"} <= data.keys():
            raise ValueError("no name, digest and shape of the data")
        return problem


def tensor_file(step: int) -> str:
    """Name of the tensor file of a step."""
    return f"checkpoint-{step:08d}.safetensors"


def write_checkpoint(folder: Path, manifest: Manifest, tensors: dict[str, Tensor], keep: int = 1) -> None:
    """Write a checkpoint; those that are not kept are deleted last.

    Args:
        folder: An existing folder.
        manifest: The content of training.json; `tensors` names the tensor file to write.
        tensors: Contiguous tensors that share no memory.
        keep: How many checkpoints to keep; with more than one, each has a copy of its training.json beside it.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = folder / manifest.tensors
    # Every step has its own file, so the file that training.json names at this moment is not overwritten.
    write_tensors(path, tensors)
    # Not write_json, which sorts the keys: the columns of the history must keep their order.
    text = json.dumps(manifest.model_dump(), indent=2, allow_nan=False) + "\n"
    if keep > 1:
        provenance.write_text(path.with_suffix(".json"), text)
    provenance.write_text(folder / MANIFEST, text)
    _remove_old(folder, manifest.step, keep)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a .safetensors file, whole or not at all.

    Args:
        path: The file.
        tensors: Contiguous tensors that share no memory.

    Raises:
        InputError: the file cannot be written.
    """
    with provenance.written(path) as file:
        try:
            safetensors.torch.save_file(tensors, file)
            file.chmod(usual_mode(0o666))  # safetensors makes files that their owner alone may read
        except safetensors.SafetensorError as error:
            raise _system_error(error) from error


def _remove_old(folder: Path, step: int, keep: int) -> None:
    """Remove checkpoints but the last ones: those of later steps too, which a run that went back has left."""
    found = {file: match for file in folder.iterdir() if (match := _CHECKPOINT.match(file.name))}
    steps = sorted({int(match[1]) for match in found.values() if int(match[1]) <= step})
    for file, match in found.items():
        kept = int(match[1]) in steps[-keep:] and (keep > 1 or match[2] == ".safetensors")
        if not kept:
            file.unlink(missing_ok=True)


def _system_error(error: safetensors.SafetensorError) -> OSError:
    """The system's own error, of which safetensors keeps the number in its text."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else 0
    return OSError(code, os.strerror(code) if code else str(error))


def read_manifest(folder: Path | str) -> Manifest:
    """The content of training.json in a training folder.

    Raises:
        InputError: there is no such file, or it was not written by this package.
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
    return manifest, read_safetensors(Path(folder) / manifest.tensors)
