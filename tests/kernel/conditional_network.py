"""A small network with every kind of condition: a label, tokens of text with a mask, and one vector."""

from __future__ import annotations

from typing import Any

import torch
from kernel_networks import normal, shaken
from torch import Tensor, nn

import ntkdiag as nd
from ntkdiag.denoiser import Denoiser

SAMPLES, CLASSES = 5, 3
X0, NOISE = normal(SAMPLES, 4, 6), normal(SAMPLES, 4, 6, seed=1)
LEVELS = torch.tensor([-4.0, -1.0, 0.0, 2.0, 5.0], dtype=torch.float64)
COND = {
    "label": torch.tensor([2, 0, 1, 0, 3]),  # 3 is "no label"
    "text": normal(SAMPLES, 7, 8, seed=2),
    "mask": torch.arange(7) < torch.tensor([7, 1, 4, 2, 6])[:, None],
    "pooled": normal(SAMPLES, 3, seed=3),
}


class Conditional(nn.Module):
    """Tokens [N, 4, 6] that attend to the tokens of a text, shifted by label, time and a pooled vector."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 6)
        self.label = nn.Embedding(CLASSES + 1, 6)
        self.time = nn.Linear(1, 6)
        self.pooled = nn.Linear(3, 6)
        self.key, self.value = nn.Linear(8, 6), nn.Linear(8, 6)
        self.out = nn.Linear(6, 6)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        *,
        class_labels: Tensor,
        text: Tensor,
        mask: Tensor,
        pooled: Tensor,
    ) -> Tensor:
        shift = self.label(class_labels) + self.time(time[:, None]) + self.pooled(pooled)  # [N, 6]
        hidden = torch.tanh(self.embed(x) + shift[:, None])
        scores = hidden @ self.key(text).mT / 6**0.5  # [N, 4, 7]
        share = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        return self.out(hidden + share @ self.value(text))


def conditional(call: str | None = "log_snr") -> Denoiser:
    """In float64, with weights that are not small and always the same."""
    return of(Conditional, call)


def of(kind: type[Conditional], call: Any = "log_snr") -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = shaken(kind())
    names = {"label": "class_labels", "text": "text", "mask": "mask", "pooled": "pooled"}
    null = {
        "label": CLASSES,
        "text": torch.zeros(7, 8),
        "mask": torch.ones(7).bool(),
        "pooled": torch.zeros(3),
    }
    return nd.Denoiser(network, nd.schedules.cosine(), "v", call=call, conditions=names, null=null)
