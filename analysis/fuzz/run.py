"""Does hostile input ever end in a traceback, a hang or a partial file? See README.md.

python -m analysis.fuzz.run [--size full|tiny] [--out FOLDER] [--case KIND NUMBER]
"""

from __future__ import annotations

import contextlib
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

from analysis import command_line
from analysis.fuzz.audits import audits
from analysis.fuzz.commands import commands, processes
from analysis.fuzz.damage import Case
from analysis.fuzz.files import arrays, tables, tensors
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


# A BaseException, because code that catches every Exception of a user's function would catch this too.
class TimeLimitExceeded(BaseException):
    """A case took longer than its limit."""


@dataclass
class Tally:
    """The outcomes of the cases of one kind.

    Attributes:
        outcomes: Outcome → cases.
        slowest: Seconds of the slowest case.
        seconds: Seconds of all cases together.
        failures: "kind number" and traceback of every case that failed.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0
    failures: list[dict[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitExceeded` inside the block after `seconds`; works in the main thread only."""

    def stop(*_: object) -> None:
        raise TimeLimitExceeded(f"more than {seconds:g} s")

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
        Its outcome.

    Raises:
        Exception: whatever the package should not have raised.
    """
    rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
    torch.manual_seed(number)
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.chdir(name),
        _imports_restored(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        with time_limit(seconds):
            return KINDS[kind](rng, Path(name))


@contextlib.contextmanager
def _imports_restored() -> Iterator[None]:
    """Restore the import path and forget the case's module, so that the next case does not find it."""
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
    """Run all kinds; write a row for every kind and outcome, and the failures."""
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
    """Parse and run; returns 1 if a case failed."""
    parser = command_line.parser(__doc__, HERE)
    parser.add_argument("--case", nargs=2, metavar=("KIND", "NUMBER"), help="run one case of the study alone")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("MPLBACKEND", "Agg")
    config = command_line.settings(HERE, chosen.size)
    if chosen.case:
        kind, number = chosen.case
        print(run_case(kind, int(number), config["seed"], config["seconds"]))
        return 0
    return int(any(tally.failures for tally in study(config, chosen.out).values()))


if __name__ == "__main__":
    sys.exit(main())
