"""The figures of an examined run: steps across and noise levels up, controls beside features."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ntkdiag.errors import InputError
from ntkdiag.report.figures import trust


def test_steps_run_across_and_noise_levels_up(cases: SimpleNamespace) -> None:
    axes = Figure().add_subplot()
    trust.draw_drift(axes, cases.trust(), "effective rank")
    (image,) = axes.images
    assert image.origin == "lower"
    # 9 − step/40 − bucket
    assert np.asarray(image.get_array()).tolist() == [[9, 6.5, 4], [8, 5.5, 3], [7, 4.5, 2]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "100", "200"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["−6", "0", "6"]


def test_a_line_for_each_number_of_steps(cases: SimpleNamespace) -> None:
    axes = Figure().add_subplot()
    trust.draw_linear_error(axes, cases.trust())
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines[:3]]
    assert [line.tolist() for line in drawn] == [[0.02] * 3, [0.04] * 3, [0.08] * 3]
    assert axes.get_yscale() == "log"


def test_features_stand_beside_their_controls(cases: SimpleNamespace) -> None:
    found = cases.trust()
    axes = Figure().add_subplot()
    trust.draw_feature_rank(axes, found, "blocks.0")
    assert len(axes.lines) == 3
    many = found.tables["features"]
    rows = [many.assign(module=f"blocks.{k}")[many["network"] == "trained"] for k in range(28)]
    found.tables["features"] = pd.concat(rows)
    panels = trust._feature_panels(found)
    assert len(panels) == 9 and panels[0] == "blocks.0" and panels[-1] == "blocks.27"


def test_what_was_not_measured_is_not_drawn(cases: SimpleNamespace) -> None:
    found = cases.trust()
    del found.tables["drift"], found.tables["outputs"]
    with pytest.raises(InputError, match="an examination that has it"):
        trust._drift_panels(found)
    with pytest.raises(InputError, match="an examination that has it"):
        trust.draw_output_rank(Figure().add_subplot(), found)
