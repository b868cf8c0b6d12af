"""Seconds, peak memory, matrix rate, copy bandwidth, and where the time of a call goes, read off the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from analysis.stopwatch import peak_mib

# name → (dtype of weights and inputs, TF32 in matrix products)
PRECISIONS: dict[str, tuple[torch.dtype, bool]] = {
    "float32": (torch.float32, False),
    "TF32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
}


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


def where_time_goes(call: Callable[[], Any], meter: Meter, rows: int = 25) -> str:
    """A table of the operations that take the most time, and the share of the wall clock that the card works."""
    on_card = meter.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    wall = meter.seconds(call)
    with profile(activities=activities) as found:
        call()
    averages = found.key_averages()
    order = "self_device_time_total" if on_card else "self_cpu_time_total"
    table = averages.table(sort_by=order, row_limit=rows, max_name_column_width=60)
    if not on_card:
        return table
    busy = sum(each.self_device_time_total for each in averages) * 1e-6
    launches = sum(each.count for each in averages if each.key == "cudaLaunchKernel")
    waits = sum(each.count for each in averages if "Synchronize" in each.key)
    summary = (
        f"wall {wall:.4f} s without the profiler, card busy {busy:.4f} s, {launches} launches, {waits} waits"
    )
    return f"{summary}\n{table}"
