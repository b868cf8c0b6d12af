"""Results and data print as one short line, whatever they contain."""

from __future__ import annotations

import pandas as pd
import torch

import ntkdiag as nd
from ntkdiag.kernel.gram import Gram


def is_short(value: object) -> bool:
    return len(repr(value)) < 200 and "\n" not in repr(value)


def test_data_print_as_a_line() -> None:
    samples = torch.zeros(100, 8, 8)
    data = nd.data.Data("zeros", train=samples, held_out=samples[:10])
    assert is_short(data)
    assert "train=100" in repr(data)


def test_a_gram_prints_as_a_line() -> None:
    names = {f"layer{index}.weight": "hook" for index in range(300)}
    gram = Gram(torch.eye(50), None, None, "trace", "autograd", names, 2, 300, torch.zeros(50))
    assert is_short(gram)
    assert "shape=(50, 50)" in repr(gram)


def test_a_diagnosis_prints_as_a_line_and_as_its_summary_in_a_notebook() -> None:
    table = pd.DataFrame({"bucket": range(500), "loss": 0.25})
    diagnosis = nd.Diagnosis(
        table, table, table, table, {"trace": torch.zeros(500, 2, 2)}, {"note": "x" * 9999}
    )
    assert is_short(diagnosis)
    assert "buckets=500" in repr(diagnosis)
    assert "<th>loss</th>" in diagnosis._repr_html_()
