"""What does one kernel cost, relative to one training step? See README.md.

python -m analysis.speed.run [--size full|tiny] [--out FOLDER] [--profile]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch

from analysis import command_line
from analysis.stopwatch import interleaved, machine, peak_mib, resident_mib, spread
from analysis.ways import Case, Way, dit_case, streaming, torch_func, training_step
from ntkdiag.provenance import environment, write_json, write_text

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Ways whose peak memory is measured; each runs in a process of its own.
MEMORY_WAYS = ("nothing", "training step", "kernel, 1 probe", "torch.func")
# Limits: time relative to the arithmetic's own ratio, peak memory, a further probe; see README.md.
TIME_LIMIT, MEMORY_LIMIT, FURTHER_LIMIT = 1.10, 1.10, 0.75


def case_of(config: dict[str, Any], network: str, probes: int) -> Case:
    """The DiT with this name in config.json."""
    sizes = {name: config[name] for name in ("side", "width", "depth", "heads")}
    chosen = config["networks"][network]
    return dit_case(samples=chosen["samples"], patch=chosen["patch"], probes=probes, **sizes)


def ways_of(case: Case) -> dict[str, Way]:
    """The ways that are timed in the same rounds."""
    several = case.probes.shape[0]
    return {
        "training step": training_step(case),
        "kernel, 1 probe": streaming(case.first(1)),
        f"kernel, {several} probes": streaming(case),
        "torch.func": torch_func(case),
        "torch.func, written-out attention": torch_func(case, written_out_attention=True),
    }


def timings(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per network and way: seconds, and their ratio to the step's within the same rounds."""
    rows = []
    for network in config["networks"]:
        case = case_of(config, network, config["probes"])
        times = interleaved(ways_of(case), config["rounds"])
        for way, values in times.items():
            rows.append(
                {
                    "network": network,
                    "way": way,
                    **spread(values),
                    "ratio_to_step": median(
                        a / b for a, b in zip(values, times["training step"], strict=True)
                    ),
                }
            )
            print(f"{network:12}  {way:34} {rows[-1]['seconds']:7.3f} s", flush=True)
    return rows


def peaks(size: str, config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per network and way: peak memory of a process that runs this way alone."""
    rows = []
    for network in config["networks"]:
        for way in MEMORY_WAYS:
            call = [sys.executable, "-m", "analysis.speed.run", "--size", size, "--peak-of", network, way]
            answer = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True)
            rows.append({"network": network, "way": way} | json.loads(answer.stdout))
            print(f"{network:12}  {way:34} {rows[-1]['peak_mib']:7.0f} MiB", flush=True)
    return rows


def peak_of(config: dict[str, Any], network: str, way: str) -> dict[str, float]:
    """Memory of this process before the first call, and its peak, in MiB."""
    case = case_of(config, network, 1)
    ready = resident_mib()
    if way != "nothing":
        call = ways_of(case)[way]
        for _ in range(config["peak_calls"]):
            call()
    return {"ready_mib": ready, "peak_mib": peak_mib()}


def ratios(config: dict[str, Any], time: pd.DataFrame, memory: pd.DataFrame) -> pd.DataFrame:
    """One row per network and ratio, with its limit and whether it is met."""
    rows = []
    several = config["probes"]
    for network, chosen in config["networks"].items():
        at = time[time.network == network].set_index("way")
        peak = memory[memory.network == network].set_index("way").peak_mib
        seconds, to_step = at.seconds, at.ratio_to_step
        arithmetic = 1 + chosen["samples"] / (3 * chosen["tokens"])
        further = seconds[f"kernel, {several} probes"] - seconds["kernel, 1 probe"]
        warm = min(seconds["torch.func"], seconds["torch.func, written-out attention"])
        step_memory = peak["training step"]
        for name, value, limit, below in (
            (
                "time of one probe / training step",
                to_step["kernel, 1 probe"],
                TIME_LIMIT * arithmetic,
                True,
            ),
            ("peak memory / training step", peak["kernel, 1 probe"] / step_memory, MEMORY_LIMIT, True),
            (
                "time of a further probe / first",
                further / (several - 1) / seconds["kernel, 1 probe"],
                FURTHER_LIMIT,
                True,
            ),
            ("time of torch.func, warm / one probe", warm / seconds["kernel, 1 probe"], 1.6, False),
            (
                "peak memory of torch.func / one probe",
                peak["torch.func"] / peak["kernel, 1 probe"],
                4.0,
                False,
            ),
        ):
            met = value <= limit if below else value >= limit
            rows.append(
                {
                    "network": network,
                    "ratio": name,
                    "value": value,
                    "limit": limit,
                    "limit_is": "at most" if below else "at least",
                    "met": met,
                }
            )
    return pd.DataFrame(rows)


def profiled(config: dict[str, Any], out: Path, rows: int = 16) -> None:
    """Profile one step and one kernel; write the operations that take most time themselves."""
    for network in config["networks"]:
        case = case_of(config, network, 1)
        for way in ("training step", "kernel, 1 probe"):
            call = ways_of(case)[way]
            call()
            with torch.profiler.profile() as profile:
                call()
            table = pd.DataFrame(
                {
                    "operation": event.key,
                    "calls": event.count,
                    "seconds": event.self_cpu_time_total / 1e6,
                }
                for event in profile.key_averages()
            ).sort_values("seconds", ascending=False)
            table.insert(3, "share", table.seconds / table.seconds.sum())
            print(
                f"\n{network}, {way}: {table.seconds.sum():.3f} s\n{table.head(rows).to_string(index=False)}"
            )
            stem = f"profile_{network}_{way}".replace(", ", "_").replace(" ", "_").replace("=", "")
            write_text(out / f"{stem}.csv", table.head(rows).to_csv(index=False, float_format="%.4g"))


def study(size: str, out: Path) -> None:
    """Write peaks, times and ratios to `out`, each as soon as it is measured."""
    config = command_line.settings(HERE, size)
    write_json(out / "machine.json", machine() | environment())
    memory = pd.DataFrame(peaks(size, config))
    write_text(out / "memory.csv", memory.to_csv(index=False, float_format="%.5g"))
    time = pd.DataFrame(timings(config))
    write_text(out / "times.csv", time.to_csv(index=False, float_format="%.5g"))
    table = ratios(config, time, memory)
    write_text(out / "ratios.csv", table.to_csv(index=False, float_format="%.5g"))
    print(table.round(3).to_string(index=False))


def main() -> None:
    """Parse and run."""
    parser = command_line.parser(__doc__, HERE)
    parser.add_argument(
        "--profile", action="store_true", help="profile a step and a kernel instead of timing them"
    )
    parser.add_argument("--peak-of", nargs=2, metavar=("NETWORK", "WAY"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    config = command_line.settings(HERE, chosen.size)
    if chosen.peak_of:
        print(json.dumps(peak_of(config, *chosen.peak_of)))
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.profile:
        profiled(config, chosen.out)
    else:
        study(chosen.size, chosen.out)


if __name__ == "__main__":
    main()
