"""Columns of the tables of a diagnosis, for figures and tables that must cope with missing values.

A column that is absent reads as NaN, buckets are sorted by log-SNR, and a figure without a finite value raises an
`InputError` instead of drawing empty axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def ordered(frame: pd.DataFrame, by: str = "log_snr") -> pd.DataFrame:
    """The frame sorted by log-SNR (or another column).

    Raises:
        InputError: the column is missing.
    """
    if by not in frame.columns:
        raise InputError("table to draw", expected=f"a column '{by}'", got=", ".join(map(str, frame.columns)))
    return frame.sort_values(by, kind="stable").reset_index(drop=True)


def column(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as float64 [rows]; all NaN if the frame has no such column."""
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def extrapolated(frame: pd.DataFrame) -> np.ndarray:
    """Whether each bucket lies where the schedule never trains, bool [rows]; a summary that does not say has none."""
    if "extrapolated" not in frame.columns:
        return np.zeros(len(frame), dtype=bool)
    return frame["extrapolated"].to_numpy(dtype=bool)


def require_finite(what: str, *columns: np.ndarray, fix: str | None = None) -> None:
    """Refuse to draw when no row has a finite value in every one of `columns`.

    Raises:
        InputError: naming the figure.
    """
    finite = np.isfinite(np.column_stack(columns)).all(axis=1) if columns else np.zeros(0)
    if not finite.any():
        raise InputError(f"figure '{what}'", expected="at least one finite value", got="none", fix=fix)


def positive(values: np.ndarray) -> np.ndarray:
    """Values for a logarithmic axis: those not above zero become NaN."""
    return np.where(values > 0, values, np.nan)


def cell_edges(summary: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Finite low and high log-SNR of every bucket [B], [B], for heat maps.

    An open or missing edge is put as far from the centre as the other edge is, or 0.5 away.
    """
    centre = column(summary, "log_snr")
    low, high = column(summary, "log_snr_low"), column(summary, "log_snr_high")
    below, above = centre - low, high - centre
    half = np.where(np.isfinite(below), below, np.where(np.isfinite(above), above, 0.5))
    other = np.where(np.isfinite(above), above, half)
    return centre - half, centre + other
