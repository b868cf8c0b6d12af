"""Seconds and memory of a sketched kernel beside the exact one and a training step, and how they grow with N."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import ntkdiag as nd
from analysis.stopwatch import exponent, peak_mib, resident_mib
from analysis.ways import Case, Way, dit_case, streaming, training_step
from ntkdiag.spectra import effective_rank

STEP, EXACT, SKETCH = "training step", "exact", "sketch"


def sketched(case: Case, k: int, **options: Any) -> Way:
    """The engine as users call it, with its check."""
    return lambda: nd.gram_of(case.module, case.inputs, case.probes, engine="sketch", sketch=k, **options)


def processor_seconds(call: Callable[[], Any]) -> float:
    """Of one call on one thread, which other load on the machine affects least."""
    start = time.process_time()
    call()
    return time.process_time() - start


def accuracies(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per way on the DiT of analysis/speed, moved off its start: cost beside a step, errors beside the exact kernel.

    Ways run in turn, and the ratio to the step is the median of the ratios within rounds.
    """
    case = dit_case(**config["network"])
    _wake(case)
    ways: dict[str, Way] = {STEP: training_step(case), EXACT: streaming(case)}
    ways |= {f"{SKETCH}, k={k}": sketched(case, k) for k in config["k"]}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(config["rounds"] + 1):
        for name, way in ways.items():
            seconds = processor_seconds(way)
            if turn:  # the first round warms up
                times[name].append(seconds)
    exact = nd.gram_of(case.module, case.inputs, case.probes)[0]
    rows = []
    for name, way in ways.items():
        ratio = median(a / b for a, b in zip(times[name], times[STEP], strict=True))
        row: dict[str, Any] = {"way": name, "processor_seconds": median(times[name]), "ratio_to_step": ratio}
        if name != STEP:
            found = way()
            assert found is not None
            row |= _errors(found[0], exact)
        rows.append(row)
    return rows


def _wake(case: Case) -> None:
    """Move every parameter off its start, at which most of a DiT has no gradient at all."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in case.module.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def _errors(found: Tensor, exact: Tensor) -> dict[str, float]:
    """Root mean square error of a correlation coefficient, relative error of the trace, effective rank."""
    off = ~torch.eye(len(exact), dtype=torch.bool)
    gap = (_correlations(found) - _correlations(exact))[off]
    return {
        "correlation_error": float(gap.square().mean().sqrt()),
        "trace_error": float(found.trace() / exact.trace() - 1),
        "effective_rank": float(effective_rank(found)),
    }


def _correlations(gram: Tensor) -> Tensor:
    root = gram.diagonal().sqrt()
    return gram / root / root[:, None]


def way_of(config: dict[str, Any], way: str, samples: int) -> Way:
    """One probe of the network of the growth study."""
    case = dit_case(samples=samples, **config["network"])
    return {STEP: training_step(case), EXACT: streaming(case), SKETCH: sketched(case, config["k"])}[way]


def timings(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per way and N: processor seconds, in all and for a sample."""
    rows = []
    way_of(config, SKETCH, min(config["samples"][SKETCH]))()  # what only a first call does
    for way, counts in config["samples"].items():
        for samples in counts:
            call = way_of(config, way, samples)
            rounds = config["rounds"] if samples <= config["repeated_up_to"] else 1
            found = median(processor_seconds(call) for _ in range(rounds))
            rows.append({"way": way, "N": samples, "processor_seconds": found, "a_sample": found / samples})
            print(f"{way:14} N={samples:<5} {found:8.2f} s", flush=True)
    return rows


def fits(times: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per way: exponent in N over all points and over the largest three; and where it costs what the sketch costs.

    The crossing is read off seconds = a N + b N² of the exact engine, by least squares of relative errors, and off the mean
    seconds a sample of the sketch; NaN where it lies outside of what was measured for the exact engine or there is none.
    """
    rows = []
    for way, group in times.groupby("way", sort=False):
        ordered = group.sort_values("N")
        sizes, seconds = ordered.N.to_numpy(float), ordered.processor_seconds.to_numpy(float)
        slope, error = exponent(sizes, seconds)
        late = exponent(sizes[-3:], seconds[-3:])
        rows.append({"way": way, "from": sizes[0], "to": sizes[-1], "exponent": slope, "standard_error": error,
                     "exponent_of_largest_three": late[0]})  # fmt: skip
        if way == EXACT:
            design = np.stack([np.ones_like(sizes), sizes], 1)  # of seconds a sample
            weights = 1 / (seconds / sizes)
            a, b = np.linalg.lstsq(design * weights[:, None], np.ones_like(sizes), rcond=None)[0]
            of_sketch = times[times.way == SKETCH].a_sample.median()
            crossing = (of_sketch - a) / b if b > 0 else np.nan
            rows[-1]["crossing_N"] = crossing if sizes[0] <= crossing <= sizes[-1] else np.nan
    return rows


def peak_of(config: dict[str, Any], way: str, samples: int) -> dict[str, float]:
    """Memory of this process before the call, and its peak, in MiB."""
    call = way_of(config, way, samples)
    ready = resident_mib()
    call()
    return {"ready_mib": ready, "peak_mib": peak_mib()}
