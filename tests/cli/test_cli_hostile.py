"""Folders, files and networks that would do harm: one clear line and exit code 2, nothing run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

Refused = Callable[..., str]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def unet(workspace: Path) -> Path:
    """The folder of the model of a pipeline ./pipe; tests spoil it."""
    network = UNet2DModel(
        8, 1, 1, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(workspace / "pipe")
    return workspace / "pipe" / "unet"


class Runs:
    """In a pickle: code that runs when it is opened."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("code from a folder was run",))


def a_pickle(unet: Path) -> None:
    (unet / WEIGHTS).unlink()
    (unet / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Runs()))


def a_path_out(unet: Path) -> None:
    (unet / WEIGHTS).rename(unet.parent / WEIGHTS)
    index = {"metadata": {}, "weight_map": {"conv_in.weight": f"../{WEIGHTS}"}}
    (unet / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def a_long_header(unet: Path) -> None:
    header = b'{"conv_in.weight":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    (unet / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)


def nan(unet: Path) -> None:
    state = load_file(unet / WEIGHTS)
    state["conv_in.bias"][0] = float("nan")
    save_file(state, unet / WEIGHTS)


def edited(unet: Path, **changes: Any) -> None:
    config = unet / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


def a_class_of_python(unet: Path) -> None:
    edited(unet, _class_name="os.system")


def a_class_beside_it(unet: Path) -> None:
    (unet / "evil.py").write_text("raise SystemExit('run')")
    edited(unet, auto_map={"AutoModel": "evil.Model"})


def a_library_of_their_own(unet: Path) -> None:
    index = unet.parent / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["evil", "UNet2DModel"]}))


SPOILED = {
    a_pickle: "Weights in a pickle are not read",
    a_path_out: "names of files in its own folder",
    a_long_header: "a whole .safetensors file",
    nan: "a NaN or infinity in conv_in.bias",
    a_class_of_python: "a model of diffusers in _class_name",
    a_class_beside_it: "names no code from elsewhere; got auto_map in it",
    a_library_of_their_own: "expected a unet of diffusers",
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("command", ["measure", "train"])
def test_a_folder_that_would_do_harm_is_refused(
    unet: Path, refused: Refused, spoil: Callable[[Path], None], command: str
) -> None:
    spoil(unet)
    assert SPOILED[spoil] in refused(command, "--model", "pipe", "--out", "out")


NETWORK = """
import sys
from torch import nn

class Leaves(nn.Linear):
    def forward(self, x, time):
        sys.exit(0)

def leaves():
    return Leaves(2, 2)

def leaves_at_once():
    sys.exit(0)
"""
OWN = ["--target", "v", "--schedule", "cosine"]


@pytest.mark.parametrize("function", ["leaves", "leaves_at_once"])
def test_a_network_that_leaves_python_is_refused(refused: Refused, workspace: Path, function: str) -> None:
    (workspace / "own.py").write_text(NETWORK)
    arguments = ["measure", "--model", f"own.py:{function}", "--data", "mixture", *OWN, "--out", "out"]
    assert "SystemExit" in refused(*arguments)


def test_data_in_a_pickle_is_refused(refused: Refused) -> None:
    torch.save({"a": Runs()}, "data.pt")
    assert "without running code" in refused("measure", "--model", "mlp", "--data", "data.pt", "--out", "out")
