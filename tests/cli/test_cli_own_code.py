"""An error in the user's own code is one line and exit code 2, at whatever moment; --debug adds its traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_cases import QUICKLY, snapshot

from ntkdiag.cli import main

MODULE = '''
import torch
from torch import nn

if False:
    raise RuntimeError


class Net(nn.Module):
    """Fails once it gets more than two samples, so only after the checks of the input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, time):
        if x.shape[0] > 2:
            raise KeyError("deep\\ninside")
        return self.layer(x)


class Library(Net):
    """Fails in a module of a library."""

    def forward(self, x, time):
        return nn.Linear(3, 2)(x)


class NotANumber(Net):
    def forward(self, x, time):
        return self.layer(x) * float("nan")


def late():
    return Net()


def library():
    return Library()


def nan():
    return NotANumber()


def broken():
    raise ValueError("no weights here")


def weight(snr):
    raise ZeroDivisionError("of mine")
'''
MEASURE = ["measure", "--data", "mixture", "--target", "v", "--schedule", "cosine", *QUICKLY]
# Function → what stands in the line, and in the traceback.
NETWORKS = {
    "late": ("KeyError: 'deep", "in forward"),
    "library": ("mat1 and mat2 shapes cannot be multiplied", "return nn.Linear(3, 2)(x)"),
    "broken": ("ValueError: no weights here", 'raise ValueError("no weights here")'),
}


@pytest.fixture(autouse=True)
def own_code(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (workspace / "own_code.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(workspace))
    yield
    sys.modules.pop("own_code", None)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_raises_is_one_line(name: str, workspace: Path, capsys: Any) -> None:
    words, _ = NETWORKS[name]
    before = snapshot(workspace)
    assert main([*MEASURE, "--model", f"own_code.py:{name}", "--out", "diag"]) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if not line.startswith("note:")]
    assert line.startswith("error: ") and words in line and line.endswith("--debug shows where.")
    assert captured.out == "" and snapshot(workspace) == before


@pytest.mark.parametrize("name", NETWORKS)
def test_debug_shows_the_traceback_of_the_users_code(name: str, capsys: Any) -> None:
    words, code = NETWORKS[name]
    assert main([*MEASURE, "--model", f"own_code.py:{name}", "--debug", "--json"]) == 2
    captured = capsys.readouterr()
    assert "own_code.py" in captured.err and code in captured.err and "Traceback" in captured.err
    last = captured.err.splitlines()[-1]
    assert last.startswith("error: ") and words in last and "--debug" not in last
    assert captured.out == ""


def test_a_weight_function_that_raises_is_one_line(capsys: Any) -> None:
    assert main(["audit", "own_code:weight", "--target", "epsilon"]) == 2
    error = capsys.readouterr().err
    assert "ZeroDivisionError: of mine" in error and error.count("\n") == 1
    assert main(["audit", "own_code:weight", "--target", "epsilon", "--debug"]) == 2
    assert 'raise ZeroDivisionError("of mine")' in capsys.readouterr().err


def test_a_network_of_nan_is_one_line(workspace: Path, capsys: Any) -> None:
    assert main([*MEASURE, "--model", "own_code.py:nan", "--out", "diag"]) in (1, 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "finite" in error
    assert not (workspace / "diag").exists()


def test_a_fault_of_this_package_is_no_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntkdiag.report.tables.ordered", json.loads)
    with pytest.raises(TypeError, match="the JSON object must be"):
        main([*MEASURE, "--model", "mlp"])


def test_without_an_error_debug_changes_nothing(capsys: Any) -> None:
    assert main(["audit", "own_code:weight", "--target", "nothing", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main(["weights", "--rule", "erd", "--target", "v", "--out", "erd.csv", "--debug"]) == 0
    assert capsys.readouterr().err == ""
