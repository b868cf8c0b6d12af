"""Loss weights in a training loop of your own, from a rule and from a measurement, and what they change.

python examples/weights_for_your_trainer.py    writes runs/examples/weights.html (one minute; SIZE=tiny: seconds)
"""

import os
from pathlib import Path

import torch

import ntkdiag as nd

steps, samples = (30, 16) if os.environ.get("SIZE") == "tiny" else (1500, 64)
data, schedule, buckets = nd.data.load("mixture"), nd.schedules.cosine(), nd.Buckets.uniform(-8, 8, count=9)


def train(weights: nd.WeightTable | None = None) -> nd.Denoiser:  # an ordinary loop
    denoiser = nd.Denoiser(nd.models.build("mlp", data.shape), schedule, "epsilon", call="log_snr")
    optimizer, generator = torch.optim.AdamW(denoiser.parameters(), lr=1e-3), torch.Generator().manual_seed(1)
    for _ in range(steps):
        x0 = data.train[torch.randint(len(data.train), (256,), generator=generator)]
        noise, log_snr = torch.randn(x0.shape, generator=generator), schedule.sample(256, generator)
        losses = (denoiser(schedule.diffuse(x0, noise, log_snr), log_snr) - noise).square().mean(1)
        weighted = losses if weights is None else weights(log_snr).to(losses) * losses
        optimizer.zero_grad()
        weighted.mean().backward()
        optimizer.step()
    return denoiser


networks = {"constant": train()}
diagnosis = nd.measure(networks["constant"], data, buckets, samples=samples)
erd, bayes = nd.weights.rule("erd", "epsilon", schedule), nd.weights.measured(diagnosis, schedule=schedule)
tables = {"erd": erd, "bayes": bayes}
networks |= {name: train(table) for name, table in tables.items()}
losses = {name: nd.train.bucket_losses(each, data, buckets).table() for name, each in networks.items()}
runs = {name: table.rename(columns={"mean": "loss"}) for name, table in losses.items()}
Path("runs/examples").mkdir(parents=True, exist_ok=True)
print("look at", nd.report.write_page("runs/examples/weights.html", diagnosis, tables=tables, runs=runs))
