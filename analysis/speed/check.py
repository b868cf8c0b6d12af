"""What does the comparison with plain autograd cost, beside a kernel, a measurement and a product of the operator?

See README.md.

python -m analysis.speed.check [--size full|tiny] [--out FOLDER]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import pandas as pd
import torch

import ntkdiag as nd
from analysis import command_line
from analysis.speed.run import HERE, case_of
from analysis.ways import Case, streaming
from ntkdiag.kernel import check as check_module
from ntkdiag.provenance import write_text

# Limits of the check's share: of one kernel, of one measurement, and of one product of the operator; the last for 32
# samples, in proportion for others.
KERNEL_LIMIT, MEASURE_LIMIT, PRODUCT_LIMIT = 0.10, 0.01, 0.25


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Processor seconds of one call, which other processes of the machine do not lengthen much."""
    start = time.process_time()
    call()
    return time.process_time() - start


def of_a_kernel(config: dict[str, Any], network: str) -> dict[str, Any]:
    """One row: `gram_of` with one probe, with the check and without, in turn."""
    case = case_of(config, network, 1)
    checked, unchecked = streaming(case), streaming(case, check=False)
    checked()
    pairs = [(cpu_seconds(unchecked), cpu_seconds(checked)) for _ in range(config["check_rounds"])]
    share = median(b / a - 1 for a, b in pairs)
    without = median(a for a, _ in pairs)
    return _row(f"check / one kernel, {network}", without, share, KERNEL_LIMIT)


def of_an_operator(config: dict[str, Any], network: str) -> dict[str, Any]:
    """One row: making `NTKOperator` with the check and without, in turn, and one product of each."""
    case = case_of(config, network, 1)
    made_and_applied(case, True)
    rounds = [
        (made_and_applied(case, False), made_and_applied(case, True)) for _ in range(config["check_rounds"])
    ]
    product = median(one[1] for pair in rounds for one in pair)
    extra = median(checked[0] - unchecked[0] for unchecked, checked in rounds)
    limit = PRODUCT_LIMIT * 32 / case.samples
    return _row(f"operator's check / one product, {network}", product, extra / product, limit)


def made_and_applied(case: Case, check: bool) -> tuple[float, float]:
    """Processor seconds of making the operator, and of one product once the graph of the network is there."""
    vector = torch.randn(case.samples * case.probes[0].numel(), generator=torch.Generator().manual_seed(0))
    made: list[nd.NTKOperator] = []
    making = cpu_seconds(lambda: made.append(nd.NTKOperator.of(case.module, case.inputs, check=check)))
    made[0].apply(vector)
    return making, cpu_seconds(lambda: made[0].apply(vector))


def of_a_measurement(config: dict[str, Any]) -> dict[str, Any]:
    """One row: the comparisons with autograd within `measure`, timed where they are made."""
    spent: list[float] = []
    originals = {name: getattr(check_module, name) for name in ("pair_of", "truth_of")}

    def timed(name: str, *args: Any) -> Any:
        start = time.process_time()
        try:
            return originals[name](*args)
        finally:
            spent.append(time.process_time() - start)

    data = nd.data.load("digits")
    network = nd.models.build("dit", data.shape, seed=0)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    buckets = nd.Buckets.uniform(-10, 10, count=config["check_buckets"])
    for name in originals:
        setattr(check_module, name, partial(timed, name))
    try:
        whole = cpu_seconds(lambda: nd.measure(denoiser, data, buckets, samples=config["check_samples"]))
    finally:
        for name, original in originals.items():
            setattr(check_module, name, original)
    return _row("check / nd.measure at its defaults, digits DiT", whole, sum(spent) / whole, MEASURE_LIMIT)


def _row(name: str, seconds: float, share: float, limit: float) -> dict[str, Any]:
    return {"ratio": name, "seconds_without": seconds, "share": share, "limit": limit, "met": share <= limit}


def main() -> None:
    """Measure and print, one thread."""
    chosen = command_line.parser(__doc__, HERE).parse_args()
    torch.set_num_threads(1)
    config = command_line.settings(HERE, chosen.size)
    rows = [of_a_kernel(config, network) for network in config["networks"]]
    rows += [of_an_operator(config, network) for network in config["networks"]]
    table = pd.DataFrame([*rows, of_a_measurement(config)])
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out / "check.csv", table.to_csv(index=False, float_format="%.4g"))
    print(table.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
