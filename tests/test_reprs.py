"""Results and data print as one short line, and show as a small escaped table in a notebook, whatever they contain."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest
import torch

import ntkdiag as nd
from ntkdiag.claims import ANSWER_COLUMNS, COLUMNS, Verification
from ntkdiag.kernel.gram import Gram

HOSTILE = "<script>alert(1)</script>"


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
    assert "<th>loss</th>" in diagnosis._repr_html_() and "<td>0.25</td>" in diagnosis._repr_html_()


def test_a_denoiser_prints_as_a_line() -> None:
    denoiser = nd.Denoiser(nd.models.build("mlp", (2,)), nd.schedules.cosine(), "v", call="log_snr")
    assert is_short(denoiser)
    assert re.match(r"Denoiser\(MLP, [\d,]+ parameters, predicts v on ", repr(denoiser))


@pytest.mark.parametrize(
    "schedule",
    [
        nd.schedules.cosine(),
        nd.schedules.linear_beta(),
        nd.schedules.flow(),
        nd.schedules.edm(),
        nd.schedules.linear_log_snr(),
        nd.schedules.from_table(torch.linspace(9, -9, 1000).tolist()),
    ],
    ids=lambda schedule: str(schedule.name),
)
def test_a_schedule_prints_as_a_line(schedule: object) -> None:
    assert is_short(schedule)


def test_buckets_and_operators_print_as_a_line() -> None:
    assert is_short(nd.Buckets.uniform(-10, 10, 200)) and "200" in repr(nd.Buckets.uniform(-10, 10, 200))
    assert repr(nd.Buckets([-4, 0, 2])) == "Buckets(edges=(-4, 0, 2))"
    denoiser = nd.Denoiser(nd.models.build("mlp", (2,)), nd.schedules.cosine(), "v", call="log_snr")
    assert is_short(nd.NTKOperator(denoiser, torch.zeros(3, 2), 0.0))


def verification(text: str) -> Verification:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, text) | {"statistic": "effective_rank", "end": "noisy"}
    claims = pd.DataFrame([row | {"word": "falls"}], columns=list(COLUMNS))
    table = pd.DataFrame([], columns=list(ANSWER_COLUMNS))
    empty = pd.DataFrame()
    diagnosis = nd.Diagnosis(empty, empty, empty, empty, {}, {})
    return Verification(text, claims, table, empty, empty, "method", text, diagnosis)


def test_a_verification_prints_as_its_answer() -> None:
    found = verification("The rank falls. " * 50)
    assert repr(found) == "Verification(effective rank: falls at the noisy end)"
    assert str(found) == "The rank falls. " * 50


def hostile_objects() -> dict[str, Any]:
    """One of each that a notebook shows, with a text from outside that is a script."""
    samples = torch.zeros(9, 2)
    network = nd.models.build("mlp", (2,))
    network.__class__ = type(HOSTILE, (type(network),), {})
    summary = pd.DataFrame({"log_snr": [0.0], "loss": [HOSTILE]})
    return {
        "data": nd.data.Data(HOSTILE, samples, description=HOSTILE),
        "denoiser": nd.Denoiser(network, nd.schedules.cosine(), "v"),
        "gram": Gram(torch.eye(2), None, None, HOSTILE, HOSTILE, {"a": HOSTILE}, 2, 3, torch.zeros(2)),
        "table": nd.WeightTable([0, 1], [1, 1], "v", name=HOSTILE),
        "diagnosis": nd.Diagnosis(summary, summary, summary, summary, {}, {}, refs={HOSTILE: None}),  # type: ignore[dict-item]
        "verification": verification(HOSTILE),
    }


@pytest.mark.parametrize("name", hostile_objects())
def test_a_notebook_shows_no_markup_of_others(name: str) -> None:
    shown = hostile_objects()[name]._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert set(re.findall(r"</?(\w+)", shown)) <= {"p", "table", "caption", "tr", "th", "td"}
    assert len(shown) < 4000


def test_a_long_weight_table_is_shown_in_part() -> None:
    table = nd.WeightTable(torch.arange(1000.0), torch.ones(1000), "v")
    assert is_short(table)
    shown = table._repr_html_()
    assert "one row in 42 is shown" in shown and shown.count("<tr>") <= 25
