"""The pages of the manual, their blocks of code, and what each page takes for given."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import ntkdiag as nd

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "ARCHITECTURE.md", *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?: { \.)?(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

# Later options replace earlier ones, so these make any command on a page small.
TINY = {
    "demo": ["--quick"],
    "measure": [
        "--samples",
        "8",
        "--probes",
        "3",
        "--buckets",
        "4",
        "--controls",
        "1",
        "--top-k",
        "2",
        "--slq",
        "2",
    ],
    "verify": ["--samples", "8", "--probes", "3", "--buckets", "4", "--controls", "1"],
    "train": ["--steps", "3", "--batch", "8"],
    "drift": ["--level", "quick", "--buckets", "3"],
    "sample": ["--count", "8", "--steps", "2"],
}
TINY_MODEL = {"mlp": ["width=8"], "dit": ["width=16", "depth=1", "heads=2", "frequencies=8"]}


@dataclass(frozen=True)
class Block:
    """One block of code on a page.

    Attributes:
        language: As its fence says.
        code: Its lines.
        reason: Why it is not run, from the comment above it; empty if it is run.
        line: Where its fence stands.
    """

    language: str
    code: str
    reason: str
    line: int


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in some languages, in order."""
    text = page.read_text()
    return [
        Block(found["language"], found["code"], found["reason"] or "", text[: found.start()].count("\n") + 1)
        for found in _BLOCK.finditer(text)
        if found["language"] in languages
    ]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _BLOCK.sub("", page.read_text())


class Timed(nn.Module):
    """A network that is called as network(x, time)."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.leave(torch.tanh(self.enter(x) + time.reshape(-1, 1, 1, 1)))


def images() -> nd.data.Data:
    """Pictures of one brightness each and a little noise: of white ones no v could be recovered."""
    generator = torch.Generator().manual_seed(0)
    brightness, noise = (torch.randn(shape, generator=generator) for shape in ((72, 1, 1, 1), (72, 1, 4, 4)))
    pictures = brightness + 0.3 * noise
    return nd.data.Data("images", pictures[:64], pictures[64:])


def denoiser(seed: int = 0) -> nd.Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nd.Denoiser(Timed(), nd.schedules.cosine(), "v")


def diagnosis(seed: int = 0) -> nd.Diagnosis:
    buckets = nd.Buckets.uniform(-9, 9, count=4)
    return nd.measure(denoiser(seed), images(), buckets, samples=8, probes=3, refs={"untrained": denoiser(1)})


def _your_network() -> dict[str, Any]:
    dataset = [(picture, number % 3) for number, picture in enumerate(images().train)]
    return {
        "network": Timed(),
        "fresh_denoiser": denoiser(1),
        "denoiser_v": denoiser(),
        "trained": denoiser(),
        "make_denoiser": lambda seed: denoiser(seed + 7),
        "images": images().train,
        "labels": torch.arange(64) % 3,
        "dataset": dataset,
    }


def _trainers() -> dict[str, Any]:
    return {"diag": diagnosis(), "log_snr": torch.linspace(-3, 3, 5), "per_sample_loss": torch.ones(5)}


def _verify() -> dict[str, Any]:
    return {"denoiser": denoiser(), "data": images(), "make_denoiser": lambda seed: denoiser(seed + 7)}


def _trust() -> dict[str, Any]:
    network = nd.models.build("mlp", (2,), width=8)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    return {"denoiser": denoiser, "data": nd.data.load("mixture")}


# Page → what its Python blocks take for given.
GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "README.md": lambda: _your_network() | _trainers(),
    "your_network.md": _your_network,
    "trainers.md": _trainers,
    "verify.md": _verify,
    "trust.md": _trust,
    "adapters.md": lambda: {"nd": nd, "images": images()},
}

_MODULES = {
    "my_networks.py": """
        from docs_pages import Timed

        def function():
            return Timed()
        """,
    "my_training.py": """
        def snr_weight(snr):
            return snr.clamp(max=5) / (1 + snr)
        """,
}


def write_files(page: Path) -> None:
    """The files that commands and Python blocks of a page read, in the working folder."""
    import textwrap

    for name, text in _MODULES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(textwrap.dedent(text))
    np.save("images.npy", images().train.numpy())
    for number in range(40):
        picture = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        Path("pictures", "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(Path("pictures", "ab"[number % 2], f"{number}.png"))
    average = {f"module.{name}": value for name, value in Timed().state_dict().items()}
    torch.save({"step": 9, "model": Timed().state_dict(), "ema": average}, "net.pt")
    if page.name in ("README.md", "adapters.md"):
        save_pipeline("my-pipeline")
        save_pipeline("latent-pipeline", vae=True)
    if page.name in ("verify.md", "read_the_page.md"):
        diagnosis().save("runs/measured")
    if page.name == "verify.md":
        for seed in range(5):
            diagnosis(seed).save(f"runs/seed{seed}")
    runs = {"verify.md": "runs/mine", "your_network.md": "runs/demo/constant"}
    if page.name in runs:
        train_a_run(runs[page.name])


def save_pipeline(folder: str, vae: bool = False) -> None:
    """A small U-Net with a scheduler, and perhaps a VAE, as diffusers writes it."""
    from diffusers import AutoencoderKL, DDPMPipeline, DDPMScheduler, UNet2DModel

    channels = 4 if vae else 1
    network = UNet2DModel(
        16, channels, channels, block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(folder)
    if vae:
        encoder = AutoencoderKL(1, 1, block_out_channels=(4,), norm_num_groups=2)
        encoder.save_pretrained(f"{folder}/vae")


def train_a_run(folder: str) -> None:
    """A training run as `ntkdiag train` writes it."""
    from ntkdiag.cli import main

    options = ["--model", "mlp", "--data", "images.npy", "--steps", "2", "--batch", "8", "--out", folder]
    assert main(["train", *options, "--model-option", "width=8"]) == 0
