"""The whole way on a device, against the same on the CPU: NTKDIAG_TEST_DEVICE=cuda tries it on a card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import CASES
from networks.case import DEVICE
from references import relative_error
from streaming_truth import cotangents_for, streamed

import ntkdiag as nd
from ntkdiag.cli import main

DATA = nd.data.load("digits")
NETWORK = {"width": 16, "depth": 2, "heads": 2}


def denoiser(dtype: torch.dtype, device: torch.device) -> nd.Denoiser:
    """A DiT on digits whose last layer is not zero."""
    network = nd.models.build("dit", (1, 8, 8), seed=0, **NETWORK)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return nd.Denoiser(network.to(device, dtype), nd.schedules.cosine(), "v", call="log_snr")


def measured(engine: str, dtype: torch.dtype, device: torch.device) -> nd.Diagnosis:
    return nd.measure(denoiser(dtype, device), DATA, 3, samples=12, probes=3, engine=engine, sketch=8)


@pytest.mark.parametrize("engine", ["streaming", "exact", "autograd", "sketch"])
def test_a_diagnosis_is_the_same_on_every_device(engine: str) -> None:
    """Kernels to the rounding of float32, and a summary of the same numbers."""
    truth = measured(engine, torch.float64, torch.device("cpu"))
    found = measured(engine, torch.float32, DEVICE)
    for name, gram in truth.grams.items():
        assert found.grams[name].device.type == "cpu"
        error = (found.grams[name] - gram).double().norm() / gram.double().norm().clamp(min=1e-30)
        assert error < 1e-3, name
    columns = ["loss", "trace", "effective_rank", "centred_effective_rank", "effective_rank_low"]
    assert found.summary[columns].to_numpy() == pytest.approx(truth.summary[columns].to_numpy(), rel=5e-3)


def test_the_full_kernel_is_the_same_on_every_device() -> None:
    x, level = DATA.train[:3], torch.tensor([-2.0, 0.0, 2.0])
    vector = np.random.default_rng(0).standard_normal(3 * 64)
    truth = nd.NTKOperator(denoiser(torch.float64, torch.device("cpu")), x.double(), level.double()) @ vector
    found = nd.NTKOperator(denoiser(torch.float32, DEVICE), x.to(DEVICE), level.to(DEVICE)) @ vector
    assert np.linalg.norm(found - truth) / np.linalg.norm(truth) < 1e-3


def test_a_verdict_comes_from_every_device() -> None:
    found = nd.verify(denoiser(torch.float32, DEVICE), DATA, level="quick")
    assert found.text


def test_commands_run_on_every_device(tmp_path: Path) -> None:
    run, place = tmp_path / "run", ["--device", str(DEVICE)]
    train = ["train", "--data", "digits", "--model", "dit", "--steps", "12", "--batch", "16"]
    refresh = ["--weights", "refresh:5"]
    assert main([*train, *refresh, *place, "--out", str(run)]) == 0
    measure = ["measure", "--model", str(run), "--samples", "8", "--probes", "2", "--buckets", "3"]
    assert main([*measure, *place, "--out", str(tmp_path / "measured")]) == 0
    sample = ["sample", "--model", str(run), "--count", "4", "--steps", "5"]
    assert main([*sample, *place, "--out", str(tmp_path / "samples.npy")]) == 0


@pytest.fixture
def _tf32() -> Iterator[None]:
    """Products and convolutions in TF32, where the device has it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    kept = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = kept


@pytest.mark.usefixtures("_tf32")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_tf32_is_rounding_and_no_reason_to_refuse(name: str) -> None:
    """The streaming engine serves what it serves in float64, to the precision of TF32."""
    module, inputs = CASES[name](seed=0, samples=5, dtype=torch.float32)
    cotangents = cotangents_for(module, inputs)
    found = streamed(module, inputs, cotangents)
    wide = tuple(t.double() if t.is_floating_point() else t for t in inputs)
    truth = streamed(module.double(), wide, cotangents.double())
    assert found.coverage == truth.coverage
    assert relative_error(found.per_probe, truth.per_probe) < 0.02
