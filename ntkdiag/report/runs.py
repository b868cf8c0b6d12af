"""Training runs as the figures and tables read them: which table of a run is its history, which its loss per bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ntkdiag.errors import InputError
from ntkdiag.report.columns import ordered

if TYPE_CHECKING:
    import pandas as pd

Runs = Mapping[str, "pd.DataFrame | Mapping[str, pd.DataFrame]"]


def bucket_losses(runs: Runs) -> dict[str, pd.DataFrame]:
    """Of each run the table with a row a bucket (columns log_snr, loss, loss_low, loss_high).

    A run is one table or a mapping of tables; a table with a column `step` is a history, one with
    `log_snr` but no `step` holds losses per bucket.

    Raises:
        InputError: no run has one.
    """
    found = {name: _pick(tables, "log_snr", without="step") for name, tables in runs.items()}
    losses = {name: ordered(table) for name, table in found.items() if table is not None}
    if not losses:
        raise InputError("runs", expected="a table with columns log_snr and loss", got="none", fix=_FIX)
    return losses


def histories(runs: Runs) -> dict[str, pd.DataFrame]:
    """Of each run the table with a row a logged step (columns step, loss).

    Raises:
        InputError: no run has one.
    """
    found = {name: _pick(tables, "step") for name, tables in runs.items()}
    logs = {name: ordered(table, "step") for name, table in found.items() if table is not None}
    if not logs:
        raise InputError("runs", expected="a table with columns step and loss", got="none", fix=_FIX)
    return logs


_FIX = "Give runs={name: table} or {name: {'history': table, 'buckets': table}}."


def _pick(
    tables: pd.DataFrame | Mapping[str, pd.DataFrame], having: str, without: str = ""
) -> pd.DataFrame | None:
    several = tables.values() if isinstance(tables, Mapping) else [tables]
    return next(
        (t for t in several if having in t.columns and without not in t.columns and "loss" in t.columns), None
    )
