"""Tensors that lie in several files beside an index, as large models are published.

The index is a JSON file with a "weight_map" from the name of each tensor to the name of its file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ntkdiag.errors import InputError, listed
from ntkdiag.provenance import read_text
from ntkdiag.tensor_files.safetensors_file import read_safetensors
from ntkdiag.tensor_files.torch_file import TORCH_SUFFIXES, read_torch

INDEX_SUFFIX = ".index.json"


def read_sharded(path: Path | str) -> dict[str, Tensor]:
    """All tensors of an index.

    Args:
        path: The index; its files lie in the same folder.

    Raises:
        InputError: no such index, a name of a file that leads out of the folder, a missing or damaged file, or a tensor that
            is not in the file that the index names.
    """
    path = Path(path)
    files = _weight_map(path)
    shards = {name: _read_shard(path, name) for name in sorted(set(files.values()))}
    absent = [f"{tensor} in {file}" for tensor, file in files.items() if tensor not in shards[file]]
    if absent:
        raise InputError(
            str(path), expected="tensors that are in the files it names", got=f"no {listed(absent, 3)}"
        )
    return {tensor: shards[file][tensor] for tensor, file in files.items()}


def _weight_map(path: Path) -> dict[str, str]:
    """Name of each tensor → name of its file."""
    expected = 'an index with a "weight_map" from names of tensors to names of files'
    try:
        content: Any = json.loads(read_text(path))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), expected=expected, got=f"no JSON: {type(error).__name__}") from error
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found or not all(isinstance(one, str) for one in found.values()):
        raise InputError(str(path), expected=expected, got="JSON without such a map")
    return found


def _read_shard(index: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of an index. Its name may be a link, as in the cache of a hub, but not a path."""
    if name != Path(name).name or name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise InputError(
            str(index), expected="names of files in its own folder", got=f"the path {name!r} in it"
        )
    path = index.parent / name
    if path.suffix not in TORCH_SUFFIXES:
        return read_safetensors(path)
    content = read_torch(path)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(str(path), expected="tensors by name, as in a shard", got=type(content).__name__)
    return content
