"""How the benchmarks measure: seconds in interleaved rounds, memory of a process, a description of the machine.

It also has the two numbers that they report: relative error and growth exponent. It needs numpy alone, so that it runs in
the environments of other tools too. Nothing in the package imports it.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STATUS = Path("/proc/self/status")
_CPU = Path("/proc/cpuinfo")


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(
    calls: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Time several calls in turn, so that a slow phase of the machine affects all of them.

    Args:
        calls: Name → what to time.
        rounds: How often each is timed; the order rotates by one place every round.
        warmup: Calls of each before the first round, not timed.

    Returns:
        Name → seconds of each round.
    """
    names = list(calls)
    for name in names:
        for _ in range(warmup):
            calls[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            times[name].append(seconds(calls[name]))
    return times


def spread(times: list[float]) -> dict[str, float]:
    """Columns of a table of times: median, fastest and slowest seconds, and how many there are."""
    return {"seconds": median(times), "fastest": min(times), "slowest": max(times), "rounds": len(times)}


def repeated(call: Callable[[], Any], budget: float, least: int = 2, most: int = 7) -> list[float]:
    """Seconds of each call, repeated until `budget` seconds or `most` calls are reached, but at least `least` times."""
    times: list[float] = []
    while len(times) < least or (len(times) < most and sum(times) < budget):
        times.append(seconds(call))
    return times


def resident_mib() -> float:
    """Memory that this process uses now, in MiB; its peak where the system has no /proc."""
    return _status("VmRSS")


def peak_mib() -> float:
    """Peak memory of this process, in MiB.

    Read from /proc where there is one: getrusage's figure also counts the parent before exec.
    """
    return _status("VmHWM")


def _status(key: str) -> float:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, system, and the current load average."""
    names = [line.split(":", 1)[1].strip() for line in _lines(_CPU) if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def reason_of(error: Exception) -> str:
    """An error in one line, for a table."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def relative_error(found: NDArray[Any], truth: NDArray[Any]) -> float:
    """‖found − truth‖ / ‖truth‖ in Frobenius norm."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def exponent(sizes: NDArray[Any], times: NDArray[Any]) -> tuple[float, float]:
    """Slope of ln time against ln size by least squares, and its standard error (NaN for two points)."""
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(times, float))
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    if len(x) < 3:
        return slope, float("nan")
    residual = y - y.mean() - slope * centred
    return slope, float(np.sqrt(residual @ residual / (len(x) - 2) / (centred @ centred)))
