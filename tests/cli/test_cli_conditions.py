"""The command line with conditions: a class-conditional DiT on digits, and labels and text from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntkdiag.cli import main

SMALL = ("--model-option", "width=8", "--model-option", "depth=1", "--model-option", "heads=2")
DIT = ("--model", "dit", "--model-option", "classes=10", *SMALL)
QUICK = ("--buckets", "3", "--samples", "8", "--probes", "1", "--controls", "0")


def run(capsys: Any, *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys: Any, *words: str) -> str:
    assert main(list(words)) == 2
    found = capsys.readouterr().err.strip().splitlines()
    return found[-1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("runs") / "classes"
    settings = ("--setting", "condition_dropout=0.2", "--setting", "warmup=2")
    assert (
        main(
            [
                "train",
                *DIT,
                "--steps",
                "10",
                "--batch",
                "8",
                *settings,
                "--weights",
                "refresh:5,samples=8",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    return str(out)


def test_a_class_conditional_network_is_measured_with_and_without_labels(trained: str, capsys: Any) -> None:
    own = run(capsys, "measure", "--model", trained, *QUICK)
    assert "shared" not in own["meta"]["conditions"]["label"]
    assert "do not see the network's conditions" in own["meta"]["bayes_source"]
    null = run(capsys, "measure", "--model", trained, *QUICK, "--null-label", "10")
    assert null["meta"]["conditions"]["label"]["shared"] == 10
    assert own["summary"][0]["trace"] != null["summary"][0]["trace"]


def test_it_is_verified(trained: str, capsys: Any) -> None:
    found = run(
        capsys,
        "verify",
        "--model",
        trained,
        "--buckets",
        "6",
        "--samples",
        "12",
        "--probes",
        "1",
        "--controls",
        "1",
    )
    assert found["text"] and found["claims"]


def test_samplers_start_from_the_same_noise_and_differ(trained: str, tmp_path: Path, capsys: Any) -> None:
    words = ("sample", "--model", trained, "--count", "4", "--label", "3", "--guidance", "2", "--out")
    drawn = {}
    for name, steps in (("heun", 40), ("ddim", 80), ("ancestral", 80)):
        out = str(tmp_path / f"{name}.npy")
        done = run(capsys, *words, out, "--sampler", name, "--steps", str(steps))
        assert (done["sampler"], done["steps"]) == (name, steps)
        drawn[name] = np.load(out)
    spread = drawn["heun"].std()
    assert 0 < np.abs(drawn["heun"] - drawn["ddim"]).mean() < 0.1 * spread  # both follow the ODE
    assert np.abs(drawn["heun"] - drawn["ancestral"]).mean() > 0.2 * spread


def test_a_class_is_sampled_with_guidance(trained: str, tmp_path: Path, capsys: Any) -> None:
    words = ("sample", "--model", trained, "--count", "6", "--steps", "2", "--out")
    threes = run(capsys, *words, str(tmp_path / "3.npy"), "--label", "3", "--guidance", "2")
    assert threes["quality"]["energy distance"]
    run(capsys, *words, str(tmp_path / "4.npy"), "--label", "4", "--guidance", "2")
    run(capsys, *words, str(tmp_path / "free.npy"))
    three, four, free = (np.load(tmp_path / f"{name}.npy") for name in ("3", "4", "free"))
    assert not np.allclose(three, four) and not np.allclose(three, free)
    run(capsys, *words, str(tmp_path / "zero.npy"), "--label", "3", "--guidance", "0")
    np.testing.assert_allclose(np.load(tmp_path / "zero.npy"), free, atol=1e-5)


def test_conditions_from_files_reach_a_function_of_the_users(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(3, 4)\n"
        "    def forward(self, x, time, text):\n"
        "        assert text.shape[1:] == (3,)\n"
        "        return self.a(x) + self.b(text)\n"
        "def net():\n"
        "    return Net()\n"
    )
    numbers = np.random.default_rng(0).normal(size=(40, 4))
    np.save("x.npy", numbers)
    np.save("text.npy", numbers[:, :3])
    words = (
        "measure",
        "--model",
        "mine.py:net",
        "--data",
        "x.npy",
        "--target",
        "v",
        "--schedule",
        "cosine",
        *QUICK,
    )
    found = run(capsys, *words, "--cond", "text=text.npy")
    assert found["meta"]["conditions"]["text"]["shape"] == [3]
    np.save("short.npy", numbers[:7])
    assert "cond, 'text': expected 40 rows" in refused(capsys, *words, "--cond", "text=short.npy")
    assert "--cond: expected NAME=FILE.npy; got 'text.npy'" in refused(capsys, *words, "--cond", "text.npy")
    assert "missing.npy: expected a whole .npy file" in refused(capsys, *words, "--cond", "text=missing.npy")
    assert "--null-label: expected a network that takes labels" in refused(
        capsys, *words, "--cond", "text=text.npy", "--null-label", "3"
    )


def test_labels_of_a_file(tmp_path: Path, capsys: Any) -> None:
    generator = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", generator.normal(size=(30, 1, 8, 8)))
    np.save(tmp_path / "y.npy", generator.integers(0, 10, 30))
    words = ("measure", *DIT, "--data", str(tmp_path / "x.npy"), *QUICK)
    assert (
        run(capsys, *words, "--labels", str(tmp_path / "y.npy"))["meta"]["conditions"]["label"]["dtype"]
        == "int64"
    )
    assert "conditions of the network: expected label; got none" in refused(capsys, *words)
    np.save(tmp_path / "wrong.npy", generator.normal(size=30))
    assert "labels: expected 30 whole numbers" in refused(
        capsys, *words, "--labels", str(tmp_path / "wrong.npy")
    )
    np.save(tmp_path / "large.npy", np.arange(30))
    assert "index out of range" in refused(capsys, *words, "--labels", str(tmp_path / "large.npy"))


def test_what_cannot_be_drawn_is_refused(trained: str, tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "x.npy")
    words = ("sample", "--model", trained, "--count", "3", "--steps", "1", "--out", out)
    assert "--label: expected a label from 0 to 10; got 11" in refused(capsys, *words, "--label", "11")
    assert "--guidance: expected --label beside it" in refused(capsys, *words, "--guidance", "2")
    assert "--sampler: expected one of heun, ddim, ancestral" in refused(capsys, *words, "--sampler", "dim")
    plain = ("sample", "--model", "dit", *SMALL, "--count", "3", "--steps", "1", "--out", out)
    assert "--label: expected a network that takes labels and nothing else; got no conditions" in refused(
        capsys, *plain, "--label", "1"
    )
    assert not Path(out).exists()


@pytest.fixture(scope="module")
def with_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net of diffusers that reads text, with a scheduler; and pictures and texts beside it."""
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel

    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        8, 1, 1, block_out_channels=(8, 8), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=4,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, cross_attention_dim=6,
        attention_head_dim=4,
    )  # fmt: skip
    network.save_pretrained(folder / "pipe" / "unet")
    DDPMScheduler().save_pretrained(folder / "pipe" / "scheduler")
    numbers = np.random.default_rng(0)
    np.save(folder / "x.npy", numbers.normal(size=(20, 1, 8, 8)).astype(np.float32))
    np.save(folder / "text.npy", numbers.normal(size=(20, 5, 6)).astype(np.float32))
    return folder


def test_a_folder_that_reads_text_is_measured(with_text: Path, capsys: Any) -> None:
    words = ("measure", "--model", str(with_text / "pipe"), "--data", str(with_text / "x.npy"), *QUICK)
    found = run(capsys, *words, "--cond", f"encoder_hidden_states={with_text / 'text.npy'}")
    assert found["meta"]["conditions"]["encoder_hidden_states"]["shape"] == [5, 6]


def test_a_missing_condition_names_the_option_that_gives_it(with_text: Path, capsys: Any) -> None:
    words = ("measure", "--model", str(with_text / "pipe"), "--data", str(with_text / "x.npy"), *QUICK)
    said = refused(capsys, *words)
    assert "none of the name encoder_hidden_states" in said and said.endswith(
        "Give them with the data: --cond."
    )
    said = refused(capsys, "measure", *DIT, "--data", str(with_text / "x.npy"), *QUICK)
    assert "expected label; got none" in said and said.endswith("Give them with the data: --labels.")
