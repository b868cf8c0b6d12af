"""How far are measured weights from closed-form ones? See README.md.

python -m analysis.weights.run [--size full|tiny] [--out FOLDER]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import kendalltau

import ntkdiag as nd
from analysis import command_line
from ntkdiag.provenance import environment, write_json, write_text
from ntkdiag.weights import SCORES, WeightTable

HERE = Path(__file__).parent
SCHEDULE = nd.schedules.cosine()


def diagnosis(config: dict[str, Any]) -> nd.Diagnosis:
    """Train a network with constant weights, and measure it."""
    data = nd.data.load(config["data"])
    network = nd.models.build("mlp", data.shape, config["seed"], **config["network"])
    denoiser = nd.Denoiser(network, SCHEDULE, config["target"], call="log_snr")
    settings = nd.train.TrainConfig.preset(config["data"], steps=config["steps"], seed=config["seed"])
    trained = nd.train.train(denoiser, data, None, settings).denoiser
    buckets = nd.Buckets.uniform(**config["buckets"])
    return nd.measure(
        trained,
        data,
        buckets,
        samples=config["samples"],
        probes=config["probes"],
        seed=config["seed"],
    )


def agreement(table: WeightTable, closed: WeightTable) -> dict[str, Any]:
    """How far a measured table agrees with a closed form, at the buckets; both have mean 1 under the training density.

    Kendall's τ says whether both order the noise levels alike; the largest ratio says how far apart they are at most.
    """
    ours, theirs = table.weight, closed(table.log_snr)
    ratio = (ours / theirs).log()
    inside = None
    if table.low is not None and table.high is not None:
        inside = ((table.low <= theirs) & (theirs <= table.high)).double().mean().item()
    return {
        "kendall_tau": kendalltau(ours.numpy(), theirs.numpy()).statistic,
        "median_ratio": ratio.abs().median().exp().item(),
        "largest_ratio": ratio.abs().max().exp().item(),
        "inside_interval": inside,
    }


def study(size: str, out: Path) -> None:
    """Write a weight table per score to `out`, and how far each is from ERD and from min-SNR."""
    config = command_line.settings(HERE, size)
    torch.set_num_threads(1)
    measured = diagnosis(config)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for score in SCORES:
        table = nd.weights.measured(measured, score, schedule=SCHEDULE, floor=0.01, precision=None)
        table.save(out / f"{score}.csv")
        for rule in ("erd", "min_snr"):
            closed = nd.weights.rule(rule, config["target"], SCHEDULE)
            rows.append({"score": score, "closed_form": closed.name, **agreement(table, closed)})
    found = pd.DataFrame(rows)
    write_text(out / "agreement.csv", found.to_csv(index=False, float_format="%.4g"))
    write_text(out / "summary.csv", measured.summary.to_csv(index=False, float_format="%.6g"))
    write_json(out / "study.json", {"config": config, "environment": environment()})
    print(found.round(3).to_string(index=False))


def main() -> None:
    """Parse and run."""
    chosen = command_line.parser(__doc__, HERE).parse_args()
    study(chosen.size, chosen.out)


if __name__ == "__main__":
    main()
