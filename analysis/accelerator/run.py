"""What does a kernel cost on a CUDA card, and what does lower precision cost in accuracy? See README.md.

python -m analysis.accelerator.run [--device cuda] [--size full|tiny] [--out FOLDER] [--minutes 8]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import ntkdiag as nd
from analysis import command_line
from analysis.accelerator.card import (
    PRECISIONS,
    Meter,
    copy_bandwidth,
    hardware,
    matrix_rate,
    where_time_goes,
)
from analysis.stopwatch import machine, reason_of, relative_error
from analysis.ways import Case, dit_case, first_samples_truth, sketched, streaming, torch_func, training_step
from ntkdiag.kernel import CheckOnce
from ntkdiag.kernel.streaming.contraction import contract
from ntkdiag.provenance import environment, write_json, write_text

HERE = Path(__file__).parent
MIB = 1024**2

Rows = Iterator[dict[str, Any]]


def built(config: dict[str, Any], network: str, samples: int, meter: Meter) -> Case:
    """One of the networks, with random latents, on the device."""
    return dit_case(**config["networks"][network], samples=samples, device=meter.device)


def precision_rows(config: dict[str, Any], meter: Meter) -> Rows:
    """One row per network, precision and way: seconds, peak memory, error relative to float64 of the same weights."""
    for network in config["networks"]:
        case = built(config, network, config["samples"], meter)
        weights = {name: value.clone() for name, value in case.module.state_dict().items()}
        truth = first_samples_truth(case, config["truth_samples"]).cpu().numpy()
        for precision, (dtype, tf32) in PRECISIONS.items():
            case = case.to(dtype)
            case.module.load_state_dict(weights)
            with meter.precision(tf32):
                ways = {
                    "training step": training_step(case),
                    "exact": streaming(case),
                    "exact, later": streaming(case, check=CheckOnce()),
                    "sketch": sketched(case),
                    "sketch, later": sketched(case, check=CheckOnce()),
                }
                if network in config["torch_func"]:
                    ways["torch.func"] = torch_func(case, written_out_attention=True)
                for way, call in ways.items():
                    measured = tried(partial(measure_way, call, config["rounds"], meter, truth))
                    case.module.zero_grad(set_to_none=True)  # no other way needs a step's gradients in memory
                    yield {"network": network, "precision": precision, "way": way, **measured}


def tried(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is measured, or the reason why it cannot be, such as memory that ran out."""
    try:
        return measure()
    except Exception as error:  # the error becomes the row in the table
        found = {"reason": reason_of(error)}
    torch.cuda.empty_cache()  # does nothing without a card
    return found


def measure_way(
    call: Callable[[], Tensor | None], rounds: int, meter: Meter, truth: Any
) -> dict[str, float | None]:
    """Cold and warm seconds, peak memory and, for kernels, the relative error for the samples of the reference."""
    cold = meter.seconds(call)
    warm = median(meter.seconds(call) for _ in range(rounds))
    found: list[Tensor | None] = []
    peak = meter.peak_mib(lambda: found.append(call()))
    error = None
    if found[0] is not None:
        kernel = found[0].detach().double().cpu().squeeze(0)[: len(truth), : len(truth)]
        error = relative_error(kernel.numpy(), truth)
    return {"cold_seconds": cold, "warm_seconds": warm, "peak_mib": peak, "relative_error": error}


@contextmanager
def tile_size(device: torch.device, mib: float) -> Iterator[None]:
    """Tiles of per-sample gradients of this size inside the block."""
    kept = dict(contract.TILE_BYTES)
    contract.TILE_BYTES[device.type] = int(mib * MIB)
    try:
        yield
    finally:
        contract.TILE_BYTES.update(kept)


def tile_rows(config: dict[str, Any], meter: Meter) -> Rows:
    """One row per network, precision and tile size: seconds of the exact kernel, beside a training step."""
    for network in config["networks"]:
        case = built(config, network, config["samples"], meter)
        for precision, (dtype, tf32) in PRECISIONS.items():
            case = case.to(dtype)
            with meter.precision(tf32):
                calls: dict[float, Callable[[], Any]] = {0: training_step(case)}
                calls |= dict.fromkeys(config["tiles_mib"], streaming(case, check=CheckOnce()))
                times: dict[float, list[float]] = {tile: [] for tile in calls}
                for _ in range(config["rounds"] + 1):  # in turn; the first round warms up
                    for tile, call in calls.items():
                        with tile_size(meter.device, tile):
                            times[tile].append(meter.seconds(call))
                step = median(times.pop(0)[1:])
                for tile, each in times.items():
                    found = {"seconds": median(each[1:]), "steps": median(each[1:]) / step}
                    yield {"network": network, "precision": precision, "tile_mib": tile, **found}


