"""Networks from elsewhere: adapters equal hand-written calls, right statements fit, wrong ones are caught."""

from __future__ import annotations

from functools import partial

import pytest

from analysis import command_line
from analysis.foreign import families as read
from analysis.foreign import networks, run, shift


def test_adapters_are_right_and_wrong_statements_are_caught() -> None:
    table = run.study(command_line.settings(run.HERE, "tiny"))
    assert table["fits"].all() and (table["caught"] == 5).all()
    assert (table["kernel_difference"] < 1e-10).all()


def test_a_shift_is_seen_where_it_is_in_the_function() -> None:
    row = shift.of_density(1.0, 3.0, seed=0)
    assert row["error, true"] == row["error, stated"] and row["kernel_difference"] == 0
    assert shift.of_time(3.0, seed=0)["caught"]


def test_every_kernel_is_that_of_the_hand_written_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained or not."""
    monkeypatch.setattr(read, "trained", partial(networks.trained, steps=0))
    for name, family in read.families().items():
        if name in ("score_sde", "SiT", "GaussianDiffusion", "U-ViT", "k-diffusion"):
            assert run.kernel_difference(family) < 1e-10, name
