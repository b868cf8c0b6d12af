"""The same kernel computed by other tools, one after another; see README.md.

    python -m analysis.peers.run [--size full|tiny] [--networks mlp unet dit4 dit2] [--peers ...] [--no-setup]

Each peer and network runs in a process of its own, one after another. Rows of earlier runs stay in the table until
the same peer runs on the same network again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.peers import environments
from analysis.peers.environments import HOME, ROOT, NotMade, python_of
from analysis.stopwatch import machine
from ntkdiag.errors import require_one_of
from ntkdiag.provenance import environment, write_json, write_text

HERE = Path(__file__).parent
# Peer → the environment that it runs in.
PEERS = {
    "step": "own",
    "ntkdiag": "own",
    "torch_func": "own",
    "torch_func_written_out": "own",
    "nngeometry": "torch",
    "vivit": "torch",
    "kronfluence": "torch",
    "opacus": "torch",
    "neural_tangents_contraction": "jax",
    "neural_tangents_structured": "jax",
}
NETWORKS = tuple(json.loads((HERE / "config.json").read_text())["full"])
# Seconds of repeated warm calls, and seconds after which a peer is stopped.
BUDGET = {"full": 12.0, "tiny": 0.1}
TIMEOUT = 420.0
COLUMNS = (
    "network",
    "peer",
    "status",
    "cold_seconds",
    "warm_seconds",
    "warm_calls",
    "ready_mib",
    "peak_mib",
    "relative_error",
    "parameters_covered",
    "load_average",
    "reason",
)


def case_file(network: str, size: str) -> Path:
    """Weights, inputs and float64 truth of a network, written once, in a process of its own."""
    path = HOME / "cases" / f"{network}-{size}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{network}: float64 truth", flush=True)
        building = path.with_suffix(".tmp.npz")
        call = [python_of("own"), "-m", "analysis.peers.cases", network, size, str(building)]
        subprocess.run(call, cwd=ROOT, check=True)
        building.replace(path)
    return path


def row_of(peer: str, network: str, size: str) -> dict[str, Any]:
    """Run one peer on one network; its numbers, or the reason why there are none."""
    labels = {"network": network, "peer": peer, "load_average": round(os.getloadavg()[0], 2)}
    try:
        python = python_of(PEERS[peer])
        call = [python, "-m", "analysis.peers.worker", peer, network, size, str(case_file(network, size))]
        answer = subprocess.run(
            [*call, str(BUDGET[size])], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT
        )
    except NotMade as missing:
        return labels | {"status": "cannot", "reason": str(missing)}
    except subprocess.TimeoutExpired:
        return labels | {"status": "cannot", "reason": f"no kernel within {TIMEOUT:.0f} s"}
    rows = [line for line in answer.stdout.splitlines() if line.startswith("ROW ")]
    if rows:
        return labels | json.loads(rows[-1].removeprefix("ROW "))
    last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
    return labels | {"status": "cannot", "reason": f"process ended with {answer.returncode}: {last[:300]}"}


def merged(earlier: Path, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of this run, and rows of earlier runs that it did not repeat, in the table's order."""
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    whole = {"warm_calls": "Int64", "parameters_covered": "Int64"}
    table = table.astype(whole)
    if earlier.exists():
        old = pd.read_csv(earlier, dtype=whole)
        repeated = set(zip(table.network, table.peer, strict=True))
        keep = [pair not in repeated for pair in zip(old.network, old.peer, strict=True)]
        table = pd.concat([old[keep], table]) if any(keep) else table
    order = {name: place for place, name in enumerate((*NETWORKS, *PEERS))}
    return table.sort_values(["network", "peer"], key=lambda column: column.map(order))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=tuple(BUDGET), default="full")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--peers", nargs="+", default=tuple(PEERS))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--no-setup", action="store_true", help="use the environments as they are")
    chosen = parser.parse_args()
    for network in chosen.networks:
        require_one_of("--networks", network, NETWORKS)
    for peer in chosen.peers:
        require_one_of("--peers", peer, PEERS)
    if not chosen.no_setup:
        for name in sorted({PEERS[peer] for peer in chosen.peers} - {"own"}):
            try:
                environments.make(name)
            except NotMade as failure:
                print(failure, flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for network in chosen.networks:
        for peer in chosen.peers:
            rows.append(row_of(peer, network, chosen.size))
            result = rows[-1].get("warm_seconds", rows[-1].get("reason"))
            print(f"{network:5}  {peer:28} {result}", flush=True)
            table = merged(chosen.out / "peers.csv", rows)
            write_text(chosen.out / "peers.csv", table.to_csv(index=False, float_format="%.5g"))
    write_json(chosen.out / "machine.json", machine() | environment())


if __name__ == "__main__":
    main()