def sample_rows(config: dict[str, Any], meter: Meter) -> Rows:
    """One row per number of samples and engine, in TF32: seconds beside a training step over as many samples."""
    network = config["growth"]["network"]
    for samples in config["growth"]["samples"]:
        case = built(config, network, samples, meter)
        with meter.precision(True):
            for way, call in {"exact": streaming(case), "sketch": sketched(case)}.items():
                call()
                taken = median(meter.seconds(call) for _ in range(config["rounds"]))
                step = samples * step_seconds_per_sample(config, case, meter)
                yield {
                    "network": network,
                    "samples": samples,
                    "way": way,
                    "seconds": taken,
                    "steps": taken / step,
                }


def step_seconds_per_sample(config: dict[str, Any], case: Case, meter: Meter) -> float:
    """Of a training step over a batch that fits beside its activations."""
    few = case.take(config["samples"])
    step = training_step(few)
    step()
    found = median(meter.seconds(step) for _ in range(config["rounds"]))
    case.module.zero_grad(set_to_none=True)
    return found / few.samples


def measure_rows(config: dict[str, Any], meter: Meter) -> Rows:
    """nd.measure of a large network by sketches, one row per precision: seconds, beside as many training steps."""
    wanted = config["measure"]
    network, buckets, samples, probes = (wanted[name] for name in ("network", "buckets", "samples", "probes"))
    case = built(config, network, config["samples"], meter)
    latents = torch.randn(samples, *case.inputs[0].shape[1:], generator=torch.Generator().manual_seed(1))
    for precision in wanted["precisions"]:  # from wide to narrow: the network is converted in place
        dtype, tf32 = PRECISIONS[precision]
        case = case.to(dtype)
        denoiser = nd.Denoiser(case.module, schedule=nd.schedules.cosine(), target="v", call="log_snr")
        call = partial(
            nd.measure, denoiser, latents, buckets, samples=samples, probes=probes, engine="sketch"
        )

        def measured(call: Callable[[], Any] = call, case: Case = case) -> dict[str, float]:
            step = buckets * samples * step_seconds_per_sample(config, case, meter)
            seconds: list[float] = []
            peak = meter.peak_mib(lambda: seconds.append(meter.seconds(call)))
            return {"seconds": seconds[0], "steps_of_all_samples": seconds[0] / step, "peak_mib": peak}

        with meter.precision(tf32):
            found = tried(measured)
        yield {
            "network": network, "parameters": case.parameters, "precision": precision, "buckets": buckets,
            "samples": samples, "probes": probes, **found,
        }  # fmt: skip


def profile_rows(config: dict[str, Any], meter: Meter) -> Rows:
    """Where the time of a kernel goes, by operation, for each engine; of a later call of a measurement, in TF32."""
    network = config["growth"]["network"]
    case = built(config, network, config["samples"], meter)
    with meter.precision(True):
        for way, engine in {"exact": streaming, "sketch": sketched}.items():
            call = engine(case, check=CheckOnce())
            call()
            for row in where_time_goes(call, meter):
                yield {"network": network, "way": way, **row}


# In the order of what would be missed most if the time were over.
STUDIES: dict[str, Callable[[dict[str, Any], Meter], Rows]] = {
    "measure": measure_rows,
    "precision": precision_rows,
    "profile": profile_rows,
    "growth": sample_rows,
    "tiles": tile_rows,
}


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = command_line.parser(__doc__, HERE)
    parser.add_argument("--device", default="cuda", help="a torch device, such as cuda:1 or cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row begins after this time")
    return parser.parse_args()


def write_rows(path: Path, rows: Rows, time_is_over: Callable[[], bool]) -> bool:
    """Write a table anew with every row, so that a run that is stopped loses none; whether there was time for all rows.

    An error ends this table, with its reason as the last row, and not the others.
    """
    found: list[dict[str, Any]] = []
    while not time_is_over():
        try:
            row = next(rows, None)
        except Exception as error:
            row, rows = {"reason": reason_of(error)}, iter(())
        if row is None:
            return True
        found.append(row)
        print(row, flush=True)
        write_text(path, pd.DataFrame(found).to_csv(index=False, float_format="%.5g"))
    return False


def main() -> None:
    """Run every study; each row is written as soon as it is measured."""
    began, chosen = time.perf_counter(), options()
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA card is visible; --device cpu --size tiny tries the script without one")
    config, meter = command_line.settings(HERE, chosen.size), Meter(device)
    chosen.out.mkdir(parents=True, exist_ok=True)
    card = hardware(device) | {
        "matrix_rate": {name: matrix_rate(meter, config["matrix"], name) for name in PRECISIONS},
        "copy_bytes_per_second": copy_bandwidth(meter, config["copy_mib"] * MIB),
    }

    def note(unfinished: list[str]) -> None:
        run = {"seconds": round(time.perf_counter() - began, 1), "unfinished": unfinished}
        write_json(chosen.out / "machine.json", machine() | environment(device) | card | run)

    def time_is_over() -> bool:
        return time.perf_counter() - began > 60 * chosen.minutes

    unfinished = [*STUDIES]
    note(unfinished)
    print(card, flush=True)
    for name, study in STUDIES.items():
        if write_rows(chosen.out / f"{name}.csv", study(config, meter), time_is_over):
            unfinished.remove(name)
        note(unfinished)


if __name__ == "__main__":
    main()
