"""The study of sketches at a tiny size, and what it reads off its times."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from analysis.sketch import agreement, cost, estimate, many, networks, resnet
from analysis.sketch.run import HERE
from ntkdiag.kernel import gram_of

CONFIG = json.loads((HERE / "config.json").read_text())["tiny"]


@pytest.mark.parametrize("name", networks.NAMES)
def test_each_network_has_a_layer_that_the_study_sketches(name: str) -> None:
    """At the study's own size k."""
    full = json.loads((HERE / "config.json").read_text())["full"]
    module, inputs = networks.build(name, 2)
    again, same = networks.build(name, 2)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(inputs, same, strict=True))
    cotangent = torch.ones(1, *module(*inputs).shape[1:], dtype=torch.float64)
    found = [
        gram_of(module, inputs, cotangent, engine="sketch", sketch=full["estimate"]["k"], seed=s)
        for s in (0, 1)
    ]
    assert not torch.allclose(*found)


def test_the_estimate_of_a_whole_gradient_has_no_error_but_that_of_probes() -> None:
    row = estimate.checked("tied", CONFIG["estimate"] | {"k": 500, "seeds": 4})
    assert row["relative_sd"] == pytest.approx(row["relative_sd_unsketched"], rel=0.5)
    rough = estimate.checked("tied", CONFIG["estimate"] | {"k": 2, "seeds": 4})
    assert rough["relative_sd"] > 2 * row["relative_sd"]
    assert 0 <= rough["coverage"] <= 1 and rough["mean_z2"] > 0


def test_costs_have_a_row_for_each_way() -> None:
    table = pd.DataFrame(cost.accuracies(CONFIG["step"])).set_index("way")
    assert list(table.index) == ["training step", "exact", "sketch, k=4", "sketch, k=8"]
    assert table.correlation_error["exact"] < 1e-6 < table.correlation_error["sketch, k=4"] < 1
    times = pd.DataFrame(cost.timings(CONFIG["growth"]))
    assert list(times[times.way == "sketch"].N) == CONFIG["growth"]["samples"]["sketch"]


def test_exponents_and_the_crossing_are_those_of_known_times() -> None:
    sizes = np.array([16.0, 32, 64, 128])
    exact = pd.DataFrame({"way": "exact", "N": sizes, "processor_seconds": sizes + sizes**2 / 100})
    sketch = pd.DataFrame({"way": "sketch", "N": sizes, "processor_seconds": 1.5 * sizes})
    times = pd.concat([exact, sketch], ignore_index=True)
    times["a_sample"] = times.processor_seconds / times.N
    found = pd.DataFrame(cost.fits(times)).set_index("way")
    assert found.exponent["sketch"] == pytest.approx(1)
    assert found.crossing_N["exact"] == pytest.approx(50)
    assert found.exponent["exact"] > 1.3


def test_ranks_of_the_digits_have_a_row_for_each_bucket_and_number() -> None:
    table = pd.DataFrame(many.ranks(CONFIG["many"]))
    assert list(table.N) == [4, 8, 12] * 2
    assert (table.effective_rank.between(1, table.N)).all()
    for _, curve in table.groupby("log_snr"):
        assert curve.effective_rank.is_monotonic_increasing


def test_a_sketch_gives_the_statistics_of_the_exact_kernel() -> None:
    table = pd.DataFrame(agreement.compared(CONFIG["agreement"])).set_index("statistic")
    assert list(table.index) == list(agreement.STATISTICS)
    assert (table.inside <= table.buckets).all() and (table.buckets[:5] == 2).all()
    assert table.difference["trace"] < 1


def test_agreement_by_hand() -> None:
    exact = pd.DataFrame({"a": [1.0, 2.0, 3.0], "a_low": [0.0, 1.0, np.nan], "a_high": [2.0, 5.0, 4.0]})
    other = pd.DataFrame({"a": [1.5, 7.0, 3.0], "a_low": [0.5, 6.0, 2.0], "a_high": [4.5, 14.0, 4.0]})
    found = agreement.row("a", exact, other)
    assert (found["buckets"], found["inside"]) == (2, 1)  # the third has no interval in one of the two
    assert found["difference"] == pytest.approx(2.5)
    assert found["width"] == pytest.approx(2)


def test_a_resnet_20_has_its_published_size() -> None:
    net = resnet.network(16, 3)
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 19
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(0.27e6, rel=0.01)
    assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_participation_is_that_of_the_exact_kernel_within_its_sketches() -> None:
    table = pd.DataFrame(resnet.participation(CONFIG["resnet"])).set_index(["batch_norm", "N"])
    assert (table.participation_ratio >= 1).all()
    assert (table.participation_ratio <= table.index.get_level_values("N")).all()
    whole = pd.DataFrame(resnet.participation(CONFIG["resnet"] | {"k": 500}))
    assert table.participation_ratio.to_numpy() == pytest.approx(
        whole.participation_ratio.to_numpy(), rel=0.3
    )
