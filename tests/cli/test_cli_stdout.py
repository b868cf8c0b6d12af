"""With --json stdout holds one document and nothing else, whatever a model prints, and by whatever way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_cases import QUICKLY, TINY

from ntkdiag.cli import main
from ntkdiag.cli.app import COMMANDS
from ntkdiag.cli.output.json_document import print_json, stdout_for_document
from ntkdiag.weights import rule

# Prints by Python, by the file descriptor, by C with a buffer of its own, and by a child process.
MODULE = """
import ctypes, os, subprocess, sys

def shout(what):
    print("python", what)
    sys.__stdout__.write(f"original {what}\\n")
    os.write(1, f"descriptor {what}\\n".encode())
    ctypes.CDLL(None).printf(f"buffer {what}\\n".encode())
    subprocess.run(["echo", f"child {what}"])

shout("imported")
import torch
from torch import nn


class Net(nn.Module):
    loud = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, level):
        if Net.loud:
            shout("called")
        Net.loud = False
        return self.layer(torch.cat([x, level[:, None]], dim=1))


def build():
    return Net()


def weight(snr):
    shout("called")
    return snr.clamp(max=5) / snr
"""
WAYS = ("python", "original", "descriptor", "buffer", "child")
OWN = ["--model", "loud_model:build", "--data", "mixture", "--target", "v", "--schedule", "cosine"]
SHORT = ["--steps", "4", "--batch", "8"]
# Command → arguments, {trained} and {measured} filled in. Every command has one; those that run a user's code, loud code.
DOCUMENTS = {
    "demo": ["demo", "--quick", "--out", "demo"],
    "measure": ["measure", *OWN, *QUICKLY, "--out", "diag"],
    "weights": ["weights", "--from", "{measured}", "--score", "amplitude", "--out", "w.csv"],
    "audit": ["audit", "loud_model:weight", "--target", "epsilon", "--rule", "min_snr"],
    "verify": ["verify", *OWN, *QUICKLY],
    "train": ["train", *OWN, *SHORT, "--out", "run"],
    "sample": ["sample", *OWN, "--count", "4", "--steps", "2", "--out", "s.npy"],
    "plot": ["plot", "{measured}"],
    "report": ["report", "{measured}", "--out", "page.html"],
    "drift": ["drift", "{kept}", "--level", "quick", "--buckets", "3"],
}


@pytest.fixture
def loud(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (workspace / "loud_model.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(workspace))
    yield
    sys.modules.pop("loud_model", None)


def test_every_command_that_has_json_is_tried() -> None:
    assert sorted(DOCUMENTS) == sorted(function.__name__ for function in COMMANDS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_stdout_holds_one_document_alone(
    name: str,
    loud: None,
    trained: Path,
    measured: Path,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    monkeypatch.setattr("ntkdiag.report.page.page.build_page", lambda inputs: "page")
    monkeypatch.setattr("ntkdiag.report.save_figures", lambda *arguments, **parts: {})
    arguments = [
        argument.format(trained=trained, measured=measured, kept=kept) for argument in DOCUMENTS[name]
    ]
    capfd.readouterr()
    assert main([*arguments, "--json"]) in (0, 1)
    captured = capfd.readouterr()
    assert isinstance(json.loads(captured.out), dict)
    if any("loud_model" in argument for argument in arguments):
        for way in WAYS:
            if way != "original":  # which is not this test's
                assert f"{way} called" in captured.err, way


def test_in_a_process_of_its_own(loud: None, workspace: Path) -> None:
    code = "import sys; from ntkdiag.cli import main; sys.exit(main())"
    arguments = [sys.executable, "-c", code, "audit", "loud_model:weight", "--target", "epsilon", "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(workspace), *sys.path])}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    for way in WAYS:
        for moment in ("imported", "called"):
            assert f"{way} {moment}\n" in done.stderr, (way, moment)


def test_without_json_a_model_may_print(loud: None, capfd: Any) -> None:
    assert main(["audit", "loud_model:weight", "--target", "epsilon"]) == 0
    assert "descriptor called" in capfd.readouterr().out


def test_stdout_is_what_it_was_afterwards_also_where_the_block_fails(capfd: Any) -> None:
    before = sys.stdout
    for failure in (None, RuntimeError):
        try:
            with stdout_for_document():
                print_json({"a": 1})
                if failure is not None:
                    raise failure
        except RuntimeError:
            pass
        assert sys.stdout is before
        os.write(1, b"after\n")
        assert capfd.readouterr().out == '{\n  "a": 1\n}\nafter\n'


def test_a_process_without_stderr_prints_its_document(tmp_path: Path) -> None:
    rule("erd", "v").save(tmp_path / "table.csv")
    code = "import sys; from ntkdiag.cli import main; sys.exit(main())"
    line = f'"{sys.executable}" -c "{code}" audit table.csv --json 2>&-'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["ok"] is True


def test_training_prints_no_document_but_its_own(loud: None, capfd: Any) -> None:
    assert main(["train", *TINY, *SHORT, "--out", "run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["written"] == "run"
