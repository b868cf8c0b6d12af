"""Seconds, peak memory, matrix rate, copy bandwidth, and where the time of a call goes, read off the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from analysis.stopwatch import peak_mib

# name → (dtype of weights and inputs, TF32 in matrix products)
PRECISIONS: dict[str, tuple[torch.dtype, bool]] = {
    "float32": (torch.float32, False),
    "TF32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
}

# What gives work to a card, as the profiler names it.
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")


class Meter:
    """Measures seconds and peak memory on one device; waits for the card before it reads the clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def precision(self, tf32: bool) -> Iterator[None]:
        """Allow or forbid TF32 in matrix products and convolutions inside the block."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        kept = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = tf32
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = kept

    def seconds(self, call: Callable[[], Any]) -> float:
        """Wall-clock seconds of one call."""
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def peak_mib(self, call: Callable[[], Any]) -> float:
        """Peak memory in MiB: on a card that allocated during the call, on the CPU that of the process so far."""
        if self.device.type != "cuda":
            call()
            return peak_mib()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        return torch.cuda.max_memory_allocated(self.device) / 1024**2

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def matrix_rate(meter: Meter, side: int, precision: str) -> float:
    """Operations per second of a square matrix product, the fastest of ten."""
    dtype, tf32 = PRECISIONS[precision]
    left = torch.randn(side, side, device=meter.device).to(dtype)
    with meter.precision(tf32):
        fastest = min(meter.seconds(lambda: left @ left) for _ in range(10))
    return 2 * side**3 / fastest


def copy_bandwidth(meter: Meter, size: int) -> float:
    """Bytes read and written per second by a copy within the device's memory, the fastest of ten."""
    source = torch.ones(size, dtype=torch.uint8, device=meter.device)
    target = torch.empty_like(source)
    return 2 * size / min(meter.seconds(lambda: target.copy_(source)) for _ in range(10))


def hardware(device: torch.device) -> dict[str, Any]:
    """What a card is made of; nothing of a CPU."""
    if device.type != "cuda":
        return {}
    card = torch.cuda.get_device_properties(device)
    return {
        "compute_capability": f"{card.major}.{card.minor}",
        "card_memory_gib": card.total_memory / 1024**3,
        "l2_cache_mib": getattr(card, "L2_cache_size", 0) / 1024**2,
        "cuda": torch.version.cuda,
    }


def where_time_goes(call: Callable[[], Any], meter: Meter, most: int = 15) -> list[dict[str, Any]]:
    """The whole of a call, then the operations and the card's kernels that take most of it; seconds without callees.

    The whole has the wall clock without the profiler, the time that the card works, how often work is given to it
    (`calls`), and how often it is waited for.
    """
    on_card = meter.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    wall = meter.seconds(call)
    with profile(activities=activities) as found:
        call()
    kernels, operations = [], []
    for each in found.key_averages():
        if each.device_type == DeviceType.CPU:
            operations.append(each)
        elif not getattr(each, "is_user_annotation", False):
            kernels.append(each)
    # an operation has the time of the kernels that it launches too, so that only one of both lists adds up
    busy = sum(each.self_device_time_total for each in kernels) * 1e-6
    launches = sum(each.count for each in operations if each.key.startswith(LAUNCHES))
    waits = sum(each.count for each in operations if "Synchronize" in each.key)
    whole = {"kind": "whole", "calls": launches, "host_seconds": wall, "card_seconds": busy, "waits": waits}
    operations.sort(key=lambda each: (-each.self_device_time_total, -each.self_cpu_time_total))
    kernels.sort(key=lambda each: -each.self_device_time_total)
    return [whole, *_rows("operation", operations[:most]), *_rows("kernel", kernels[:most])]


def _rows(kind: str, events: Iterable[Any]) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "name": each.key[:80],
            "calls": each.count,
            "host_seconds": each.self_cpu_time_total * 1e-6,
            "card_seconds": each.self_device_time_total * 1e-6,
        }
        for each in events
    ]
