"""--model: reference networks, functions of the user's, training folders; and the untrained control."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ntkdiag.cli.inputs.loading import load
from ntkdiag.cli.inputs.recipe import Recipe
from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.diagnosis import Diagnosis
from ntkdiag.errors import InputError
from ntkdiag.process import schedules

TINY = {"model": "mlp", "model_option": ["width=8", "depth=1"], "data": "mixture"}
QUICKLY = ["--buckets", "4", "--samples", "8", "--probes", "2", "--controls", "1"]

MODULE = """
import types

import torch
from torch import nn
import ntkdiag as nd


class Net(nn.Module):
    schedule, target = nd.schedules.cosine(), "v"

    def __init__(self, size, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size + 1, width), nn.Tanh(), nn.Linear(width, size))
        self.seen = None

    def forward(self, x, level):
        self.seen = level.detach()
        return self.layers(torch.cat([x, level[:, None]], dim=1))


class Bare(Net):
    schedule = target = None


def plain():
    return Net(2)


def bare():
    return Bare(2)


def unlike():
    net = Bare(2)
    net.target, net.schedule = "cuda", torch.optim.SGD(net.parameters(), lr=0.1)  # attributes that mean other things
    return net


def scheduled():
    net = Bare(2)
    net.scheduler = types.SimpleNamespace(
        alphas_cumprod=[0.99, 0.5, 0.01], config={"prediction_type": "v_prediction"}
    )
    return net


def shaped(shape, width=4):
    return Net(shape[0], width)


def loaded():
    net = Net(2)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    return net


def whole():
    return nd.Denoiser(Net(2), nd.schedules.flow(), "flow", call="log_snr")


def failing():
    raise RuntimeError("no such\\nweights")


def number():
    return 3


def dies_on_data():
    class Bad(Net):
        def forward(self, x, level):
            raise KeyError("time")
    return Bad(2)


def not_a_number():
    net = loaded()
    nn.init.constant_(net.layers[0].weight, float("nan"))
    return net


