"""Parameter selection: trainable ones by default, patterns otherwise, each parameter once."""

from __future__ import annotations

import pytest
from kernel_networks import Tied, perceptron
from torch import nn

from ntkdiag.errors import InputError
from ntkdiag.kernel.parameters import select_parameters

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_trainable_parameters_by_default() -> None:
    module = perceptron()
    assert list(select_parameters(module)) == NAMES
    module[0].weight.requires_grad_(False)
    assert list(select_parameters(module)) == NAMES[1:]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("*", NAMES),
        ("0.*", NAMES[:2]),
        ("*.bias", ["0.bias", "2.bias"]),
        (["2.bias", "0.weight"], ["0.weight", "2.bias"]),  # in the module's order
        (("0.*", "*.bias"), ["0.weight", "0.bias", "2.bias"]),
        (iter(["0.bias"]), ["0.bias"]),
        ("[02].bias", ["0.bias", "2.bias"]),
    ],
)
def test_patterns(patterns: str | list[str], chosen: list[str]) -> None:
    module = perceptron()
    found = select_parameters(module, patterns)
    assert list(found) == chosen
    assert all(found[name] is module.get_parameter(name) for name in chosen)


def test_a_frozen_parameter_may_be_named() -> None:
    module = perceptron()
    module[0].weight.requires_grad_(False)
    assert list(select_parameters(module, "0.*")) == NAMES[:2]


@pytest.mark.parametrize("pattern", ["decode.weight", "encode.weight", "*.weight"])
def test_a_tied_parameter_is_found_by_either_name_and_taken_once(pattern: str) -> None:
    assert list(select_parameters(Tied(), pattern)) == ["encode.weight"]


def test_what_selects_nothing_is_refused() -> None:
    module = perceptron()
    with pytest.raises(
        InputError,
        match=r"params: .*matching some of 4 names \(0\.weight, 0\.bias, 2\.weight, …\); got 'x\*'",
    ):
        select_parameters(module, ["0.*", "x*"])
    with pytest.raises(InputError, match="at least one name pattern; got an empty list"):
        select_parameters(module, [])
    with pytest.raises(InputError, match=r"4 parameters, none of which requires a gradient\. Name some"):
        select_parameters(module.requires_grad_(False))
    with pytest.raises(InputError, match="0 parameters"):
        select_parameters(nn.Tanh())
