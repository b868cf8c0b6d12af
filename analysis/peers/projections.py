"""Kernels from projected gradients, by this package and by other tools, at equal error; see README.md.

    python -m analysis.peers.projections [--size full|tiny] [--networks mlp unet dit4] [--ways ...] [--no-setup]

Every row is measured in a process of its own, one after another. Rows of earlier runs stay in the tables until the same
way runs on the same network again.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import command_line
from analysis.peers import environments
from analysis.peers.environments import ROOT, python_of
from analysis.peers.run import HERE, case_file
from analysis.stopwatch import machine
from ntkdiag.errors import require_one_of
from ntkdiag.provenance import environment, write_json, write_text

# Way → the environment that it runs in.
WAYS = {
    "ntkdiag": "own",
    "torch_func_written_out": "own",
    "sketch": "own",
    "sketch_later": "own",
    "dattri_logra": "projections",
    "dattri_mask": "projections",
    "trak": "projections",
}
NETWORKS = ("mlp", "unet", "dit4")
ERRORS = ("correlation_error", "rank_error")
TIMEOUT = 3600.0
# Columns of a projection that do not depend on its length, where its matrix is made in blocks.
_OF_ANY_LENGTH = ("ready_mib", "peak_mib", "parameters", "covered", "step_processor_seconds", "status")
# Way, network, length, rounds or parts, further words → what its process says.
Answer = Callable[..., Any]


class Tables:
    """The tables of the study, written after every row, with the rows of earlier runs that this one does not repeat."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: dict[str, list[dict[str, Any]]] = {"projections": [], "curves": []}

    def add(self, table: str, row: dict[str, Any]) -> None:
        """Write the table with one more row."""
        self.rows[table].append(row)
        path = self.out / f"{table}.csv"
        found = pd.DataFrame(self.rows[table])
        if path.exists():
            done = {(each["network"], each["way"]) for each in self.rows[table]}
            old = pd.read_csv(path)
            keep = [pair not in done for pair in zip(old.network, old.way, strict=True)]
            found = pd.concat([old[keep], found]) if any(keep) else found
        order = {name: place for place, name in enumerate((*NETWORKS, *WAYS))}
        ordered = found.sort_values(["network", "way"], key=lambda column: column.map(order), kind="stable")
        write_text(path, ordered.to_csv(index=False, float_format="%.5g"))
        print(row, flush=True)

    def sketches(self, network: str) -> pd.DataFrame:
        """Rows of the sketches of a network, by k."""
        table = pd.read_csv(self.out / "projections.csv")
        return table[(table.network == network) & (table.way == "sketch")].set_index("length")


def answer_of(size: str, way: str, network: str, length: int, count: int, *words: str) -> Any:
    """What a process says of one way on one network; a row with the reason where it says nothing.

    Raises:
        NotMade: the way's environment has not been made.
    """
    file = case_file(network, size)
    call = [python_of(WAYS[way]), "-m", "analysis.peers.approximate", way, network, size, str(file)]
    try:
        answer = subprocess.run(
            [*call, str(length), str(count), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return {"status": "cannot", "reason": f"no kernel within {TIMEOUT:.0f} s"}
    rows = [line for line in answer.stdout.splitlines() if line.startswith("ROW ")]
    if rows:
        return json.loads(rows[-1].removeprefix("ROW "))
    last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
    return {"status": "cannot", "reason": f"process ended with {answer.returncode}: {last[:300]}"}


def length_of_equal_error(curve: pd.DataFrame, error: str, wanted: float) -> int:
    """Length of a projection with this error, from its curve: between points on lines of logarithms, beyond as 1/√length."""
    ordered = curve.sort_values("length")
    lengths, errors = np.log(ordered.length.to_numpy(float)), np.log(ordered[error].to_numpy(float))
    goal = np.log(wanted)
    if goal <= errors[-1]:
        return round(float(np.exp(lengths[-1] + 2 * (errors[-1] - goal))))
    if goal >= errors[0]:
        return max(1, round(float(np.exp(lengths[0] + 2 * (errors[0] - goal)))))
    return round(float(np.exp(np.interp(-goal, -errors, lengths))))


def study(network: str, config: dict[str, Any], answer: Answer, tables: Tables) -> None:
    """All rows of one network: ways of a fixed length, curves of the others, and these at the error of the sketches."""
    for way, lengths in config["kept"].items():
        for length in lengths:
            rounds = config["rounds"][network]
            labels = {"network": network, "way": way, "length": length, "rounds": rounds}
            tables.add("projections", labels | answer(way, network, length, rounds))
    for way, longest in config["curve"].items():
        if network not in longest:
            continue
        found = answer(way, network, longest[network], config["parts"], "--columns")
        if isinstance(found, dict):
            tables.add("projections", {"network": network, "way": way, "length": longest[network], **found})
            continue
        points = {"measured": found}
        if way == "trak":
            points["law"] = answer(way, network, longest[network], config["parts"], "--law")
        for origin, each in points.items():
            for point in each:
                tables.add("curves", {"network": network, "way": way, "from": origin, **point})
        curve = pd.DataFrame([point for each in points.values() for point in each])
        for k, sketch in tables.sketches(network).loc[config["equal_to"]].iterrows():
            lengths = [length_of_equal_error(curve, error, sketch[error]) for error in ERRORS]
            most = int(config["most_numbers"][network] / sketch.parameters) if way == "trak" else lengths[0]
            labels = {"network": network, "way": way, "length": lengths[0], "rounds": 1, "equal_to": k}
            labels["length_of_equal_rank_error"] = lengths[1]
            tables.add("projections", labels | at_length(partial(answer, way, network), lengths[0], most))


def at_length(answer: Callable[[int, int], dict[str, Any]], length: int, most: int) -> dict[str, Any]:
    """One projection; seconds of more than `most` columns by the line through two shorter ones, without an error.

    The line is that of cold calls: so large a matrix is not kept, but drawn anew in every call, while a short one is kept.
    """
    row = answer(min(length, most), 1)
    if length <= most or row["status"] != "ok":
        return row
    quarter = answer(most // 4, 1)
    slope = (row["cold_processor_seconds"] - quarter["cold_processor_seconds"]) / (most - most // 4)
    seconds = row["cold_processor_seconds"] + slope * (length - most)
    same = {name: row[name] for name in _OF_ANY_LENGTH if name in row}
    return same | {
        "cold_processor_seconds": seconds,
        "processor_seconds": seconds,
        "steps": seconds / row["step_processor_seconds"],
        "measured_length": most,
    }


def main() -> None:
    """Parse and run."""
    parser = command_line.parser(__doc__, HERE)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument(
        "--ways", nargs="+", default=tuple(WAYS), help="some of them; equal errors need sketches"
    )
    parser.add_argument("--no-setup", action="store_true", help="use the environment as it is")
    chosen = parser.parse_args()
    for network in chosen.networks:
        require_one_of("--networks", network, NETWORKS)
    for way in chosen.ways:
        require_one_of("--ways", way, WAYS)
    if not chosen.no_setup:
        environments.make("projections")
    chosen.out.mkdir(parents=True, exist_ok=True)
    config = json.loads((HERE / "config.json").read_text())["projections"][chosen.size]
    for part in ("kept", "curve"):
        config[part] = {way: each for way, each in config[part].items() if way in chosen.ways}
    tables = Tables(chosen.out)
    write_json(chosen.out / "projections_machine.json", machine() | environment())
    for network in chosen.networks:
        study(network, config, cache(partial(answer_of, chosen.size)), tables)


if __name__ == "__main__":
    main()
