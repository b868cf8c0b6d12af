"""Is a sketched kernel unbiased, do its intervals hold its error, and what does it cost? See README.md.

python -m analysis.sketch.run [--size full|tiny] [--out FOLDER] [--only TABLE ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis import command_line
from analysis.sketch import agreement, cost, estimate, many, resnet
from analysis.stopwatch import machine
from ntkdiag.provenance import environment, write_json, write_text

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def peaks(size: str, config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per way and number of samples: peak memory of a process that runs it alone."""
    rows = []
    for way, counts in config["memory"].items():
        for samples in counts:
            call = [
                sys.executable,
                "-m",
                "analysis.sketch.run",
                "--size",
                size,
                "--peak-of",
                way,
                str(samples),
            ]
            answer = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True)
            rows.append({"way": way, "N": samples} | json.loads(answer.stdout))
            print(f"{way:14} N={samples:<5} {rows[-1]['peak_mib']:7.0f} MiB", flush=True)
    return rows


def study(size: str, out: Path, only: list[str]) -> None:
    """Write each table as soon as it is measured; `only` names some of them."""
    config = command_line.settings(HERE, size)
    tables: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "estimate": lambda: [estimate.checked(name, config["estimate"]) for name in config["networks"]],
        "agreement": lambda: agreement.compared(config["agreement"]),
        "accuracy": lambda: cost.accuracies(config["step"]),
        "times": lambda: cost.timings(config["growth"]),
        "memory": lambda: peaks(size, config),
        "ranks": lambda: many.ranks(config["many"]),
        "fashion": lambda: many.ranks(config["fashion"]),
        "resnet": lambda: resnet.participation(config["resnet"]),
    }

    def keep(name: str, rows: list[dict[str, Any]]) -> None:
        table = pd.DataFrame(rows)
        write_text(out / f"{name}.csv", table.to_csv(index=False, float_format="%.5g"))
        print(f"\n{table.round(4).to_string(index=False)}\n", flush=True)

    write_json(out / "machine.json", machine() | environment())
    for name in only or tables:
        keep(name, tables[name]())
        if name == "times":
            keep("growth", cost.fits(pd.read_csv(out / "times.csv")))


def main() -> None:
    """Parse and run."""
    torch.set_num_threads(1)
    parser = command_line.parser(__doc__, HERE)
    parser.add_argument("--only", nargs="+", metavar="TABLE", default=[], help="tables to make again")
    parser.add_argument("--peak-of", nargs=2, metavar=("WAY", "SAMPLES"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak_of:
        config = command_line.settings(HERE, chosen.size)
        way, samples = chosen.peak_of
        print(json.dumps(cost.peak_of(config["growth"], way, int(samples))))
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    study(chosen.size, chosen.out, chosen.only)


if __name__ == "__main__":
    main()
