"""One way to an approximate kernel on one network, in a process of its own: prints a JSON line.

    python -m analysis.peers.approximate WAY NETWORK SIZE CASE_FILE LENGTH ROUNDS [--columns | --law]

LENGTH is k or m, and 0 for an exact kernel. Each round draws other random numbers, and a training step in the same process
precedes it; on one thread, so that processor seconds are those of the work. With --columns, the errors of all shorter
projections come from disjoint columns of one; with --law, they are what normal numbers give in theory.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.peers.cases import load_case
from analysis.stopwatch import peak_mib, reason_of, relative_error, resident_mib
from analysis.ways import Case, training_step
from ntkdiag.spectra import effective_rank

Array = NDArray[np.float64]


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, processor seconds and wall-clock seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    return result, time.process_time() - processor, time.perf_counter() - wall


def errors_of(kernels: list[Array], truth: Array) -> dict[str, float]:
    """Root mean squares over kernels: the error of a correlation coefficient, relative ones of effective rank and kernel."""
    off = ~np.eye(len(truth), dtype=bool)
    exact_rank = float(effective_rank(torch.from_numpy(truth)))
    gaps = [(correlations(found) - correlations(truth))[off] for found in kernels]
    ranks = [float(effective_rank(torch.from_numpy(found))) / exact_rank - 1 for found in kernels]
    norms = [relative_error(found, truth) for found in kernels]
    return {
        "correlation_error": _root_mean_square(gaps),
        "rank_error": _root_mean_square(ranks),
        "rank_shift": float(np.mean(ranks)),
        "relative_error": _root_mean_square(norms),
    }


def correlations(kernel: Array) -> Array:
    """K_ij / √(K_ii K_jj)."""
    root = np.sqrt(kernel.diagonal())
    return kernel / root / root[:, None]


def _root_mean_square(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def loaded(network: str, size: str, file: str) -> tuple[Case, Array]:
    """A case of as many of its samples as config.json says, and its float64 kernel."""
    config = json.loads(Path(__file__).with_name("config.json").read_text())["projections"][size]
    samples = config["samples"].get(network)
    with np.load(file) as arrays:
        truth = arrays["truth"][:samples, :samples]
    case = load_case(network, size, file)
    return case.take(samples or case.samples), truth


def preparation(way: str) -> Callable[..., tuple[Callable[[], Tensor], int]]:
    """What makes a call for the kernel, and the number of parameters that it covers.

    A way has it as `prepare`, or has `columns` alone, the projections of whole gradients, whose products are the kernel.
    """
    module = importlib.import_module(f"analysis.peers.way_{way}")

    def multiplied(case: Case, *how: int) -> tuple[Callable[[], Tensor], int]:
        rows = module.columns(case, *how)

        def kernel() -> Tensor:
            found = rows()
            return found @ found.T

        return kernel, case.parameters

    return getattr(module, "prepare", multiplied)


def measured(way: str, network: str, size: str, file: str, length: int, rounds: int) -> dict[str, Any]:
    """Seconds beside a training step, memory and errors of one way, or the reason why there is no kernel."""
    prepare = preparation(way)
    case, truth = loaded(network, size, file)
    ready = resident_mib()

    def prepared(case: Case, seed: int) -> tuple[Callable[[], Tensor], int]:
        call, covered = prepare(case, length, seed) if length else prepare(case)
        call()
        return call, covered

    try:
        (call, covered), cold, _ = timed(lambda: prepared(case, 0))
    except Exception as error:  # the error becomes the row in the table
        return {"status": "cannot", "reason": reason_of(error)}
    row = {
        "ready_mib": ready,
        "peak_mib": peak_mib(),
        "cold_processor_seconds": cold,
        "parameters": case.parameters,
        "covered": covered,
    }
    step = training_step(loaded(network, size, file)[0])
    step()
    kernels, steps, calls, walls = [], [], [], []
    for turn in range(rounds):
        if turn:
            del call  # before the next one is made: each may be as large as the gradients of all samples
            call, _ = prepared(loaded(network, size, file)[0], turn)
        steps.append(timed(step)[1])
        found, processor, wall = timed(call)
        kernels.append(found.detach().double().numpy())
        calls.append(processor)
        walls.append(wall)
    row |= {
        "processor_seconds": median(calls),
        "wall_seconds": median(walls),
        "step_processor_seconds": median(steps),
    }
    row["steps"] = median(a / b for a, b in zip(calls, steps, strict=True))
    return row | errors_of(kernels, truth) | {"status": "ok"}


def curve(way: str, network: str, size: str, file: str, length: int, most: int) -> list[dict[str, Any]]:
    """Errors of projections to length, length/2, … numbers, each of at most `most` disjoint parts of one projection."""
    columns = importlib.import_module(f"analysis.peers.way_{way}").columns
    case, truth = loaded(network, size, file)
    rows = columns(case, length)().double().numpy()
    order = np.random.default_rng(0).permutation(length)
    found, shorter = [], length
    while shorter >= max(length // 16, 2):
        parts = [order[place : place + shorter] for place in range(0, length - shorter + 1, shorter)][:most]
        kernels = [rows[:, part] @ rows[:, part].T * (length / shorter) for part in parts]
        found.append({"length": shorter, "kernels": len(kernels)} | errors_of(kernels, truth))
        shorter //= 2
    return found


def law(way: str, network: str, size: str, file: str, length: int, draws: int) -> list[dict[str, Any]]:
    """Errors of 4, 16 and 64 times `length` normal numbers, by theory: K̂ = ZZᵀ/m with m columns of covariance K."""
    _, truth = loaded(network, size, file)
    values, vectors = np.linalg.eigh(truth)
    root, random = vectors * np.sqrt(values.clip(0)), np.random.default_rng(0)
    found = []
    for longer in (4 * length, 16 * length, 64 * length):
        drawn = (root @ random.standard_normal((len(truth), longer)) for _ in range(draws))
        kernels = [rows @ rows.T / longer for rows in drawn]
        found.append({"length": longer, "kernels": draws} | errors_of(kernels, truth))
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    *chosen, chosen_length, count = sys.argv[1:7]
    work = {"--columns": curve, "--law": law}.get(sys.argv[-1], measured)
    print("ROW " + json.dumps(work(*chosen, int(chosen_length), int(count))))
