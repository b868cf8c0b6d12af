"""How far do the kernels of small networks describe their training, and what do features and outputs do? See README.md.

    python -m analysis.trust.run     # minutes on one core; runs that are kept are not trained again

Writes results/<table>.csv (the tables of `ntkdiag.trust.examination`, of all networks) and results/said.csv.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

import ntkdiag as nd
from analysis.command_line import parser, settings
from ntkdiag.provenance import write_text
from ntkdiag.trust.examination import MANIFEST, Examination, cost

HERE = Path(__file__).parent
KEPT = Path("build/trust")


def examined(data: str, target: str, config: dict[str, Any], kept: Path) -> Examination:
    """Train a network with steps kept along the way, and examine it; read where that is done already."""
    run, found = kept / data / target / "run", kept / data / target / "trust"
    if (found / MANIFEST).is_file():
        return Examination.load(found)
    plan, samples = config["data"][data], nd.data.load(data)

    def fresh(seed: int) -> nd.Denoiser:
        network = nd.models.build(plan["network"], samples.shape, seed=seed, **plan["options"])
        return nd.Denoiser(network, nd.schedules.cosine(), target, call="log_snr")

    started = time.perf_counter()
    settings_ = nd.train.TrainConfig(**plan["train"])
    denoiser = nd.train.train(fresh(0), samples, None, settings_, out=run, force=True).denoiser
    trained = time.perf_counter()
    buckets = nd.Buckets.uniform(**config["buckets"])
    result = nd.trust.examine(
        run, denoiser, samples, buckets=buckets, level=config["level"], untrained=fresh(1)
    )
    result.meta["training_seconds"] = round(trained - started, 1)
    result.meta["seconds"] = round(time.perf_counter() - trained, 1)
    result.meta["cost_in_steps"] = cost(run, config["level"], len(buckets))
    result.meta["steps"] = settings_.steps
    result.save(found)
    return result


def main() -> None:
    made = parser(__doc__, HERE)
    made.add_argument("--kept", type=Path, default=KEPT, help="folder of the trained and examined networks")
    options = made.parse_args()
    config = settings(HERE, options.size)
    tables: dict[str, list[pd.DataFrame]] = {}
    said = []
    for data, targets in config["targets"].items():
        for target in targets:
            found = examined(data, target, config, options.kept)
            label = {"data": data, "target": target}
            for name, table in found.tables.items():
                tables.setdefault(name, []).append(table.assign(**label))
            said += [label | {"about": about, "text": text} for about, text in found.said.items()]
            print(json.dumps(label | found.meta), *found.said.values(), sep="\n", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, parts in tables.items():
        whole = pd.concat(parts, ignore_index=True)
        write_text(options.out / f"{name}.csv", whole.to_csv(index=False, float_format="%.4g"))
    write_text(options.out / "said.csv", pd.DataFrame(said).to_csv(index=False))


if __name__ == "__main__":
    main()
