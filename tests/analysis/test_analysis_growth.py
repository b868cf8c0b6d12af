"""The growth study at a tiny size, and its fits."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis.growth.run import HERE, exponents, points

CONFIG = json.loads((HERE / "config.json").read_text())["tiny"]


def test_every_point_of_every_sweep_is_timed() -> None:
    table = pd.DataFrame(points(CONFIG))
    kernel = table[table.way == "kernel"]
    assert len(kernel) == sum(len(values) for values in CONFIG["sweeps"].values())
    assert list(kernel[kernel.axis == "T"]["size"]) == [1, 4]
    assert list(kernel[kernel.axis == "N"]["size"]) == CONFIG["sweeps"]["samples"]
    assert (kernel[kernel.axis == "P by width"]["size"] == kernel[kernel.axis == "P by width"].P).all()
    assert "torch.func" not in set(table[table.axis == "R"].way)


def test_exponents_are_read_off_all_points_and_the_largest() -> None:
    sizes = np.array([1, 2, 4, 8, 16])
    seconds = np.where(sizes < 4, 4.0, sizes.astype(float))
    times = pd.DataFrame({"axis": "N", "way": "kernel", "size": sizes[::-1], "seconds": seconds[::-1]})
    fits = exponents(times).set_index("points")
    assert fits.exponent["three largest"] == pytest.approx(1)
    assert fits["from"]["three largest"] == 4
    assert 0 < fits.exponent["all"] < 1
