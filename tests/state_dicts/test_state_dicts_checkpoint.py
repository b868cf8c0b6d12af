"""Checkpoints as people have them: which weights are found, which are preferred, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError
from ntkdiag.state_dicts import load_weights

State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.out = nn.Linear(2, 3)
        self.register_buffer("scale", torch.ones(1))


def state(value: float) -> State:
    """A state of the network in which every number is `value`."""
    return {name: torch.full_like(tensor, value) for name, tensor in Net().state_dict().items()}


def under(prefix: str, value: float) -> State:
    return {prefix + name: tensor for name, tensor in state(value).items()}


def taken(path: Path, content: Any, key: str | None = None) -> tuple[float, str, bool, tuple[str, ...]]:
    """The number in the weights that were loaded, their key, whether they are an average, and the other keys."""
    network = Net()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    found = load_weights(network, path, key)
    (value,) = {float(number) for tensor in network.state_dict().values() for number in tensor.flatten()}
    assert found.file == str(path)
    return value, found.key, found.ema, found.others


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (state(1), (1, ".", False, ())),
        (under("module.", 1), (1, "module", False, ())),
        (under("_orig_mod.", 1), (1, ".", False, ())),
        (under("module._orig_mod.", 1), (1, "module", False, ())),
        (under("_orig_mod.module.", 1), (1, "_orig_mod.module", False, ())),
        (under("model.", 1), (1, "model", False, ())),
        (under("model.diffusion_model.", 1) | {"betas": torch.ones(4)}, (1, "model.diffusion_model", False, ())),
        (under("module.", 1) | {"n_averaged": torch.ones(())}, (1, "module", False, ())),
        (state(1) | under("ema.", 2), (2, "ema", True, (".",))),
        (under("online_model.", 1) | under("ema_model.", 2), (2, "ema_model", True, ("online_model",))),
        (under("model.", 1) | under("average.", 2), (2, "average", True, ("model",))),
    ],
)  # fmt: skip
def test_weights_are_found_behind_prefixes(tmp_path: Path, name: str, content: State, wanted: Any) -> None:
    assert taken(tmp_path / name, content) == wanted


@pytest.mark.parametrize("key", ["state_dict", "model", "params", "network_of_mine"])
@pytest.mark.parametrize("average", ["ema", "model_ema", "ema_state_dict", "params_ema", "EMA", "ema_0.9999"])
def test_a_moving_average_is_preferred_to_what_is_averaged(tmp_path: Path, key: str, average: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    content = {"step": 7, key: state(1), average: under("module.", 2), "optimizer": optimizer}
    assert taken(tmp_path / "net.ckpt", content) == (2, f"{average}.module", True, (key,))
    assert taken(tmp_path / "net.ckpt", content, key) == (1, key, False, (f"{average}.module",))
    assert taken(tmp_path / "net.ckpt", content, average)[0] == 2
    del content[average]
    assert taken(tmp_path / "net.ckpt", content) == (1, key, False, ())


def test_the_checkpoint_of_ema_pytorch(tmp_path: Path) -> None:
    average = under("online_model.model.", 3) | under("ema_model.model.", 2) | {"initted": torch.ones(1)}
    content = {"model": under("model.", 1) | {"betas": torch.ones(9)}, "ema": average, "step": 5}
    value, key, ema, others = taken(tmp_path / "model-5.pt", content)
    assert (value, key, ema) == (2, "ema.ema_model.model", True)
    assert set(others) == {"model.model", "ema.online_model.model"}
    assert taken(tmp_path / "net.pt", content, "ema.online_model")[0] == 3
    assert taken(tmp_path / "net.pt", content, "model.model.")[0] == 1


def test_an_average_that_lost_its_dots_is_found(tmp_path: Path) -> None:
    flat = {f"model_ema.diffusion_model{name.replace('.', '')}": value for name, value in state(2).items()}
    content = {"state_dict": under("model.diffusion_model.", 1) | flat | {"model_ema.decay": torch.ones(())}}
    value, key, ema, others = taken(tmp_path / "sd.ckpt", content)
    assert (value, key, ema) == (2, "state_dict.model_ema.diffusion_model", True)
    assert others == ("state_dict.model.diffusion_model",)


def test_names_of_compiled_blocks_are_the_networks(tmp_path: Path) -> None:
    compiled = {name.replace("blocks.1.", "blocks.1._orig_mod."): value for name, value in state(1).items()}
    assert taken(tmp_path / "net.pt", compiled)[0] == 1
    network = nn.Sequential(nn.Linear(2, 2))
    plain = nn.Sequential(nn.Linear(2, 2))
    network[0] = torch.compile(network[0])  # never called, so nothing is compiled
    torch.save(plain.state_dict(), tmp_path / "net.pt")
    load_weights(network, tmp_path / "net.pt")
    assert torch.equal(next(network.parameters()), plain[0].weight)


def test_a_tied_weight_that_is_stored_once_is_enough(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        network = nn.ModuleDict({"first": nn.Linear(3, 3), "last": nn.Linear(3, 3)})
        network["last"].weight = network["first"].weight
        return network

    source, target = tied(), tied()
    stored = source.state_dict()
    del stored["last.weight"]
    torch.save(stored, tmp_path / "net.pt")
    load_weights(target, tmp_path / "net.pt")
    assert target["last"].weight is target["first"].weight
    assert torch.equal(target["last"].weight, source["first"].weight)


def test_one_state_under_two_names_is_one_state(tmp_path: Path) -> None:
    content = {"state_dict": state(1), "model": state(1)}
    assert taken(tmp_path / "net.pt", content) == (1, "state_dict", False, ("model",))


# Refusals


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """The one line with which a checkpoint is refused; the network must be as before."""

    def run(content: Any, key: str | None = None, name: str = "net.pt") -> str:
        network = Net()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        torch.save(content, tmp_path / name)
        with pytest.raises(InputError) as caught:
            load_weights(network, tmp_path / name, key)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def test_two_averages_and_two_others_ask_which(refused: Callable[..., str], tmp_path: Path) -> None:
    line = refused({"ema_0.99": state(1), "ema_0.999": state(2), "model": state(3)})
    assert "got 'ema_0.99', 'ema_0.999'. Choose one with weights_key=." in line
    line = refused({"generator": state(1), "teacher": state(2)})
    assert "got 'generator', 'teacher'" in line
    assert taken(tmp_path / "net.pt", {"generator": state(1), "teacher": state(2)}, "teacher")[0] == 2


def test_a_key_that_is_not_there_is_answered_with_those_that_are(refused: Callable[..., str]) -> None:
    line = refused({"ema": state(1), "model": state(2)}, "emma")
    assert "weights_key: expected a key of" in line and "'emma'" in line and "Did you mean 'ema'?" in line


def test_what_does_not_fit_is_explained(refused: Callable[..., str]) -> None:
    damaged = under("module.", 1)
    del damaged["module.out.bias"]
    line = refused({"ema": damaged, "step": 3})
    assert "('ema.module') for Net: expected its 7 tensors; got 1 missing (first: out.bias [3])" in line
    wide = state(1) | {"out.weight": torch.ones(3, 9)}
    assert "1 of another shape (first: out.weight [3, 9] instead of [3, 2])" in refused(wide)
    assert "1 unexpected (first: more [1])" in refused(state(1) | {"more": torch.ones(1)})
    assert "1 unexpected (first: head.weight" in refused(
        under("module.", 1) | {"module.head.weight": torch.ones(1)}
    )
    assert "7 missing (first: scale" in refused({"weights": {"conv.kernel": torch.ones(2)}})


def test_what_is_no_checkpoint_is_named(refused: Callable[..., str]) -> None:
    assert "expected a checkpoint of tensors by name; got Tensor" in refused(torch.ones(3))
    assert "got a dict of step, list" in refused({"step": 3, "list": [torch.ones(1)]})
    assert "got an empty dict" in refused({})


def test_nan_weights_are_refused(refused: Callable[..., str]) -> None:
    bad = state(1)
    bad["out.bias"][1] = float("nan")
    line = refused({"ema": bad, "model": state(2)})
    assert "a NaN or infinity in out.bias" in line


def test_a_nest_that_contains_itself_ends(refused: Callable[..., str]) -> None:
    content: dict[str, Any] = {"model": {"out.weight": torch.ones(3, 2)}}
    content["again"] = content
    for _ in range(40):
        content = {"deeper": content, "x": torch.ones(1)}
    assert "7 missing" in refused(content)


@pytest.mark.parametrize(
    "tensor", [torch.ones(3, device="meta"), torch.ones(3).to_sparse()], ids=["meta", "sparse"]
)
def test_tensors_without_plain_numbers_are_refused(refused: Callable[..., str], tensor: Tensor) -> None:
    assert "out.bias" in refused(state(1) | {"out.bias": tensor})


def test_a_tensor_that_pretends_to_be_large_is_refused_by_its_shape(refused: Callable[..., str]) -> None:
    assert "of another shape" in refused(state(1) | {"out.bias": torch.ones(1).expand(10**10)})


# Files and folders


def test_a_folder_with_one_checkpoint_is_enough(tmp_path: Path) -> None:
    safetensors.torch.save_file(state(1), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    network = Net()
    assert load_weights(network, tmp_path).file == str(tmp_path / "model.safetensors")
    torch.save(state(2), tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"one checkpoint in it; got model.safetensors, other.pt"):
        load_weights(network, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="got none in it"):
        load_weights(network, tmp_path / "empty")


def test_a_sharded_checkpoint_is_loaded_by_its_index_or_its_folder(tmp_path: Path) -> None:
    whole = under("model.", 1)
    parts = [dict(list(whole.items())[:3]), dict(list(whole.items())[3:])]
    files = {}
    for number, part in enumerate(parts, 1):
        name = f"m-{number}-of-2.safetensors"
        safetensors.torch.save_file(part, tmp_path / name)
        files |= dict.fromkeys(part, name)
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    for path in (tmp_path, tmp_path / "m.safetensors.index.json"):
        network = Net()
        assert load_weights(network, path).key == "model"
        assert all((value == 1).all() for value in network.state_dict().values())
