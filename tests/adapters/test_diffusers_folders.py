"""Folders of `save_pretrained`: read as data, refused in a line where they are not, and nothing in them is run."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, EDMEulerScheduler, EulerDiscreteScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.kernel import gram

BLOCKS = {"block_out_channels": (32, 32), "down_block_types": ("DownBlock2D",) * 2}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(8, 1, 1, **BLOCKS, up_block_types=("UpBlock2D",) * 2, layers_per_block=1)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder; tests copy what they change."""
    folder = tmp_path_factory.mktemp("folders") / "pipe"
    DDPMPipeline(unet(), DDPMScheduler(prediction_type="v_prediction")).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline, tmp_path / "pipe"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path | str, *more: Any) -> str:
    with pytest.raises(InputError) as caught:
        Denoiser.from_pretrained(folder, *more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pipeline_has_the_kernel_of_the_hand_written_call(pipeline: Path) -> None:
    read = Denoiser.from_pretrained(pipeline).double()
    network = unet().double().eval()

    def call(inner: Any, x: torch.Tensor, log_snr: torch.Tensor, cond: Any) -> torch.Tensor:
        return inner(x, schedule.time(log_snr)).sample

    schedule = read.schedule
    by_hand = Denoiser(network, schedule, "v", call=call)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine = gram(read, x, 0.0, probes=2, check=False).matrix
    theirs = gram(by_hand, x, 0.0, probes=2, check=False).matrix
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=0)
    assert read.target == "v" and not read.network.training


def test_a_model_beside_its_scheduler(tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path / "unet")
    assert "expected a scheduler beside the model" in refused(tmp_path / "unet")
    EDMEulerScheduler(sigma_data=0.5).save_pretrained(tmp_path / "edm")
    EulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    assert Denoiser.from_pretrained(tmp_path / "unet").target == "epsilon"  # found beside it
    for given in (tmp_path / "edm", tmp_path / "edm" / "scheduler_config.json"):
        assert Denoiser.from_pretrained(tmp_path / "unet", given).target == "F"
    assert "expected a scheduler_config.json" in refused(tmp_path / "unet", tmp_path / "unet")


@pytest.mark.parametrize(
    "name", ["os.system", "Path", "DDPMPipeline", "__builtins__", "UNet2DModel.__class__", 3, None]
)
def test_a_class_from_elsewhere_is_refused(copied: Path, name: Any) -> None:
    edit(copied / "unet" / "config.json", _class_name=name)
    assert "a model of diffusers in _class_name" in refused(copied)


def test_a_pipeline_of_another_library_is_refused(copied: Path) -> None:
    edit(copied / "model_index.json", unet=["my_code", "UNet2DModel"])
    assert "expected a unet of diffusers; got ['my_code', 'UNet2DModel']" in refused(copied)


@pytest.mark.parametrize("name", ["auto_map", "quantization_config"])
def test_code_named_in_a_config_is_refused(copied: Path, name: str) -> None:
    edit(copied / "unet" / "config.json", **{name: {"AutoModel": "evil.Model"}})
    (copied / "unet" / "evil.py").write_text("raise SystemExit('run')")
    assert f"{name} in it" in refused(copied)


def test_a_pickle_is_not_opened(copied: Path, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (copied / "unet" / WEIGHTS).unlink()
    (copied / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Runs()))
    assert "Weights in a pickle are not read" in refused(copied)
    assert not (tmp_path / "ran").exists()


def test_damaged_weights_are_refused(copied: Path) -> None:
    path = copied / "unet" / WEIGHTS
    whole = load_file(path)
    first = next(iter(whole))
    save_file({name: value for name, value in whole.items() if name != first}, path)
    assert "as config.json says" in refused(copied)
    save_file({("other" if name == first else name): value for name, value in whole.items()}, path)
    assert "expected weights of the model's own names" in refused(copied)
    save_file(whole | {first: torch.full_like(whole[first], float("nan"))}, path)
    assert f"a NaN or infinity in {first}" in refused(copied)
    header = json.dumps({first: {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    assert "a whole .safetensors file" in refused(copied)


def test_a_path_out_of_the_folder_is_refused(copied: Path) -> None:
    path = copied / "unet" / WEIGHTS
    path.rename(copied / WEIGHTS)
    index = {"metadata": {}, "weight_map": {"conv_in.weight": f"../{WEIGHTS}"}}
    (copied / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert "names of files in its own folder" in refused(copied)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "3", '{"_class_name": "UNet2DModel", "in_channels": "many"}']
)
def test_a_config_that_is_none_is_refused(copied: Path, text: str) -> None:
    (copied / "unet" / "config.json").write_text(text)
    assert "config" in refused(copied)


def test_a_config_of_another_size_is_refused_before_it_is_made(copied: Path) -> None:
    edit(copied / "unet" / "config.json", block_out_channels=[32 * 10**4, 32 * 10**4])  # terabytes
    assert "as config.json says" in refused(copied)


def test_a_scheduler_of_too_many_steps_is_refused(copied: Path) -> None:
    edit(copied / "scheduler" / "scheduler_config.json", num_train_timesteps=10**12)
    assert "num_train_timesteps" in refused(copied)


def test_places_that_are_no_folder(tmp_path: Path) -> None:
    assert "got no such folder" in refused(tmp_path / "nothing")
    assert "got an empty folder" in refused(tmp_path)
    assert "in the local cache of the hub" in refused("nobody/no-such-model")
