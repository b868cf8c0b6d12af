"""Measure again while training, so that the loss weights follow the network, and draw how they moved.

python examples/refresh_while_training.py    writes runs/examples/refreshed.png (one minute; SIZE=tiny: seconds)
"""

import os
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

import ntkdiag as nd
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.weights.refresh.kernel_probe import probe_score

steps, every, samples = (40, 10, 8) if os.environ.get("SIZE") == "tiny" else (2000, 250, 32)
data, schedule = nd.data.load("digits"), nd.schedules.cosine()
network = nd.models.build("dit", data.shape, width=32, depth=2)
denoiser = nd.Denoiser(network, schedule, "v", call="log_snr")

# What is measured: the share of the target that lies where the kernel is strong, on a few fixed samples.
draws, buckets = PairedDraws.draw(data.train, samples, seed=0), nd.Buckets.from_density(schedule, 10)
refresher = nd.weights.Refresher(probe_score(denoiser, draws, buckets), "v", schedule, every=every)

# In a loop of your own: loss = (refresher(log_snr) * losses).mean(), and refresher.after_step(step) after the optimizer.
nd.train.train(denoiser, data, refresher, nd.train.TrainConfig(steps=steps, warmup=10))

figure = Figure(figsize=(6, 4), layout="constrained")
axes = figure.subplots()
for record in (record for record in refresher.history if record.accepted):
    color = colormaps["viridis"](record.step / steps)
    axes.plot(record.log_snr, record.weight, color=color, marker="o", label=f"step {record.step}")
axes.set(xlabel="log-SNR", ylabel="loss weight", title="Weights, measured again during training")
axes.legend(fontsize="small", frameon=False)
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/refreshed.png", dpi=150)
print("look at runs/examples/refreshed.png")
