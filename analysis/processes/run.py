"""Do several processes find the kernel of one, at what efficiency, and does the plan say what it costs? See README.md.

python -m analysis.processes.run [--size full|tiny] [--out FOLDER] [--refit]

--refit measures nothing: what the plan counts, and the rates, are computed again for the seconds in --out.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.multiprocessing as processes_of_torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor, distributed

from analysis import command_line
from analysis.processes import networks
from analysis.stopwatch import machine
from ntkdiag.kernel import gram_of
from ntkdiag.kernel.work import Kernel, Rates, Timed, shape_of, speed_of, timed, work_of
from ntkdiag.provenance import write_json, write_text

HERE = Path(__file__).parent
ENGINES = ("streaming", "sketch")
# What tells the kernels apart; `memory` in MiB, 0 for all that is free.
KEY = ["network", "samples", "memory", "engine"]
# What glibc calls for memory that is free to go back to the system.
_TRIM = ctypes.CDLL(None).malloc_trim if sys.platform == "linux" else None


def measured(rank: int, count: int, config: dict[str, Any], folder: str) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting-{count}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    every_kernel(config, Path(folder))
    distributed.barrier()
    distributed.destroy_process_group()


def every_kernel(config: dict[str, Any], folder: Path) -> None:
    """Every kernel of the study, together with the other processes; the first one writes what all found."""
    rank, count = distributed.get_rank(), distributed.get_world_size()
    rows = []
    for asked in kernels(config):
        row, matrix = measured_kernel(asked, count, config)
        torch.save(matrix, folder / f"{_name(asked)}-{count}-{rank}.pt")
        rows.append(row)
    every: list[Any] = [None] * count
    distributed.all_gather_object(every, rows)
    if rank == 0:
        most = ("cpu_seconds", "wall_seconds", "peak_bytes")
        together = [
            row | {key: max(each[i][key] for each in every) for key in most} for i, row in enumerate(rows)
        ]
        (folder / f"rows-{count}.json").write_text(json.dumps(together))


def kernels(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked for, by engine."""
    return [
        dict(zip(KEY, (name, samples, memory, engine), strict=True))
        for name, samples, memory in config["kernels"]
        for engine in ENGINES
    ]


def _name(asked: dict[str, Any]) -> str:
    return "-".join(str(asked[key]) for key in KEY)


def measured_kernel(
    asked: dict[str, Any], count: int, config: dict[str, Any]
) -> tuple[dict[str, Any], Tensor]:
    """One kernel: what it takes of this process, the least of some rounds; what is planned; and the kernel itself."""
    samples, probes, memory = asked["samples"], config["probes"], asked["memory"] * 1024**2 or None
    module, inputs = networks.build(asked["network"], samples)
    shape = tuple(module(*(each[:1] for each in inputs)).shape[1:])
    cotangents = torch.randn(probes, *shape, generator=torch.Generator().manual_seed(1))

    def call() -> Tensor:
        return gram_of(
            module, inputs, cotangents, engine=asked["engine"], distributed=count > 1, memory=memory
        )

    found: list[Tensor] = []
    times = []
    peak = _peak(lambda: times.append(_timed(lambda: found.append(call()))))
    cpu, wall = zip(*times, *(_timed(call) for _ in range(config["rounds"] - 1)), strict=True)
    row = asked | {"processes": count, "probes": probes}
    row |= {"cpu_seconds": min(cpu), "wall_seconds": min(wall), "peak_bytes": peak}
    if count > 1:
        return row, found[0]
    return row | {"planned": planned(module, inputs, asked, probes, memory, config["processes"])}, found[0]


def planned(
    module: torch.nn.Module,
    inputs: tuple[Tensor, ...],
    asked: dict[str, Any],
    probes: int,
    memory: int | None,
    counts: list[int],
) -> dict[str, dict[str, float]]:
    """What a process plans that is alone and has seen eight samples, for each number of processes."""
    found = {}
    for count in counts:
        began = time.process_time()
        few = tuple(tensor[:8] for tensor in inputs)
        kernel = Kernel(asked["samples"], probes, count, asked["engine"] == "sketch", memory=memory)
        shape = shape_of(module, few)
        units, work = timed(shape, speed_of(module, few, kernel), kernel), work_of(shape, kernel)
        took = time.process_time() - began
        found[str(count)] = vars(units) | {"planned_bytes": work.memory, "plan_seconds": took}
    return found


