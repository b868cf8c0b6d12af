"""With --json stdout holds one document; a full disk is an error of one line."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from ntkdiag import provenance
from ntkdiag.cli import main

MODULE = """
print("imported")
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, level):
        print("called")
        return self.layer(torch.cat([x, level[:, None]], dim=1))


def build():
    return Net()
"""
MEASURE = ["--data", "mixture", "--buckets", "4", "--samples", "8", "--probes", "2", "--controls", "1"]


def test_a_model_that_prints_leaves_stdout_to_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "printing_model.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["--model", "printing_model:build", "--target", "v", "--schedule", "cosine"]
    assert main(["measure", *options, *MEASURE, "--json"]) == 0
    captured = capsys.readouterr()
    assert isinstance(json.loads(captured.out), dict)
    assert "imported" in captured.err
    assert "called" in captured.err


def test_a_full_disk_under_measure_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = provenance.write_bytes

    def full(path: Any, content: bytes) -> None:
        if str(path).endswith(".safetensors"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(provenance, "write_bytes", full)
    small = ["--model", "mlp", "--model-option", "width=8", "--model-option", "depth=1"]
    assert main(["measure", *small, *MEASURE, "--out", str(tmp_path / "run")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "No space left" in errors[0]
    assert not list(tmp_path.iterdir())
