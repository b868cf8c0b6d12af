"""How much memory there is and how much tensors take, how many samples fit, and how running out of it is recognised."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import torch
from torch import Tensor

# Share of the free memory that is planned with; the rest is for gradients, temporaries and other processes. Tuned here.
SHARE = 0.6
# Activations are kept once; input gradients and per-sample gradients are added while the backward runs. Tuned here.
WORKING = 1.5

# Bytes of activations in one sweep, where samples may run in any number of sweeps. Tuned here: larger sweeps are slower on a
# CPU, whose allocator returns large blocks to the system and gets them back page by page.
SWEEP_BYTES = {"cpu": 1024**3}


def available_memory(device: torch.device) -> int:
    """Bytes free on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reusable
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def samples_that_fit(bytes_per_sample: float, memory: int | None, device: torch.device) -> int:
    """Samples whose forward and backward fit the budget, at least one."""
    return max(1, int(memory_budget(memory, device) / (WORKING * max(1.0, bytes_per_sample))))


def samples_at_once(bytes_per_sample: float, device: torch.device) -> int:
    """Samples of one sweep that are fastest, at least one; no limit where a device has none."""
    fastest = SWEEP_BYTES.get(device.type)
    return sys.maxsize if fastest is None else max(1, int(fastest / max(1.0, bytes_per_sample)))


def memory_budget(memory: int | None, device: torch.device) -> float:
    """Bytes to work in: those given, or a share of what is free."""
    return SHARE * available_memory(device) if memory is None else memory


def bytes_of(tensors: Iterable[Tensor], besides: Iterable[Tensor]) -> int:
    """Memory of some tensors, shared storage counted once, without the storage of those in `besides`."""
    others = {_storage(tensor)[0] for tensor in besides}
    return sum(size for place, size in dict(map(_storage, tensors)).items() if place not in others)


def _storage(tensor: Tensor) -> tuple[int, int]:
    """Address and size of a tensor's storage."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except RuntimeError:  # sparse tensors and those of torch.func's transforms have no storage of their own
        return id(tensor), tensor.numel() * tensor.element_size()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # the CPU's allocator, whose words differ by platform, and libraries of a card raise a plain RuntimeError
    words = (
        "can't allocate memory",
        "not enough memory",
        "CUDA error: out of memory",
        "_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)
