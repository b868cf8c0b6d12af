"""Checks of the columns of a weight table, and interpolation between its grid points."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ntkdiag.errors import InputError

MINIMUM_ROWS = 2
# Training draws one time in a few hundred beyond the rows of a table, so three in one call are a mistake (tuned here).
_NO_ACCIDENT = 3


def check_columns(what: str, columns: dict[str, Tensor]) -> None:
    """Refuse columns that no weight table can have.

    Args:
        what: Whose columns they are, for the message.
        columns: "log_snr", "weight" and, both or neither, "low" and "high".

    Raises:
        InputError: naming the first row (counted from 1) that is wrong.
    """
    rows = len(columns["log_snr"])
    if rows < MINIMUM_ROWS:
        raise InputError(what, expected=f"at least {MINIMUM_ROWS} rows", got=rows)
    if ("low" in columns) != ("high" in columns):
        raise InputError(what, expected="both of low and high, or neither", got="one of them")
    for name, column in columns.items():
        if column.shape != (rows,):
            raise InputError(
                f"{what}, {name}", expected=f"{rows} values, as log_snr has", got=tuple(column.shape)
            )
        _refuse_where(what, name, column, ~torch.isfinite(column), "a finite number")
        if name != "log_snr":
            _refuse_where(what, name, column, column < 0, "a number ≥ 0")
    grid = columns["log_snr"]
    falls = torch.cat([grid.new_zeros(1, dtype=torch.bool), grid[1:] <= grid[:-1]])
    _refuse_where(what, "log_snr", grid, falls, "a larger log-SNR than in the row before")
    if "low" in columns:
        crossed = columns["low"] > columns["high"]
        _refuse_where(what, "low", columns["low"], crossed, "low to be at most high")
    if not (columns["weight"] > 0).any():
        raise InputError(f"{what}, weight", expected="at least one positive weight", got="zero in every row")


def check_rule(what: str, expected: Tensor, weight: Tensor) -> None:
    """Refuse weights that are not those of the rule stored with them.

    Args:
        what: Whose weights they are.
        expected: The rule on the grid [n].
        weight: The column [n].

    Raises:
        InputError: naming the first row that differs by more than 1e-9 of its value, which rounding on
            another machine does not reach.
    """
    for row in torch.nonzero((weight - expected).abs() > 1e-9 * expected.abs()).flatten().tolist():
        raise InputError(
            f"{what}, row {row + 1}, weight",
            expected=f"{expected[row].item()!r}, which the table's rule gives",
            got=f"{weight[row].item()!r}, so the table was edited by hand",
            fix="Remove the rule to use the numbers as they are, or make the table anew.",
        )


def check_within(what: str, grid: Tensor, log_snr: Tensor) -> None:
    """Refuse, or warn of, log-SNR none of which lies where a table has rows, as of times in another unit.

    A row reaches half the distance to its neighbour, at the ends outwards too, as buckets do.

    Args:
        what: Whose rows they are.
        grid: Increasing log-SNR of the rows [n].
        log_snr: Where the table is about to be read, any shape.

    Raises:
        InputError: none of three or more values lies there. One or two are answered with a warning.
    """
    low = (grid[0] - (grid[1] - grid[0]) / 2).item()
    high = (grid[-1] + (grid[-1] - grid[-2]) / 2).item()
    if log_snr.numel() == 0 or ((log_snr >= low) & (log_snr <= high)).any():
        return
    found = f"log-SNR {log_snr.min():.4g} to {log_snr.max():.4g}"
    if log_snr.numel() >= _NO_ACCIDENT:
        raise InputError(
            f"timesteps for {what}",
            expected=f"times within its rows, log-SNR {low:.4g} to {high:.4g}",
            got=f"{found} and no time within",
            fix="Give times as the scheduler counts them. At other log-SNR table(log_snr) answers with the nearest row.",
        )
    warnings.warn(
        f"timesteps at {found} lie beyond the rows of {what}, log-SNR {low:.4g} to {high:.4g}: the nearest weight is used",
        stacklevel=3,
    )


class Interpolation:
    """Piecewise linear ln w, constant beyond the ends; linear w between two rows one of which is zero.

    What does not depend on where it is read is computed once: a trainer reads weights at every step.

    Args:
        grid: Increasing log-SNR [n].
        weight: Weights [n].
    """

    def __init__(self, grid: Tensor, weight: Tensor) -> None:
        start, end = weight[:-1], weight[1:]
        positive = (start > 0) & (end > 0)
        # 1 in place of 0 keeps ln finite where it is not taken
        ratio = torch.where(positive, end, 1.0).log() - torch.where(positive, start, 1.0).log()
        self._ends = float(grid[0]), float(grid[-1])
        self._inner = grid[1:-1].contiguous()
        self._positive = positive
        self._all_positive = bool(positive.all())
        self._rows = torch.stack([grid[:-1], grid[1:] - grid[:-1], start, end, ratio])

    def __call__(self, log_snr: Tensor) -> Tensor:
        """Weights of the shape of `log_snr`, which holds no NaN; at a grid point exactly its own."""
        device = log_snr.device
        level = log_snr.clamp(*self._ends)
        row = torch.searchsorted(self._inner.to(device), level.contiguous(), right=True)
        place, width, start, end, ratio = self._rows.to(device)[:, row]
        share = (level - place) / width
        between = start * torch.exp(share * ratio)
        if not self._all_positive:
            straight = start + share * (end - start)
            between = torch.where(self._positive.to(device)[row], between, straight)
        return torch.where(share >= 1, end, between)


def _refuse_where(what: str, name: str, column: Tensor, bad: Tensor, expected: str) -> None:
    for row in torch.nonzero(bad).flatten().tolist():
        raise InputError(f"{what}, row {row + 1}, {name}", expected=expected, got=repr(column[row].item()))
