"""What produced a result: versions, hardware, and a hash of the data."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of those that its numbers depend on."""
    packages = ("ntkdiag", "torch", "numpy", "scipy", "pandas")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def environment(device: torch.device | str = "cpu") -> dict[str, str]:
    """`versions` and hardware of this run: platform, device, number of threads."""
    import torch

    place = torch.device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine()
    return {
        **versions(),
        "platform": platform.system(),
        "device": f"{place.type} ({name})",
        "threads": str(torch.get_num_threads()),
    }


def digest(*tensors: torch.Tensor) -> str:
    """SHA-256 over the dtype, shape and bytes of tensors; equal tensors give equal strings."""
    return digest_of(tensors)


def digest_of(tensors: Iterable[torch.Tensor]) -> str:
    """`digest` of tensors that are there one after another."""
    import torch

    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        # Viewed as bytes, because numpy has no bfloat16.
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
