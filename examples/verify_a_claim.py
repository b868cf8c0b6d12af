"""Ask two networks that predict different targets: does the kernel lose rank, at which noise levels, and did training do it?

python examples/verify_a_claim.py    writes runs/examples/claims_v.html and claims_x0.html (one minute)
"""

import os
import textwrap
from pathlib import Path

import ntkdiag as nd

steps, samples, count = (30, 16, 3) if os.environ.get("SIZE") == "tiny" else (1500, 64, 9)
data, buckets = nd.data.load("mixture"), nd.Buckets.uniform(-8, 8, count=count)
Path("runs/examples").mkdir(parents=True, exist_ok=True)

for target in ("v", "x0"):

    def fresh(seed: int, target: str = target) -> nd.Denoiser:
        network = nd.models.build("mlp", data.shape, seed=seed, width=64)
        return nd.Denoiser(network, nd.schedules.cosine(), target, call="log_snr")

    settings = nd.train.TrainConfig(steps=steps, batch=256)
    trained = nd.train.train(fresh(0), data, None, settings).denoiser

    # Five fresh networks beside it: what the architecture does by itself.
    found = nd.verify(trained, data, buckets, samples=samples, fresh=fresh, controls=5)
    print(f"\nThe network predicts {target}:")
    print(textwrap.fill(found.text, 100))
    print(
        found.claims[["statistic", "end", "effect", "low", "high", "word", "learned"]]
        .round(2)
        .to_string(index=False)
    )
    page = nd.report.write_page(f"runs/examples/claims_{target}.html", found.diagnosis, verdicts=found)
    print("look at", page)
