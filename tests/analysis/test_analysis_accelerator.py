"""The accelerator study on the CPU at a tiny size: that the script is ready, not what a card does."""

from __future__ import annotations

import json
import sys

import pandas as pd
import pytest
import torch
from torch import nn

from analysis.accelerator.run import HERE, Meter, cross_bucket, main, operations, precision_table, tf32
from analysis.ways import Case

CONFIG = json.loads((HERE / "config.json").read_text())["tiny"]
METER = Meter(torch.device("cpu"))


def test_accuracy_stands_beside_time() -> None:
    table = pd.DataFrame(precision_table(CONFIG, METER)).set_index(["precision", "way"])
    error = table.relative_error
    assert error["float32", "kernel"] < 1e-5
    assert 1e-4 < error["bfloat16", "kernel"] < 0.1
    assert pd.isna(error["TF32", "training step"])
    assert (table.warm_seconds > 0).all()


def test_one_kernel_over_all_buckets() -> None:
    table = pd.DataFrame(cross_bucket(CONFIG, METER))
    assert list(table.precision) == ["float32", "TF32", "bfloat16"]
    assert (table.samples == 6).all()
    share = table.operations / table.seconds / table.matrix_rate
    assert table.share_of_matrix_rate.to_numpy() == pytest.approx(share.to_numpy())


def test_operations_of_one_layer_by_hand() -> None:
    case = Case(nn.Linear(4, 3), (torch.randn(2, 4),), torch.ones(1, 3))
    forward = weight_gradient = 2 * 4 * 3
    assert operations(case, 5) == 5 * (forward + weight_gradient) + 2 * 25 * 15


def test_tf32_is_put_back_after_an_error() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), tf32(not before):
        assert torch.backends.cuda.matmul.allow_tf32 is not before
        raise KeyError
    assert torch.backends.cuda.matmul.allow_tf32 is before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run"])
    with pytest.raises(SystemExit, match="--device cpu --size tiny"):
        main()
