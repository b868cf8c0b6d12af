"""Does hostile input ever end in a traceback, a hang or a partial file? See README.md.

python -m analysis.fuzz.run [--size full|tiny] [--out FOLDER] [--case KIND NUMBER]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.fuzz.audits import audits
from analysis.fuzz.commands import commands, processes
from analysis.fuzz.files import arrays, tables, tensors
from analysis.fuzz.wounds import Case
from ntkdiag.provenance import environment, write_json, write_text

HERE = Path(__file__).parent
KINDS: dict[str, Case] = {
    "tables": tables,
    "arrays": arrays,
    "tensors": tensors,
    "audits": audits,
    "commands": commands,
    "processes": processes,
}


# Not an Exception: code that is to survive whatever a user's function raises would survive this too.
class TookTooLong(BaseException):
    """A case did not end in time."""


@dataclass
class Tally:
    """How the cases of one kind ended.

    Attributes:
        outcomes: Outcome → cases.
        slowest: Seconds of the slowest case.
        seconds: Of all.
        failures: "kind number" and traceback of every case that ended as none may.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0
    failures: list[dict[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TookTooLong` in what takes longer. In the main thread only."""

    def stop(*_: object) -> None:
        raise TookTooLong(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_case(kind: str, number: int, seed: int, seconds: float) -> str:
    """One case, drawn from seed, kind and number alone, in an empty current folder.

    Returns:
        How it ended.

    Raises:
        Whatever it should not have raised.
    """
    rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
    torch.manual_seed(number)
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.chdir(name),
        _same_imports(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        with time_limit(seconds):
            return KINDS[kind](rng, Path(name))


@contextlib.contextmanager
def _same_imports() -> Iterator[None]:
    """Modules of a case's folder are not found by the next one."""
    path, known = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - known:
            if name == "fuzzed":
                del sys.modules[name]


def run(kind: str, count: int, seed: int, seconds: float) -> Tally:
    """All cases of a kind."""
    tally = Tally()
    for number in range(count):
        began = time.perf_counter()
        try:
            outcome = run_case(kind, number, seed, seconds)
        except KeyboardInterrupt:
            raise
        except BaseException:
            outcome = "FAILED"
            tally.failures.append({"case": f"{kind} {number}", "error": traceback.format_exc()[:3000]})
        took = time.perf_counter() - began
        tally.outcomes[outcome] += 1
        tally.slowest = max(tally.slowest, took)
        tally.seconds += took
    return tally


def study(config: dict[str, Any], out: Path) -> dict[str, Tally]:
    """All kinds; a row a kind and outcome, and the failures."""
    tallies = {}
    for kind, count in config["cases"].items():
        tallies[kind] = found = run(kind, count, config["seed"], config["seconds"])
        ended = ", ".join(f"{outcome} {cases}" for outcome, cases in sorted(found.outcomes.items()))
        print(f"{kind:10} {count:6} cases in {found.seconds:6.1f} s: {ended}", flush=True)
    rows = [
        {"kind": kind, "outcome": outcome, "cases": cases, "slowest_seconds": round(tally.slowest, 2)}
        for kind, tally in tallies.items()
        for outcome, cases in sorted(tally.outcomes.items())
    ]
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "outcomes.csv", pd.DataFrame(rows).to_csv(index=False))
    about = {"config": config, "environment": environment(), "failures": failures}
    write_json(out / "study.json", about)
    for failure in failures[:20]:
        print(failure["case"], failure["error"], sep="\n")
    print(f"{sum(config['cases'].values())} cases, {len(failures)} failed")
    return tallies


def main() -> int:
    """Parse and run; 1 where a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--case", nargs=2, metavar=("KIND", "NUMBER"), help="run one case of the study alone")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("MPLBACKEND", "Agg")
    config = json.loads((HERE / "config.json").read_text())[chosen.size]
    if chosen.case:
        kind, number = chosen.case
        print(run_case(kind, int(number), config["seed"], config["seconds"]))
        return 0
    return int(any(tally.failures for tally in study(config, chosen.out).values()))


if __name__ == "__main__":
    sys.exit(main())
