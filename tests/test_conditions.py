"""Conditions: they stay with their samples, and what does not fit is refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ntkdiag as nd
from ntkdiag.conditions import (
    checked_conditions,
    described,
    extremes,
    placed,
    repeated,
    replaced,
    shared,
    varies,
)
from ntkdiag.data import as_data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process.paired_draws import PairedDraws

# Every sample is its own number, and so are its conditions.
NUMBERS = torch.arange(40.0)[:, None]
COND = {"label": torch.arange(40), "text": torch.arange(40.0)[:, None, None].expand(-1, 3, 2)}


def belongs(samples: Tensor, cond: Any) -> bool:
    numbers = samples[:, 0]
    text = bool((cond["text"] == numbers[:, None, None]).all())
    return torch.equal(cond["label"], numbers.long()) and text


# --- tensors by name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 2], "cond: expected a mapping of names to tensors"),
        ({3: torch.zeros(2)}, "cond: expected names such as label or text; got 3"),
        ({"a b": torch.zeros(2)}, "expected names such as label or text; got 'a b'"),
        ({"a": torch.zeros(3)}, r"cond, 'a': expected 2 rows, one for each sample; got shape \[3\]"),
        ({"a": 7}, r"cond, 'a': expected 2 rows, one for each sample; got shape \[\]"),
        ({"a": ["x", "y"]}, "cond, 'a': expected numbers or booleans; got list of <U1"),
        ({"a": [[1], [2, 3]]}, "cond, 'a': expected numbers or booleans"),
        ({"a": np.array([object(), None])}, "expected numbers or booleans; got ndarray of object"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "expected a plain tensor of real numbers"),
        (
            {"a": torch.tensor([[0.0], [float("nan")]])},
            "expected finite numbers; got a NaN or infinity in row 1",
        ),
        ({"a": torch.tensor([float("inf"), 0.0])}, "got a NaN or infinity in row 0"),
    ],
)
def test_what_is_no_condition_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        checked_conditions("cond", given, 2)


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "uint32", "int8", "int32", "int64", ">i4", "bool", ">f8", "f2"]
)
def test_arrays_of_any_kind_become_tensors_of_the_same_numbers(dtype: str) -> None:
    array = np.array([[1, 0], [0, 1], [1, 1]], dtype=dtype)
    found = checked_conditions("cond", {"a": array}, 3)["a"]
    assert found.tolist() == array.tolist()
    assert found.is_floating_point() == (array.dtype.kind == "f")


def test_only_numbers_with_a_point_follow_the_network() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    given = {"label": torch.arange(3), "mask": torch.ones(3).bool(), "text": torch.ones(3, 2).half()}
    found = placed(given, like)
    assert [each.dtype for each in found.values()] == [torch.int64, torch.bool, torch.float64]


def test_helpers_row_by_row() -> None:
    some = {"a": torch.tensor([1, 2]), "b": torch.tensor([[1.0], [2.0]])}
    assert repeated(some, 2)["a"].tolist() == [1, 2, 1, 2]
    assert repeated(some, 2)["b"].tolist() == [[1.0], [2.0], [1.0], [2.0]]
    other = shared("null", {"a": 9, "b": torch.tensor([7.0])}, 1)
    found = replaced(some, other, torch.tensor([False, True]))
    assert found["a"].tolist() == [1, 9] and found["b"].tolist() == [[1.0], [7.0]]
    assert varies(some) and not varies(shared("x", {"a": 9}, 5)) and not varies({})
    assert extremes({"a": torch.tensor([3, 9, 1, 4]), "b": torch.ones(4)}).tolist() == [0, 1, 2]
    notes = described({**some, "c": torch.full((4,), 7)})
    assert "shared" not in notes["a"] and notes["c"]["shared"] == 7 and notes["b"]["shape"] == [1]


# --- data and draws


def test_a_split_takes_conditions_along() -> None:
    data = as_data(NUMBERS, cond=COND, held_out=0.3, seed=2)
    assert data.held_out is not None
    assert belongs(data.train, data.conditions) and belongs(data.held_out, data.held_out_conditions)
    assert len(data.held_out) == 12


def test_draws_take_conditions_along_and_are_the_same_without() -> None:
    data = as_data(NUMBERS, cond=COND)
    draws = PairedDraws.draw(data.train, 10, seed=4, cond=data.conditions)
    assert belongs(draws.x0, draws.cond)
    plain = PairedDraws.draw(data.train, 10, seed=4)
    assert torch.equal(plain.x0, draws.x0) and torch.equal(plain.epsilon, draws.epsilon) and not plain.cond
    assert draws.rows is not None and torch.equal(data.train[draws.rows], draws.x0)


def test_labels_are_a_condition_unless_one_has_that_name() -> None:
    labels = torch.arange(40) % 3
    data = as_data(NUMBERS, labels=labels)
    assert torch.equal(data.conditions["label"], labels)
    null = data.at_condition(label=3)
    assert torch.equal(null.conditions["label"], torch.full((40,), 3))
    assert null.labels is not None and torch.equal(null.labels, labels)
    assert null.digest == data.digest


@pytest.mark.parametrize("given", ["tensor", "npy"])
def test_files_of_labels_and_conditions(given: str, tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", NUMBERS.numpy())
    np.save(tmp_path / "label.npy", COND["label"].numpy().astype("uint16"))
    np.save(tmp_path / "text.npy", COND["text"].numpy())
    text: Any = COND["text"] if given == "tensor" else str(tmp_path / "text.npy")
    data = as_data(tmp_path / "x.npy", labels=tmp_path / "label.npy", cond={"text": text})
    assert data.held_out is not None and len(data.held_out) == 8
    assert belongs(data.train, data.conditions) and belongs(data.held_out, data.held_out_conditions)


def test_damaged_files_of_conditions_are_refused_in_a_line(tmp_path: Any) -> None:
    (tmp_path / "bad.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (10**9,)}"
    )
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    for name in ("bad.npy", "objects.npy", "missing.npy"):
        with pytest.raises(InputError, match=rf"{name}: expected a whole \.npy file without Python objects"):
            as_data(NUMBERS, cond={"text": tmp_path / name})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cond": {"a": torch.zeros(3)}}, r"conditions of training samples of 'x', 'a': expected 4 rows"),
        (
            {"held_out_cond": {}},
            r"expected 'text' as in training, torch.float32 \[2\] for each sample; got none",
        ),
        ({"held_out_cond": {"text": torch.zeros(3, 5)}}, r"got torch.float32 \[5\] for each sample"),
        ({"cond": {}}, r"expected 'text' as in training, none; got torch.float32 \[2\]"),
        ({"held_out": None}, r"conditions of held-out samples of 'x', 'text': expected 0 rows"),
    ],
)
def test_data_whose_conditions_do_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    fitting = {
        "train": torch.zeros(4, 2), "held_out": torch.zeros(3, 2), "cond": {"text": torch.zeros(4, 2)},
        "held_out_cond": {"text": torch.zeros(3, 2)},
    }  # fmt: skip
    nd.data.Data("x", **fitting)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        nd.data.Data("x", **{**fitting, **change})


def test_conditions_beside_a_test_part_need_the_parts_themselves() -> None:
    parts = {"train": NUMBERS.numpy(), "x_test": NUMBERS.numpy()}
    with pytest.raises(InputError, match="cond: expected none beside data with a test part"):
        as_data({"x_train": parts["train"], "x_test": parts["x_test"]}, cond=COND)


# --- what the network is called with


class Recorder(nn.Module):
    def __init__(self, **own: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: dict[str, Any] = {}
        for name, value in own.items():
            setattr(self, name, value)

    def forward(self, x: Tensor, time: Tensor, *rest: Tensor, **named: Tensor) -> Tensor:
        self.seen = named
        return self.weight * x


@pytest.mark.parametrize("call", ["time", "log_snr"])
def test_conditions_go_to_arguments_of_their_own(call: str) -> None:
    network = Recorder()
    denoiser = Denoiser(
        network, nd.schedules.cosine(), "v", call=call, conditions={"label": "y", "text": "context"}
    )
    cond = {"text": torch.zeros(3, 5), "label": torch.arange(3)}
    denoiser(torch.zeros(3, 2), 0.0, cond)
    assert sorted(network.seen) == ["context", "y"] and torch.equal(network.seen["y"], cond["label"])
    denoiser(torch.zeros(3, 2), 0.0, cond["label"], cond["text"])  # in the order of `conditions`
    assert torch.equal(network.seen["y"], cond["label"]) and torch.equal(
        network.seen["context"], cond["text"]
    )
    denoiser(torch.zeros(3, 2), 0.0)
    assert network.seen == {}
    with pytest.raises(InputError, match="conditions: expected 2: label, text; got 1"):
        denoiser(torch.zeros(3, 2), 0.0, cond["label"])


def test_a_network_may_say_what_it_takes() -> None:
    network = Recorder(conditions=("y",), null_conditions={"y": 4})
    denoiser = Denoiser(network, nd.schedules.cosine(), "v")
    assert denoiser.conditions == {"y": "y"} and denoiser.null == {"y": 4}
    given = Denoiser(network, nd.schedules.cosine(), "v", conditions={"label": "y"}, null={"label": 5})
    assert given.conditions == {"label": "y"} and given.null_conditions(2)["label"].tolist() == [5, 5]
    for other in (nn.Linear(2, 2), "text", 3, {"a": 1}):  # an attribute that means something else
        assert Denoiser(Recorder(conditions=other), nd.schedules.cosine(), "v").conditions == {}


@pytest.mark.parametrize("bad", ["label", {"label": 3}, {"a b": "y"}, [3], 7])
def test_names_of_conditions_must_be_words(bad: Any) -> None:
    with pytest.raises(InputError, match="conditions: expected names and arguments of the network"):
        Denoiser(Recorder(), nd.schedules.cosine(), "v", conditions=bad)
    with pytest.raises(InputError, match="null: expected values of no condition by name"):
        Denoiser(Recorder(), nd.schedules.cosine(), "v", null={"label": 3})


def test_labels_may_be_left_over_and_nothing_else() -> None:
    plain = Denoiser(Recorder(), nd.schedules.cosine(), "v")
    assert plain.conditions_from({"label": torch.arange(2)}) == {}
    with pytest.raises(
        InputError, match=r"expected none, since the network takes none; got text. .*conditions="
    ):
        plain.conditions_from({"text": torch.zeros(2, 3)})
    with pytest.raises(InputError, match="conditions of the network: expected label; got none"):
        Denoiser(Recorder(), nd.schedules.cosine(), "v", conditions=["label"]).conditions_from({})


def test_nothing_stands_for_no_condition_unless_it_is_said() -> None:
    denoiser = Denoiser(Recorder(), nd.schedules.cosine(), "v", conditions=["text"])
    with pytest.raises(InputError, match=r"null condition: expected what stands for no text .* null=\{"):
        denoiser.null_conditions(3)


def test_reference_networks_take_no_label_as_one_of_their_labels() -> None:
    denoiser = Denoiser(nd.models.build("mlp", (2,), classes=3), nd.schedules.cosine(), "v", call="log_snr")
    x = torch.ones(4, 2)
    assert torch.equal(denoiser(x, 0.0), denoiser(x, 0.0, denoiser.null_conditions(4)))
    assert not torch.equal(denoiser(x, 0.0), denoiser(x, 0.0, {"label": torch.zeros(4).long()}))


def test_a_network_from_elsewhere_has_labels_or_its_own_default() -> None:
    """DiT's null label is its default: data without labels is measured there, and data with labels under them."""
    seen: list[Tensor] = []

    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            seen.append(y)
            return self.weight * x

    denoiser = Denoiser.from_dit(Foreign(), nd.schedules.linear_beta(), null_label=4)
    x = torch.zeros(12, 1, 4, 4)
    assert denoiser.conditions == {"label": "y"} and denoiser.null == {"label": 4}
    nd.measure(denoiser, x, [-3, 0, 3], samples=4, probes=1, engine="autograd")
    assert all(bool((each == 4).all()) for each in seen)
    seen.clear()
    nd.measure(
        denoiser,
        nd.data.as_data(x, labels=torch.arange(12) % 3),
        [-3, 0, 3],
        samples=4,
        probes=1,
        engine="autograd",
    )
    assert seen and all(bool((each < 3).all()) for each in seen)


def test_a_network_without_classes_gets_no_labels_whatever_its_signature() -> None:
    """diffusers' UNet2DModel has an argument class_labels, and refuses it unless its config has classes."""
    diffusers = pytest.importorskip("diffusers")
    sizes = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8,),
        "norm_num_groups": 4,
    }
    sizes |= {"layers_per_block": 1, "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    scheduler = diffusers.DDPMScheduler()
    plain = Denoiser.from_diffusers(diffusers.UNet2DModel(**sizes), scheduler)
    classes = Denoiser.from_diffusers(diffusers.UNet2DModel(**sizes, num_class_embeds=10), scheduler)
    assert plain.conditions == {} and classes.conditions == {"label": "class_labels"}
    for denoiser in (plain, classes):
        nd.measure(denoiser, nd.data.load("digits"), [-3, 0, 3], samples=4, probes=1)
