"""Test the paper's claims on two targets: does the kernel lose rank where the target is less recoverable?

python examples/verify_a_claim.py    writes runs/examples/claims_v.html and claims_x0.html (one minute)
"""

import copy
import os
from pathlib import Path

import ntkdiag as nd
from ntkdiag.claims import judge

steps, samples = (30, 16) if os.environ.get("SIZE") == "tiny" else (1500, 64)
data, buckets = nd.data.load("mixture"), nd.Buckets.uniform(-8, 8, count=9)
Path("runs/examples").mkdir(parents=True, exist_ok=True)

for target in ("v", "x0"):
    network = nd.models.build("mlp", data.shape, seed=0, width=64)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), target, call="log_snr")
    untrained = copy.deepcopy(denoiser)  # the control: what the architecture does by itself
    trained = nd.train.train(denoiser, data, None, nd.train.TrainConfig(steps=steps, batch=256)).denoiser

    diagnosis = nd.measure(trained, data, buckets, samples=samples, refs={"untrained": untrained})
    verdicts = judge(diagnosis)
    print(f"\nThe network predicts {target}:")
    print(verdicts[["claim", "statement", "verdict"]].to_string(index=False))
    page = nd.report.write_page(f"runs/examples/claims_{target}.html", diagnosis, verdicts=verdicts)
    print("look at", page)
