"""How much memory there is, how many samples fit, and what running out of it looks like."""

from __future__ import annotations

import os

import torch

# Share of free memory that is planned with; the rest is for gradients, temporaries and others. Tuned here.
SHARE = 0.6
# Activations are held once; input gradients and per-sample gradients come on top while the backward runs. Tuned here.
WORKING = 1.5


def available_memory(device: torch.device) -> int:
    """Bytes free on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reusable
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def samples_that_fit(bytes_per_sample: float, memory: int | None, device: torch.device) -> int:
    """Samples whose forward and backward fit the budget, at least one."""
    budget = SHARE * available_memory(device) if memory is None else memory
    return max(1, int(budget / (WORKING * max(1.0, bytes_per_sample))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # the CPU's allocator raises a plain RuntimeError: its words differ by platform
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)
