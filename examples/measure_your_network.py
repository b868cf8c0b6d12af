"""Measure a network of your own: a small convolutional flow network, before and after training, as one HTML page.

python examples/measure_your_network.py    writes runs/examples/network.html (one minute; SIZE=tiny: seconds)
"""

import copy
import os
from pathlib import Path

import torch
from torch import Tensor, nn

import ntkdiag as nd


class Network(nn.Module):
    """Any module will do that takes noisy images [N, C, H, W] and times [N]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.time, self.head = nn.Linear(1, width), nn.Conv2d(1, width, 3, padding=1)
        self.body, self.tail = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = torch.sin(self.head(x) + self.time(time[:, None])[:, :, None, None])
        return self.tail(torch.sin(self.body(h)))


steps, samples = (20, 16) if os.environ.get("SIZE") == "tiny" else (1500, 64)
torch.manual_seed(0)
denoiser = nd.Denoiser(Network(), nd.schedules.flow(), target="flow")
untrained, data = copy.deepcopy(denoiser), nd.data.load("digits")  # or the path of a .npy file
trained = nd.train.train(denoiser, data, None, nd.train.TrainConfig(steps=steps)).denoiser
buckets, refs = nd.Buckets.uniform(-8, 8, count=9), {"untrained": untrained}
diagnosis = nd.measure(trained, data, buckets, samples=samples, refs=refs)
print(diagnosis.summary[["log_snr", "loss", "effective_rank", "gsnr", "gsnr_low", "gsnr_high"]].round(3))
Path("runs/examples").mkdir(parents=True, exist_ok=True)
print("look at", nd.report.write_page("runs/examples/network.html", diagnosis))
