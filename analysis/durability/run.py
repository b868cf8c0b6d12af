"""What is left of training runs that are killed at random moments, and of runs whose disk becomes full. See README.md.

    python -m analysis.durability.run [--size full|tiny] [--out FOLDER]

Writes results/kills.csv, results/disks.csv (where root may mount a small file system) and results/machine.json.
"""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.command_line import parser, settings
from analysis.durability.commands import Command
from analysis.durability.folders import content, is_writing, stop_while_writing, wait_for
from analysis.stopwatch import machine
from ntkdiag.errors import InputError
from ntkdiag.provenance import environment, write_json, write_text
from ntkdiag.train.checkpoints.checkpoint import read_checkpoint

HERE = Path(__file__).parent
# Where a kill falls: at a random moment, or while something of a checkpoint is being written.
MOMENTS = ("any", "writing")
# A random moment lies up to so many seconds after the next checkpoint.
_LATER = 0.5
# The first checkpoint fits on the smallest disk, in kB beyond it; pages of a file system are counted whole.
_PAGE = 64


def arguments(config: dict[str, Any], network: str, weights: str) -> list[str]:
    """A run with everything that is written along the way."""
    along = {"checkpoint_every": config["every"], "keep_checkpoints": 2, "log_every": 3}
    along |= {"keep_every": 10, "sample_every": 20}
    settings = [part for name, value in along.items() for part in ("--setting", f"{name}={value}")]
    sizes = ["--steps", str(config["steps"]), "--batch", "8"]
    return [*config["networks"][network], "--weights", config["weights"][weights], *sizes, *settings]


def kills(config: dict[str, Any], network: str, weights: str, folder: Path) -> list[dict[str, Any]]:
    """A row for each kill of one run, which goes on after every one: where it fell, and what was left.

    whole: the checkpoint could be read. same: at its end the run has the bytes of a run that nobody killed.
    """
    how = arguments(config, network, weights)
    undisturbed, run = folder / "undisturbed", folder / "run"
    assert Command("train", *how, "--out", str(undisturbed)).end()[0] == 0
    chance, rows = random.Random(f"{network} {weights}"), []
    for number in range(config["kills"]):
        start = ["--resume"] if rows else how
        process, moment = Command("train", *start, "--out", str(run)), MOMENTS[number % 2]
        wait_for(process, run, rows[-1]["step"] if rows else -1)
        if moment == "writing":
            stop_while_writing(process, run)
        else:
            process.wait(chance.uniform(0, _LATER))
        process.send_signal(signal.SIGKILL)
        code = process.end()[0]
        row = {
            "network": network,
            "weights": weights,
            "kill": number,
            "moment": moment,
            "killed": code == -signal.SIGKILL,
        }
        row |= {"writing": is_writing(run)} | checkpoint_of(run)
        rows.append(row)
        print(row, flush=True)
    code, errors = Command("train", "--resume", "--out", str(run)).end()
    same = code == 0 and content(run) == content(undisturbed)
    print(f"{network} {weights}: {'the same bytes' if same else errors}", flush=True)
    return [row | {"same": same} for row in rows]


def checkpoint_of(run: Path) -> dict[str, Any]:
    """Step of the checkpoint, and whether it is whole."""
    try:
        return {"whole": True, "step": read_checkpoint(run)[0].step}
    except InputError:
        return {"whole": False, "step": -1}


def disks(config: dict[str, Any], network: str, weights: str, folder: Path) -> list[dict[str, Any]]:
    """A row for each size of disk, from one that the first checkpoint just fits on to one that is nearly enough.

    After the error the disk is made larger and the run goes on.
    """
    how = arguments(config, network, weights)
    undisturbed, disk = folder / "undisturbed", folder / "disk"
    disk.mkdir()
    assert Command("train", *how, "--out", str(undisturbed)).end()[0] == 0
    most = sum(file.stat().st_size for file in undisturbed.rglob("*")) // 1024
    least = max(file.stat().st_size for file in undisturbed.glob("checkpoint-*")) // 1024 + _PAGE
    rows = []
    for number in range(config["disk_sizes"]):
        size = least + (most - least) * number // config["disk_sizes"]
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(disk)], check=True)
        try:
            run = disk / "run"
            code, errors = Command("train", *how, "--out", str(run)).end()
            row: dict[str, Any] = {"network": network, "weights": weights, "kilobytes": size, "code": code}
            row["lines"] = len([line for line in errors.splitlines() if not line.startswith("note: ")])
            row |= checkpoint_of(run) | {"left_over": is_writing(run)}
            subprocess.run(["mount", "-o", f"remount,size={4 * most}k", str(disk)], check=True)
            code, _ = Command("train", "--resume", "--out", str(run)).end()
            rows.append(row | {"same": code == 0 and content(run) == content(undisturbed)})
            print(rows[-1], errors.strip(), flush=True)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return rows


def may_mount(folder: Path) -> bool:
    """Whether a small file system can be mounted here."""
    folder.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0 and subprocess.run(["umount", str(folder)]).returncode == 0


def main() -> None:
    options = parser(__doc__, HERE).parse_args()
    config = settings(HERE, options.size)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "machine.json", machine() | environment() | {"config": config})
    rows = []
    for network in config["networks"]:
        for weights in config["weights"]:
            with tempfile.TemporaryDirectory() as folder:
                rows += kills(config, network, weights, Path(folder))
            write_text(options.out / "kills.csv", pd.DataFrame(rows).to_csv(index=False))
    with tempfile.TemporaryDirectory() as folder:
        if not may_mount(Path(folder, "try")):
            print("no disks: a small file system cannot be mounted here")
            return
        found = disks(config, list(config["networks"])[-1], list(config["weights"])[-1], Path(folder))
    write_text(options.out / "disks.csv", pd.DataFrame(found).to_csv(index=False))


if __name__ == "__main__":
    main()
