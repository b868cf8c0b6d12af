"""Results by class: planted classes are found, ranks are of equal numbers of samples, and too few samples give a dash."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from claims_cases import levels, simulate

import ntkdiag as nd
from ntkdiag.claims import ByClass, by_class
from ntkdiag.errors import InputError
from ntkdiag.report.figures import FIGURES
from ntkdiag.report.tables import class_table
from ntkdiag.spectra import effective_rank


def planted(counts: tuple[int, ...] = (20, 12, 16), buckets: int = 6) -> nd.Diagnosis:
    """Features of class c lie in a block of their own; at the noisy end class 1 has one direction alone."""
    samples, width = sum(counts), 12
    diagnosis = simulate(log_snr=levels(buckets), samples=samples)
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    phi = np.zeros((buckets, samples, width * len(counts)))
    for sample, label in enumerate(labels):
        block = slice(width * label, width * (label + 1))
        phi[:, sample, block] = rng.standard_normal(width)
        phi[:, sample, block.start] += 2.0
        if label == 1:
            phi[: buckets // 3, sample, block.start + 1 : block.stop] *= 0.05
    phi[:, labels == 2, 0] += 2.0  # which class 0 has too
    diagnosis.grams["trace"] = torch.from_numpy(phi @ phi.swapaxes(1, 2))
    diagnosis.grams.pop("per_probe", None)
    diagnosis.grams["labels"] = torch.from_numpy(labels)
    return diagnosis


def test_within_a_class_numbers_are_those_of_its_first_samples() -> None:
    diagnosis = planted()
    found = by_class(diagnosis).classes
    labels = diagnosis.grams["labels"].numpy()
    assert found.groupby("label")["available"].first().to_dict() == {0: 20, 1: 12, 2: 16}
    assert (found["samples"] == 12).all()
    for row in found.to_dict("records"):
        bucket = diagnosis.summary["log_snr"].tolist().index(row["log_snr"])
        used = np.flatnonzero(labels == row["label"])[:12]
        own = diagnosis.grams["trace"][bucket].numpy()[np.ix_(used, used)]
        assert row["effective_rank"] == pytest.approx(effective_rank(own))
        assert row["trace"] == pytest.approx(np.diagonal(own).mean())
        assert row["effective_rank_low"] < row["effective_rank"] < row["effective_rank_high"]


def test_the_class_that_loses_its_rank_is_named_and_no_other_falls() -> None:
    found = by_class(planted())
    rank = found.ends[(found.ends["statistic"] == "effective_rank") & (found.ends["end"] == "noisy")]
    assert rank.set_index("label")["word"].to_dict()[1] == "falls"
    assert (
        found.first.startswith("Class 1 loses most of its rank towards noise, ×")
        and "overlap" not in found.first
    )
    flat = planted()
    flat.grams["trace"][:] = flat.grams["trace"][-1]
    assert by_class(flat).first == ""


def test_classes_that_share_a_direction_share_a_kernel() -> None:
    found = by_class(planted()).between
    shared = found.groupby(["label_a", "label_b"])["kernel"].mean()
    assert shared[0, 0] == pytest.approx(1) and shared[1, 1] == pytest.approx(1)
    assert shared[0, 2] == shared[2, 0] > 0.3
    assert abs(shared[0, 1]) < 0.1
    assert len(found) == 6 * 9


def test_a_class_with_too_few_samples_has_a_dash_and_no_influence_on_others() -> None:
    diagnosis = planted((20, 12, 3))
    found = by_class(diagnosis)
    few = found.classes[found.classes["label"] == 2]
    assert (few["samples"] == 0).all() and few["effective_rank"].isna().all()
    assert (found.classes.loc[found.classes["label"] < 2, "samples"] == 12).all()
    table = class_table(found)
    assert table.rows[2][:3] == ("2", "3", "–") and len(table.columns) == 8
    alone = by_class(planted((20, 12, 1))).between
    own = alone[(alone["label_a"] == 2) & (alone["label_b"] == 2)]["kernel"]
    assert own.isna().all()


def test_below_8_samples_a_class_there_are_no_ends_and_no_figure() -> None:
    found = by_class(planted((7, 6, 5)))
    assert found.ends.empty and found.first == "" and repr(found) == "ByClass(classes=3, samples=5)"
    assert math.isfinite(found.classes["effective_rank"].iloc[0])
    assert "<table" in found._repr_html_()


def test_what_is_missing_is_said() -> None:
    diagnosis = planted((2, 3, 3))
    with pytest.raises(
        InputError,
        match=r"at least 4 of some class; got 8 samples of 3 classes\. Measure again with samples=48",
    ):
        by_class(diagnosis)
    del diagnosis.grams["labels"]
    with pytest.raises(InputError, match="expected data with a class label for each sample; got none"):
        by_class(diagnosis)
    with pytest.raises(InputError, match=r"expected a Diagnosis, as nd\.measure returns it; got int"):
        by_class(3)  # type: ignore[arg-type]


def test_the_figure_has_a_panel_for_ranks_and_maps() -> None:
    from matplotlib.figure import Figure

    found = by_class(planted())
    drawn = FIGURES["by_class"]
    panels = drawn.panel_names(found)
    assert len(panels) == 5
    for panel in panels:
        axes = Figure().subplots()
        drawn.draw(axes, found, panel)
        assert axes.get_xlabel() and axes.get_ylabel()
    axes = Figure().subplots()
    drawn.draw(axes, found, panels[0])
    assert len(axes.get_lines()) >= 3


def test_a_measurement_keeps_the_labels_and_reads_them_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    data = nd.data.load("digits").at_condition(label=10)
    network = nd.models.build("dit", data.shape, width=16, depth=1, heads=2, classes=10)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr", conditions={"label": "cond"})
    diagnosis = nd.measure(denoiser, data, 3, samples=90, probes=3)
    labels = diagnosis.grams["labels"]
    assert labels.shape == (90,) and set(labels.tolist()) == set(
        range(10)
    )  # their own, not the one they were measured at
    diagnosis.save(tmp_path / "measured")
    again = by_class(nd.Diagnosis.load(tmp_path / "measured"))
    assert isinstance(again, ByClass)
    assert again.classes.equals(by_class(diagnosis).classes)
