"""How long does `ntkdiag verify --level quick` take on a U-Net of 30 million parameters, stopped and gone on with?

Makes a folder of diffusers' save_pretrained (random weights, digits as pictures of 32 × 32), gives the command, presses
Ctrl-C once a noise level of the network is finished, and gives it again.

python -m analysis.foreign.large                  # minutes; torch uses all cores unless OMP_NUM_THREADS says otherwise
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ntkdiag import data as datasets
from ntkdiag.provenance import KeptParts, write_json

HERE = Path(__file__).parent
COMMAND = "import sys; from ntkdiag.cli import main; sys.exit(main())"
DOWN = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D")
UP = ("UpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
ARGUMENTS = ("verify", "--model", "pipeline", "--data", "pictures.npy", "--level", "quick", "--out", "answer")
# Finished parts at which the first run is stopped: load check, outputs, gradients, and one noise level.
STOPPED_AT = 4


def network_folder(folder: Path) -> int:
    """A pipeline with random weights; returns its number of parameters."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        32, 1, 1, layers_per_block=1, block_out_channels=(96, 192, 288, 352), down_block_types=DOWN, up_block_types=UP
    )  # fmt: skip
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(folder)
    return sum(parameter.numel() for parameter in network.parameters())


def pictures(file: Path) -> None:
    """The digits, enlarged."""
    train = torch.as_tensor(datasets.load("digits").train).float().reshape(-1, 1, 8, 8)
    np.save(file, torch.nn.functional.interpolate(train, size=32, mode="bilinear").numpy())


def run(folder: Path, stop: KeptParts | None = None) -> dict[str, Any]:
    """Give the command in a folder, and stop it by Ctrl-C once so many parts are kept."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *ARGUMENTS],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while stop is not None and process.poll() is None and len(stop) < STOPPED_AT:
            time.sleep(0.05)
        if stop is not None:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    finally:
        process.kill()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "code": process.returncode,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "said": [line for line in err.splitlines() if line.startswith(("note:", "load check"))],
        "answer": out.partition("\n\n")[0],
    }


def measured(folder: Path) -> dict[str, Any]:
    """Both runs, and which parts the second did not make again."""
    parameters = network_folder(folder / "pipeline")
    pictures(folder / "pictures.npy")
    kept = KeptParts(folder / ".answer.unfinished")
    first = run(folder, kept)
    assert first["code"] == 130, first
    parts = len(kept)
    second = run(folder)
    assert second["code"] == 0, second
    assert any("goes on from finished parts" in line for line in second["said"]), second
    return {
        "parameters": parameters,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "cores": len(os.sched_getaffinity(0)),
        "kept_parts": parts,
        "stopped": first,
        "gone_on": second,
        "seconds": round(first["seconds"] + second["seconds"], 1),
        "cpu_seconds": round(first["cpu_seconds"] + second["cpu_seconds"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "results", help="the folder for large.json")
    options = parser.parse_args()
    # A shell may have it ignored, also by what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder))
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "large.json", found)
    for name in ("stopped", "gone_on"):
        one = found[name]
        print(
            f"{name}: {one['seconds']} s, {one['cpu_seconds']} s of processor time", *one["said"], sep="\n  "
        )
    print(
        f"{found['parameters']:,} parameters, {found['cores']} cores: {found['seconds']} s in all, "
        f"{found['cpu_seconds']} s of processor time; {found['kept_parts']} parts were not made again"
    )


if __name__ == "__main__":
    main()
