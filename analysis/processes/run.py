"""Do several processes find the kernel of one, at what efficiency, and does the plan say what it costs? See README.md.

python -m analysis.processes.run [--size full|tiny] [--out FOLDER] [--refit]

--refit measures nothing: what the plan counts, and the rates, are computed again for the seconds in --out.
"""

from __future__ import annotations

import json
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
from ntkdiag.kernel.work import Rates, Work, gemm_rate, pass_seconds, shape_of, units, work_of
from ntkdiag.provenance import write_json, write_text

HERE = Path(__file__).parent
ENGINES = ("streaming", "sketch")


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
    for name, samples in config["kernels"]:
        for engine in ENGINES:
            row, matrix = kernel(name, samples, engine, count, config)
            torch.save(matrix, folder / f"{name}-{samples}-{engine}-{count}-{rank}.pt")
            rows.append(row)
    every: list[Any] = [None] * count
    distributed.all_gather_object(every, rows)
    if rank == 0:
        together = [
            row | {key: max(each[i][key] for each in every) for key in ("cpu_seconds", "wall_seconds")}
            for i, row in enumerate(rows)
        ]
        (folder / f"rows-{count}.json").write_text(json.dumps(together))


def kernel(
    name: str, samples: int, engine: str, count: int, config: dict[str, Any]
) -> tuple[dict[str, Any], Tensor]:
    """One kernel: its seconds in this process, the fastest of some rounds, what the plan counts, and the kernel itself."""
    module, inputs = networks.build(name, samples)
    probes = config["probes"]
    shape = tuple(module(*(each[:1] for each in inputs)).shape[1:])
    cotangents = torch.randn(probes, *shape, generator=torch.Generator().manual_seed(1))

    def call() -> Tensor:
        return gram_of(module, inputs, cotangents, engine=engine, distributed=count > 1)

    matrix = call()
    cpu, wall = zip(*(_timed(call) for _ in range(config["rounds"])), strict=True)
    work = work_of(shape_of(module, inputs), samples, probes, count, engine == "sketch")
    row = {"network": name, "samples": samples, "engine": engine, "processes": count, "probes": probes}
    units = {"pass_seconds": pass_seconds(module, inputs), "gemm_rate": gemm_rate()}
    return row | {"cpu_seconds": min(cpu), "wall_seconds": min(wall)} | vars(work) | units, matrix


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of this process on all its cores, and on the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def features(rows: pd.DataFrame) -> NDArray[np.float64]:
    """[rows, rates]: what each rate is multiplied by."""
    return np.array([units(*_counted(row)) for row in rows.to_dict("records")])


def _counted(row: dict[Any, Any]) -> tuple[Work, float, float]:
    return (
        Work(**{name: row[name] for name in vars(Work())}),
        float(row["pass_seconds"]),
        float(row["gemm_rate"]),
    )


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
    return [rates.seconds(*_counted(row)) for row in rows.to_dict("records")]


def compared(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Differences from the kernel of one process, and efficiency: its seconds over those of all processes together.

    The units of time, of a pass and of a matrix product, are those that one process found.
    """
    key = ["network", "samples", "engine"]
    alone = rows[rows["processes"] == 1].set_index(key)
    found = rows.drop(columns=["pass_seconds", "gemm_rate"]).join(
        alone[["pass_seconds", "gemm_rate"]], on=key
    )
    of_one = found.join(alone["cpu_seconds"].rename("of_one"), on=key)["of_one"]
    found["efficiency"] = of_one / (found["processes"] * found["cpu_seconds"])
    for place, row in found.iterrows():
        names = [
            f"{row['network']}-{row['samples']}-{row['engine']}-{count}" for count in (1, row["processes"])
        ]
        one = torch.load(folder / f"{names[0]}-0.pt", weights_only=True)
        every = [
            torch.load(folder / f"{names[1]}-{rank}.pt", weights_only=True)
            for rank in range(row["processes"])
        ]
        found.loc[place, "difference"] = max(float((each - one).norm() / one.norm()) for each in every)
        found.loc[place, "same_in_all"] = float(all(torch.equal(each, every[0]) for each in every))
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
    write_text(out / "kernels.csv", table.to_csv(index=False))
    write_json(out / "rates.json", vars(rates))
    shown = ["network", "samples", "engine", "processes", "cpu_seconds", "efficiency", "difference", "error"]
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
    print(f"rates: {rates}")


def recounted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a run with what the plan counts now."""
    found = rows.copy()
    for place, row in rows.iterrows():
        shape = shape_of(*networks.build(row["network"], 2))
        work = work_of(shape, row["samples"], row["probes"], row["processes"], row["engine"] == "sketch")
        for name, value in vars(work).items():
            found.loc[place, name] = float(value)
    return found


if __name__ == "__main__":
    main()
