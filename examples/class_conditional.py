"""A class-conditional network: trained with labels, measured class by class, weighted, and sampled with guidance.

python examples/class_conditional.py    writes runs/examples/classes.html and digits_by_class.png (two minutes)
"""

import os
from pathlib import Path

import torch
from matplotlib import pyplot

import ntkdiag as nd

tiny = os.environ.get("SIZE") == "tiny"
steps, samples, sizes = (
    (20, 90, {"width": 16, "depth": 1}) if tiny else (1500, 200, {"width": 48, "depth": 3})
)
data, cosine = nd.data.load("digits"), nd.schedules.cosine()
Path("runs/examples").mkdir(parents=True, exist_ok=True)

# One label more than there are digits stands for "no label": a tenth of the training samples get it.
network = nd.models.build("dit", data.shape, classes=10, heads=2, **sizes)
denoiser = nd.Denoiser(network, cosine, "v", call="log_snr", conditions={"label": "cond"}, null={"label": 10})
settings = nd.train.TrainConfig(steps=steps, batch=128, condition_dropout=0.1)
trained = nd.train.train(denoiser, data, None, settings).denoiser

diagnosis = nd.measure(trained, data, 6, samples=samples, probes=4)
classes = nd.by_class(diagnosis)
print(classes.classes[["label", "log_snr", "samples", "effective_rank"]].round(2).to_string())
print(diagnosis.verify(), classes.first, sep="\n\n")
table = nd.weights.measured(diagnosis, score="bayes", schedule=cosine)
page = nd.report.write_page("runs/examples/classes.html", diagnosis, tables={"recoverable share": table})
print("look at", page)

labels, steps = torch.arange(10).repeat_interleave(8), 8 if tiny else 40
drawn = nd.train.sample(trained, 80, data.shape, cond={"label": labels}, guidance=2.0, steps=steps)
rows = drawn.reshape(10, 8, 8, 8).transpose(1, 2).reshape(80, 64)
pyplot.imsave("runs/examples/digits_by_class.png", rows.clamp(-1, 1), cmap="gray")
print("look at runs/examples/digits_by_class.png")