def _peak(call: Callable[[], object]) -> int:
    """Bytes that this process comes to have during a call beside those before; 0 where the system does not say."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if _TRIM is None or not refs.exists():
        call()
        return 0
    _TRIM(0)
    refs.write_text("5")  # the peak begins again
    before = _kib(status, "VmRSS")
    call()
    return (_kib(status, "VmHWM") - before) * 1024


def _kib(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of this process on all its cores, and on the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def features(rows: pd.DataFrame) -> NDArray[np.float64]:
    """[rows, rates]: what each rate is multiplied by."""
    return rows[list(vars(Timed()))].to_numpy(dtype=np.float64)


def fitted(rows: pd.DataFrame) -> Rates:
    """Rates of the smallest relative errors."""
    seconds = np.asarray(rows["cpu_seconds"], dtype=np.float64)
    found, _ = nnls(features(rows) / seconds[:, None], np.ones(len(rows)))
    return Rates(*map(float, found))


def predicted(rows: pd.DataFrame) -> pd.DataFrame:
    """Seconds that the plan says, from rates fitted to the other networks; and with the rates of the package."""
    found = rows.copy()
    for name in rows["network"].unique():
        others, own = rows[rows["network"] != name], rows["network"] == name
        found.loc[own, "predicted_seconds"] = seconds_of(rows[own], fitted(others))
    found["error"] = found["predicted_seconds"] / found["cpu_seconds"] - 1
    return found


def seconds_of(rows: pd.DataFrame, rates: Rates) -> list[float]:
    """What rates say of each row."""
    return [rates.seconds(Timed(*each)) for each in features(rows)]


def compared(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Differences from the kernel of one process; efficiency, its seconds over those of all processes together; its plan."""
    alone = rows[rows["processes"] == 1].set_index(KEY)
    found = rows.drop(columns="planned")
    joined = rows.drop(columns="planned").join(
        alone[["planned", "cpu_seconds"]].rename(columns={"cpu_seconds": "of_one"}), on=KEY
    )
    found["efficiency"] = joined["of_one"] / (found["processes"] * found["cpu_seconds"])
    for place, row in joined.iterrows():
        for name, value in row["planned"][str(row["processes"])].items():
            found.loc[place, name] = value
        one = torch.load(folder / f"{_name(row)}-1-0.pt", weights_only=True)
        every = [
            torch.load(folder / f"{_name(row)}-{row['processes']}-{rank}.pt", weights_only=True)
            for rank in range(row["processes"])
        ]
        found.loc[place, "difference"] = max(float((each - one).norm() / one.norm()) for each in every)
        found.loc[place, "same_in_all"] = float(all(torch.equal(each, every[0]) for each in every))
    return found


def recounted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a run with what the plan counts now."""
    found = rows.copy()
    for place, row in rows.iterrows():
        memory = int(row["memory"]) * 1024**2 or None
        sketched = row["engine"] == "sketch"
        kernel = Kernel(row["samples"], row["probes"], row["processes"], sketched, memory=memory)
        work = work_of(shape_of(*networks.build(row["network"], 2)), kernel)
        for name, value in (
            ("received", work.received),
            ("meetings", work.meetings),
            ("planned_bytes", work.memory),
        ):
            found.loc[place, name] = float(value)
    return found


def main() -> None:
    """Run the study and write its tables."""
    parser = command_line.parser(__doc__, HERE)
    parser.add_argument("--refit", action="store_true")
    options = parser.parse_args()
    if options.refit:
        say(predicted(recounted(pd.read_csv(options.out / "kernels.csv"))), options.out)
        return
    config = command_line.settings(HERE, options.size)
    with tempfile.TemporaryDirectory() as place:
        rows = []
        for count in config["processes"]:
            processes_of_torch.spawn(measured, (count, config, place), nprocs=count)
            rows += json.loads(Path(place, f"rows-{count}.json").read_text())
        table = predicted(compared(pd.DataFrame(rows), Path(place)))
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "machine.json", machine())
    say(table, options.out)


def say(table: pd.DataFrame, out: Path) -> None:
    """Write the table and the rates, and print what they come to."""
    rates = fitted(table)
    table = table.assign(memory_error=table["planned_bytes"] / table["peak_bytes"].clip(lower=1) - 1)
    write_text(out / "kernels.csv", table.to_csv(index=False))
    write_json(out / "rates.json", vars(rates))
    shown = [*KEY, "processes", "cpu_seconds", "efficiency", "difference", "error", "memory_error"]
    print(table[shown].to_string(index=False))
    print(f"largest difference from one process: {table['difference'].max():.1e}")
    two = table[table["processes"] == 2].groupby("engine")["efficiency"]
    for engine, values in two:
        print(
            f"efficiency at 2 processes, {engine}: median {values.median():.2f}, {values.min():.2f} to {values.max():.2f}"
        )
    own = np.array(seconds_of(table, rates)) / table["cpu_seconds"].to_numpy() - 1
    for what, errors in (("that were not fitted", table["error"].abs()), ("that were", np.abs(own))):
        within = float((errors <= 0.2).mean())
        print(
            f"prediction of networks {what}: median error {np.median(errors):.0%}, {within:.0%} of kernels within 20%"
        )
    large = table[table["peak_bytes"] > 50e6]
    off = (large["planned_bytes"] / large["peak_bytes"]).quantile([0.1, 0.5, 0.9]).to_numpy()
    print(f"planned over measured memory beyond 50 MB, 10, 50 and 90%: {np.array2string(off, precision=2)}")
    print(f"a plan takes at most {table['plan_seconds'].max():.1f} s of a core")
    print(f"rates: {rates}")


if __name__ == "__main__":
    main()
