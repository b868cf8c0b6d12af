"""The study of prescribed spectra at a tiny size."""

from __future__ import annotations

import json

import numpy as np

from analysis.prescribed.run import HERE, covers, spectra, study
from ntkdiag.spectra import Interval

CONFIG = json.loads((HERE / "config.json").read_text())["tiny"]


def test_every_claim_is_tried_on_every_spectrum() -> None:
    table = study(CONFIG).set_index("claim")
    assert list(table.columns) == list(spectra(40))
    assert len(table) == 11
    assert table.map(lambda share: 0 <= share <= 1).all().all()
    exact = table.loc[[name for name in table.index if name.startswith("Lanczos")]]
    assert (exact == 1).all().all()
    assert (table[["rank 1", "zero"]] == 1).all().all()


def test_spectra_are_what_they_are_called() -> None:
    for name, eigenvalues in spectra(200).items():
        assert len(eigenvalues) == 200, name
        assert (np.diff(eigenvalues) <= 0).all(), name


def test_an_interval_covers_up_to_rounding_only() -> None:
    exact = Interval(2.0, 2.0, 2.0, 0.0, 0.9, "exact")
    assert covers(exact, 2.0 * (1 + 1e-12))
    assert not covers(exact, 2.001)