constant = 3
"""


@pytest.fixture
def mine(workspace: Path) -> Iterator[str]:
    """A module in the current folder."""
    (workspace / "my_nets.py").write_text(MODULE)
    path = list(sys.path)
    yield "my_nets"
    sys.path[:] = path
    sys.modules.pop("my_nets", None)


def options(**given: Any) -> ModelOptions:
    return ModelOptions(**{**TINY, **given})


def weights(denoiser: Any) -> dict[str, torch.Tensor]:
    return denoiser.network.state_dict()


def test_a_reference_network_is_called_with_log_snr_and_depends_on_the_seed() -> None:
    first, again, other = load(options()), load(options()), load(options(seed=1))
    assert first.denoiser.target == "v" and first.denoiser.schedule.name == "cosine"
    for name, value in weights(first.denoiser).items():
        assert torch.equal(value, weights(again.denoiser)[name])
    assert not torch.equal(weights(first.denoiser)["out.weight"], weights(other.denoiser)["out.weight"])
    # infinite log-SNR is fine for a reference network, while the time of a cosine schedule would be 0.
    x = torch.zeros(1, 2)
    by_level = first.denoiser(x, 3.0)
    assert torch.allclose(by_level, first.denoiser.network(x, torch.tensor([3.0])))


def test_the_split_of_the_data_does_not_depend_on_the_seed() -> None:
    assert load(options()).data.digest == load(options(seed=5)).data.digest


def test_a_function_is_called_with_time_by_default(mine: str) -> None:
    found = load(ModelOptions(model=f"{mine}:plain", data="mixture"))
    found.denoiser(torch.zeros(1, 2), 0.0)
    assert found.denoiser.network.seen.item() == pytest.approx(0.5)
    found = load(ModelOptions(model=f"{mine}:plain", data="mixture", call="log_snr"))
    found.denoiser(torch.zeros(1, 2), -3.0)
    assert found.denoiser.network.seen.item() == -3.0


def test_a_function_must_say_what_its_network_was_trained_on(mine: str) -> None:
    for function in ("bare", "unlike"):
        given = {"model": f"{mine}:{function}", "data": "mixture"}
        with pytest.raises(
            InputError, match=r"^--schedule and --target: .* got nothing\. Give --schedule and --target,"
        ):
            load(ModelOptions(**given))
        with pytest.raises(InputError, match=r"^--target: .* got nothing\. Give --target, set attributes"):
            load(ModelOptions(**given, schedule="flow"))
        with pytest.raises(InputError, match=r"^--schedule: "):
            load(ModelOptions(**given, target="flow"))
        found = load(ModelOptions(**given, schedule="flow", target="flow")).denoiser
        assert (found.schedule, found.target) == (schedules.flow(), "flow")


def test_a_network_may_say_it_in_attributes_but_not_otherwise_than_the_options(mine: str) -> None:
    plain = {"model": f"{mine}:plain", "data": "mixture"}
    assert load(ModelOptions(**plain, target="v_prediction", schedule="cosine")).denoiser.target == "v"
    with pytest.raises(
        InputError, match=r"^--target: expected v, as the network's attribute target says, .* got x0"
    ):
        load(ModelOptions(**plain, target="x0"))
    with pytest.raises(InputError, match=r"^--schedule: expected cosine\(\), as .* got flow\(\)"):
        load(ModelOptions(**plain, schedule="flow"))


def test_a_scheduler_of_the_network_says_both(mine: str) -> None:
    found = load(ModelOptions(model=f"{mine}:scheduled", data="mixture")).denoiser
    assert found.target == "v" and found.schedule.name == "from_table"
    assert float(found.schedule.log_snr(1)) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(InputError, match="expected v, as"):
        load(ModelOptions(model=f"{mine}:scheduled", data="mixture", target="epsilon"))


def test_a_run_of_an_earlier_version_is_v_on_cosine_as_it_was_trained(mine: str) -> None:
    stored = Recipe(f"{mine}:bare", data="mixture").to_dict()
    with pytest.raises(InputError, match=r"^--schedule and --target"):
        Recipe.from_dict(stored, "run").build((2,))
    del stored["assumed"]
    found = Recipe.from_dict(stored, "run").build((2,))
    assert (found.schedule, found.target) == (schedules.cosine(), "v")


def test_a_function_gets_the_shape_if_it_asks_and_its_options(mine: str) -> None:
    found = load(ModelOptions(model=f"{mine}:shaped", data="mixture", model_option=["width=7"]))
    assert found.denoiser.network.layers[0].weight.shape == (7, 3)
    found = load(ModelOptions(model=f"{mine}:Net", data="mixture", model_option=["size=2"]))
    assert found.denoiser.network.layers[2].weight.shape == (2, 4)


def test_a_function_draws_from_the_seed_and_leaves_torch_as_it_was(mine: str) -> None:
    before = torch.get_rng_state()
    first = load(ModelOptions(model=f"{mine}:plain", data="mixture", seed=3))
    again = load(ModelOptions(model=f"{mine}:plain", data="mixture", seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    key = "layers.0.weight"
    assert torch.equal(weights(first.denoiser)[key], weights(again.denoiser)[key])


def test_a_denoiser_brings_its_own_process_and_refuses_another(mine: str) -> None:
    found = load(ModelOptions(model=f"{mine}:whole", data="mixture"))
    assert found.denoiser.target == "flow" and found.denoiser.schedule.name == "flow"
    for given in (
        {"target": "v"},
        {"schedule": "cosine"},
        {"call": "time"},
        {"schedule_option": ["steps=3"]},
    ):
        with pytest.raises(InputError, match=f"--{next(iter(given)).replace('_', '-')}: expected nothing"):
            load(ModelOptions(model=f"{mine}:whole", data="mixture", **given))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (None, "nothing"),
        ("my_nets", "package.module:function"),
        ("my_nets:", "package.module:function"),
        (":plain", "package.module:function"),
        ("no_such_module:plain", "No module named 'no_such_module'"),
        ("no.such.module:plain", "No module named 'no'"),
        ("my_nets:plane", "Did you mean 'plain'?"),
        ("my_nets:constant", "expected a function; got int"),
        ("my_nets:failing", "RuntimeError: no such"),
        ("my_nets:number", "expected a function that returns a torch.nn.Module; got int"),
        ("my_nets:dies_on_data", "KeyError: 'time'"),
        ("broken:net", "SyntaxError"),
        ("leaving:net", "SystemExit"),
        ("broken.py:net", "SyntaxError"),
        ("leaving.py:net", "SystemExit"),
        ("none.py:net", "FileNotFoundError: no such file"),
        ("my_nets.py:plane", "Did you mean 'plain'?"),
        ("my_nets.py", "file.py:function"),
    ],
)
def test_a_model_that_cannot_be_is_one_line(
    refused: Callable[..., str], workspace: Path, mine: str, spec: str | None, word: str
) -> None:
    (workspace / "broken.py").write_text("def net(:\n")
    (workspace / "leaving.py").write_text("raise SystemExit(3)\n")
    given = [] if spec is None else ["--model", spec]
    assert word in refused("measure", *given, "--data", "mixture", *QUICKLY, "--out", "out")


def test_a_folder_named_like_a_reference_network_is_not_taken_for_it(
    call: Any, refused: Callable[..., str], workspace: Path, trained: Path
) -> None:
    shutil.copytree(trained, "mlp")
    (workspace / "dit").mkdir()  # a folder of other files is none that could be meant
    small = ["--model", "mlp", "--data", "mixture", "--steps", "1"]
    sample = ["sample", "--count", "2", "--steps", "1", "--out", "s.npy"]
    assert "got mlp, the name of a reference network and of a folder here. Write ./mlp" in refused(
        *sample, "--model", "mlp"
    )
    assert call(*sample, "--model", "./mlp").code == 0
    assert load(ModelOptions(model="dit")).weights is None
    assert load(ModelOptions(model="./mlp")).weights is not None
    # A run is no network to train, so that the name stands for the reference network.
    assert call("train", *small, "--batch", "8", "--out", "other").code == 0
    (workspace / "mlp" / "model_index.json").write_text("{}")
    assert "Write ./mlp for the folder" in refused("train", *small, "--out", "again")


def test_options_that_a_function_does_not_take_are_reported(refused: Callable[..., str], mine: str) -> None:
    line = refused("measure", "--model", "my_nets:plain", "--data", "mixture", "--model-option", "width=3")
    assert "my_nets:plain" in line and "width" in line


def test_a_network_of_another_size_than_the_data_is_reported(
    refused: Callable[..., str], mine: str, array: Callable[..., str]
) -> None:
    line = refused("measure", "--model", "my_nets:plain", "--data", array(np.zeros((20, 5), np.float32)))
    assert "samples of shape [5]" in line


def test_a_network_that_gives_nan_is_a_failed_measurement(call: Any, workspace: Path, mine: str) -> None:
    result = call("measure", "--model", "my_nets:not_a_number", "--data", "mixture", *QUICKLY, "--out", "out")
    assert result.code == 1
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert not (workspace / "out").exists()


# Checkpoints and folders


def test_a_checkpoint_is_loaded(workspace: Path, mine: str) -> None:
    source = load(ModelOptions(model=f"{mine}:plain", data="mixture", seed=9))
    save_file(weights(source.denoiser), workspace / "mine.safetensors")
    found = load(ModelOptions(model=f"{mine}:plain", data="mixture", checkpoint=Path("mine.safetensors")))
    assert found.trained
    for name, value in weights(source.denoiser).items():
        assert torch.equal(value, weights(found.denoiser)[name])


def test_the_average_of_a_checkpoint_is_loaded_and_named(call: Any, workspace: Path, mine: str) -> None:
    source, average = (
        weights(load(ModelOptions(model=f"{mine}:plain", seed=n, data="mixture")).denoiser) for n in (1, 2)
    )
    content = {
        "state_dict": {f"module.{name}": value for name, value in source.items()},
        "ema": average,
        "step": 9,
    }
    torch.save(content, workspace / "net.ckpt")
    start = [
        "measure",
        "--model",
        "my_nets.py:plain",
        "--checkpoint",
        "net.ckpt",
        "--data",
        "mixture",
        *QUICKLY,
    ]
    result = call(*start, "--json")
    assert result.err == (
        "note: the weights 'ema' of net.ckpt, a moving average, were taken; 'state_dict.module' would fit too\n"
    )
    taken = {"file": "net.ckpt", "key": "ema", "ema": True, "others": ["state_dict.module"]}
    assert result.document["meta"]["network"]["weights"] == taken
    by_key = load(
        options(
            model="my_nets.py:plain", model_option=None, checkpoint=Path("net.ckpt"), weights_key="state_dict"
        )
    )
    assert all(torch.equal(value, source[name]) for name, value in weights(by_key.denoiser).items())
    assert "Did you mean 'ema'?" in call(*start, "--weights-key", "emma").err
    torch.save(
        {"a": source, "b": {name: value + 1 for name, value in source.items()}}, workspace / "net.ckpt"
    )
    line = call(*start).err
    assert line.endswith("got 'a', 'b'. Choose one with --weights-key.\n") and line.count("\n") == 1


def test_a_run_remembers_which_weights_it_started_from(call: Any, workspace: Path, mine: str) -> None:
    start = weights(load(ModelOptions(model=f"{mine}:plain", seed=1, data="mixture")).denoiser)
    torch.save(
        {"model": start, "ema": {name: value + 1 for name, value in start.items()}}, workspace / "net.pt"
    )
    begun = [
        "train",
        "--model",
        "my_nets.py:plain",
        "--checkpoint",
        "net.pt",
        "--weights-key",
        "model",
        "--data",
        "mixture",
    ]
    result = call(*begun, "--steps", "1", "--batch", "4", "--out", "run")
    assert result.code == 0 and "the weights 'model' of net.pt were taken" in result.err
    assert call("train", "--resume", "--out", "run", "--steps", "2").code == 0
    from ntkdiag.train.checkpoints.checkpoint import read_manifest

    assert read_manifest(workspace / "run").notes["weights_key"] == "model"


def test_a_function_of_a_file_is_found_from_anywhere(
    call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace / "code of mine"
    folder.mkdir()
    (folder / "beside.py").write_text("WIDTH = 3\n")
    (folder / "random.py").write_text(
        MODULE + "\nimport beside\n\n\ndef wide():\n    return Net(2, beside.WIDTH)\n"
    )
    path = list(sys.path)
    try:
        found = load(ModelOptions(model="code of mine/random.py:wide", data="mixture"))
        assert found.denoiser.network.layers[0].weight.shape == (3, 3)
        assert found.recipe.model == f"{folder / 'random.py'}:wide"
        assert list(found.controls(1)[0]) == ["untrained"]
        import random

        assert random.random() < 1  # the module of Python is still there
        begun = [
            "--model",
            "code of mine/random.py:wide",
            "--data",
            "mixture",
            "--steps",
            "1",
            "--batch",
            "4",
        ]
        assert call("train", *begun, "--out", "run").code == 0
        monkeypatch.chdir(folder)
        assert load(ModelOptions(model=str(workspace / "run"))).data.name == "mixture"
    finally:
        sys.path[:] = path
        sys.modules.pop("beside", None)


def test_a_training_folder_gives_network_weights_process_and_data(trained: Path) -> None:
    from safetensors.torch import load_file

    found = load(ModelOptions(model=str(trained)))
    assert found.data.name == "mixture" and found.denoiser.target == "v" and found.trained
    average = load_file(trained / "average.safetensors")
    assert all(torch.equal(value, average[name]) for name, value in weights(found.denoiser).items())


@pytest.mark.parametrize(
    "given",
    [
        {"target": "v"},
        {"schedule": "cosine"},
        {"schedule_option": ["steps=3"]},
        {"model_option": ["width=8"]},
        {"call": "time"},
        {"checkpoint": Path("x.safetensors")},
        {"weights_key": "ema"},
    ],
)
def test_a_training_folder_is_not_contradicted(trained: Path, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected nothing beside --model"):
        load(ModelOptions(model=str(trained), **given))


def test_a_training_folder_takes_other_data_of_its_shape(trained: Path, array: Callable[..., str]) -> None:
    values = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    found = load(ModelOptions(model=str(trained), data=array(values)))
    assert found.data.name == "data"


def test_data_that_changed_since_training_is_reported(
    call: Any, array: Callable[..., str], workspace: Path
) -> None:
    values = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    name = array(values)
    start = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1", "--data", name]
    assert call("train", *start, "--steps", "2", "--batch", "4", "--out", "run").code == 0
    assert load(ModelOptions(model="run")).data.shape == (2,)
    array(values + 1)
    with pytest.raises(InputError, match="samples that have changed since"):
        load(ModelOptions(model="run"))
    assert load(ModelOptions(model="run", data=name)).data.shape == (2,)


def test_a_run_of_the_library_alone_says_how_to_use_it(workspace: Path) -> None:
    from ntkdiag.train import TrainConfig, train

    found = load(options())
    train(found.denoiser, found.data, None, TrainConfig(steps=1, batch=4), out=workspace / "run")
    with pytest.raises(InputError, match="MODULE:FUNCTION and --checkpoint"):
        load(ModelOptions(model=str(workspace / "run")))


# The control


def test_the_first_control_of_a_run_is_the_network_before_its_training(trained: Path) -> None:
    controls, woken = load(ModelOptions(model=str(trained), seed=4)).controls(3)
    assert list(controls) == ["untrained", "untrained 2", "untrained 3"] and woken == ()
    start = load(options(seed=0)).denoiser
    assert all(
        torch.equal(value, weights(start)[name]) for name, value in weights(controls["untrained"]).items()
    )
    drawn = [weights(one)["layers.0.weight"] for one in controls.values()]
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])


def test_the_controls_of_other_networks_have_other_seeds(mine: str) -> None:
    found = load(ModelOptions(model=f"{mine}:plain", data="mixture"))
    controls, _ = found.controls(2)
    drawn = [weights(one)["layers.0.weight"] for one in (found.denoiser, *controls.values())]
    assert len(drawn) == 3 and not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_function_that_loads_its_own_weights_has_no_control(call: Any, workspace: Path, mine: str) -> None:
    result = call("measure", "--model", f"{mine}:loaded", "--data", "mixture", *QUICKLY, "--out", "out")
    assert result.code == 0
    assert "no untrained control" in result.err
    assert Diagnosis.load("out").refs == {}


def test_as_many_controls_are_measured_as_are_wanted(call: Any, workspace: Path, trained: Path) -> None:
    assert call("measure", "--model", trained, *QUICKLY, "--controls", "2", "--out", "a").err == ""
    assert list(Diagnosis.load("a").refs) == ["untrained", "untrained 2"]
    result = call("measure", "--model", trained, *QUICKLY, "--controls", "0", "--out", "b")
    assert Diagnosis.load("b").refs == {} and result.err == ""
    assert "untrained" not in result.out


def test_a_control_at_its_zero_start_gets_random_weights_and_this_is_said(
    call: Any, workspace: Path, mine: str
) -> None:
    with (workspace / "my_nets.py").open("a") as module:
        module.write(
            "\n\ndef zero():\n    net = Net(2)\n    torch.nn.init.zeros_(net.layers[-1].weight)\n"
            "    torch.nn.init.zeros_(net.layers[-1].bias)\n    return net\n"
        )
    result = call("measure", "--model", f"{mine}:zero", "--data", "mixture", *QUICKLY, "--out", "out")
    assert "a last layer of zeros" in result.err
    found = Diagnosis.load("out")
    assert found.meta["network"]["zero_start"] != []
    assert found.refs["untrained"].meta["network"]["zero_start"] == []
    assert found.meta["controls_woken"] == found.meta["network"]["zero_start"]


def test_an_untrained_network_is_named_as_such(call: Any, workspace: Path) -> None:
    result = call("measure", "--model", "mlp", "--data", "mixture", *QUICKLY)
    assert "at its initialisation" in result.err


def test_float64_networks_and_buckets_by_density_are_measured(call: Any, workspace: Path, mine: str) -> None:
    with (workspace / "my_nets.py").open("a") as module:
        module.write("\n\ndef double():\n    return Bare(2).double()\n")
    result = call(
        "measure", "--model", f"{mine}:double", "--data", "mixture", "--schedule", "linear_beta",
        "--schedule-option", "steps=50", "--target", "eps", "--buckets", "density:3", "--samples", "8",
        "--probes", "1", "--json",
    )  # fmt: skip
    document = result.document
    assert result.code == 0
    assert document["meta"]["config"]["schedule"]["steps"] == 50
    assert document["meta"]["network"]["dtype"] == "float64"
    assert len(document["summary"]) == 3
