"""One peer on one network, in a process of its own: prints a JSON line.

    python -m analysis.peers.worker PEER NETWORK SIZE CASE_FILE BUDGET_SECONDS

Cold is everything from the loaded network to the first kernel (wrapping, compiling); warm is the median of later
calls. Peak memory is this process's own; `ready` is what it held before the first call.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from statistics import median
from typing import Any

import numpy as np

from analysis.stopwatch import peak_mib, reason_of, relative_error, repeated, resident_mib


def measured(peer: str, network: str, size: str, case_file: str, budget: float) -> dict[str, Any]:
    """Times, memory and error of one peer, or the reason why it gives no kernel."""
    way = importlib.import_module(f"analysis.peers.way_{peer}")
    with np.load(case_file) as arrays:
        truth = arrays["truth"]
    case = way.load_case(network, size, case_file)
    ready, start = resident_mib(), time.perf_counter()
    try:
        call, covered = way.prepare(case)
        found = call()
    except Exception as error:  # the error becomes the peer's row in the table
        return {"status": "cannot", "reason": reason_of(error)}
    cold = time.perf_counter() - start
    warm = repeated(call, budget)
    row = {
        "cold_seconds": cold,
        "warm_seconds": median(warm),
        "warm_calls": len(warm),
        "ready_mib": ready,
        "peak_mib": peak_mib(),
        "parameters_covered": covered,
    }
    if found is not None:
        row["relative_error"] = relative_error(np.asarray(found, np.float64), truth)
    return row | {"status": "ok"}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    chosen_peer, chosen_network, chosen_size, file, seconds = sys.argv[1:]
    print("ROW " + json.dumps(measured(chosen_peer, chosen_network, chosen_size, file, float(seconds))))
