"""What the reference trainer's networks draw: samples of every class, and their Fréchet distance beside its floor.

    python -m analysis.grids.run     # ten minutes on one core; runs that are kept are not trained again

Writes results/<run>.npy (pictures [class · shown, H, W], uint8), results/real.npy and results/quality.csv.
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


def main() -> None:
    made = parser(__doc__, HERE)
    made.add_argument("--kept", type=Path, default=KEPT, help="folder of the trained networks")
    options = made.parse_args()
    config = settings(HERE, options.size)
    data = nd.data.load("digits")
    real, labels = data.held_out, data.held_out_labels
    first = of_each_class(labels, config["shown"])
    options.out.mkdir(parents=True, exist_ok=True)
    save(options.out / "real.npy", pictures(real[first]))
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(_SEED))
    floor = nd.train.frechet_distance(data.train[order[: len(real)]], real)
    rows = []
    for name, plan in config["runs"].items():
        denoiser = trained(plan, data, options.kept / name)
        samples = drawn(denoiser, data, labels)
        save(options.out / f"{name}.npy", pictures(samples[first]))
        parameters = sum(one.numel() for one in denoiser.network.parameters())
        distance = nd.train.frechet_distance(samples, real)
        rows.append(
            {
                "run": name,
                "parameters": parameters,
                "steps": plan["training"]["steps"],
                "fd": distance,
                "floor": floor,
            }
        )
        print(rows[-1], flush=True)
    write_text(options.out / "quality.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()
