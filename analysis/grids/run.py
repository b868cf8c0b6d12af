"""What the reference trainer's networks draw: samples of every class, and their Fréchet distance beside its floor.

    python -m analysis.grids.run [--runs NAME ...]     # half an hour of one core

A run that is kept is not trained again, one that was interrupted goes on. Writes results/<run>.npy (pictures
[class · shown, H, W], uint8), results/real-<data>.npy and results/quality.csv.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import ntkdiag as nd
from analysis.command_line import parser, settings
from analysis.quality import Judge
from ntkdiag.provenance import write_bytes, write_text

HERE = Path(__file__).parent
KEPT = Path("build/grids")
_STEPS, _SEED = 32, 0


def trained(plan: dict[str, Any], data: nd.data.Data, run: Path) -> nd.Denoiser:
    """The averaged network of a plan; read from the folder of its run, which is continued where it is not done."""
    preset = nd.train.Preset.named(plan["preset"])
    process, usual = preset.process, preset.network
    name, options = plan.get("network", usual.name), plan.get("options", usual.options)
    network = nd.models.build(name, data.shape, seed=0, **options)
    denoiser = nd.Denoiser(network, nd.schedules.named(process.schedule), process.target, call="log_snr")
    average = run / "average.safetensors"
    if not average.is_file():
        config = nd.train.TrainConfig.preset(plan["preset"], **plan["training"])
        nd.train.train(denoiser, data, None, config, out=run, resume=(run / "training.json").is_file())
    nd.train.load_weights(denoiser, average)
    return denoiser


def drawn(denoiser: nd.Denoiser, data: nd.data.Data, labels: Tensor) -> Tensor:
    """A sample for each label."""
    how: dict[str, Any] = {"steps": _STEPS, "seed": _SEED, "cond": {"label": labels}}
    return nd.train.sample(denoiser, len(labels), data.shape, **how).float().cpu()


def pictures(samples: Tensor) -> np.ndarray[Any, Any]:
    """Samples from −1 to 1 with one channel as pixels [N, H, W]."""
    return ((samples.clamp(-1, 1)[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy()


def of_each_class(labels: Tensor, shown: int) -> Tensor:
    """Positions of the first samples of each class, class by class."""
    return torch.cat([(labels == one).nonzero().flatten()[:shown] for one in labels.unique()])


def save(path: Path, array: np.ndarray[Any, Any]) -> None:
    file = io.BytesIO()
    np.save(file, array)
    write_bytes(path, file.getvalue())


def measured(name: str, plan: dict[str, Any], shown: int, kept: Path, out: Path) -> dict[str, Any]:
    """Train, draw and compare one run: writes its pictures and those of its data, and returns its row."""
    source = nd.train.Preset.named(plan["preset"]).data.name
    data = nd.data.load(source)
    count = plan.get("drawn", len(data.held_out))
    real, labels = data.held_out[:count], data.held_out_labels[:count]
    first = of_each_class(labels, shown)
    save(out / f"real-{data.name}.npy", pictures(real[first]))
    denoiser = trained(plan, data, kept / name)
    samples = drawn(denoiser, data, labels)
    save(out / f"{name}.npy", pictures(samples[first]))
    config = nd.train.TrainConfig.preset(plan["preset"], **plan["training"])
    found = Judge(data, count, count, by_class=True).judge(samples)
    return {
        "run": name,
        "data": data.name,
        "parameters": sum(one.numel() for one in denoiser.network.parameters()),
        "steps": config.steps,
        "drawn": count,
        "fd": found["fd_features"],
        "fd_floor": found["fd_features_floor"],
        "fd_pixels": found["quality"],
        "fd_pixels_floor": found["quality_floor"],
    }


def table_with(path: Path, row: dict[str, Any], names: list[str]) -> pd.DataFrame:
    """The table in a file, if there is one, with this row in place of an earlier one of its run; in the order of names."""
    rows = pd.read_csv(path).to_dict("records") if path.is_file() else []
    known = {one["run"]: one for one in rows} | {row["run"]: row}
    return pd.DataFrame([known[name] for name in names if name in known])


def main() -> None:
    made = parser(__doc__, HERE)
    made.add_argument("--kept", type=Path, default=KEPT, help="folder of the trained networks")
    made.add_argument("--runs", nargs="+", help="names of runs, by default all")
    options = made.parse_args()
    config = settings(HERE, options.size)
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "quality.csv"
    for name in options.runs or config["runs"]:
        row = measured(name, config["runs"][name], config["shown"], options.kept, options.out)
        print(row, flush=True)
        found = table_with(table, row, list(config["runs"]))
        write_text(table, found.to_csv(index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()
