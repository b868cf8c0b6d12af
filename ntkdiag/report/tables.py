"""Tables of text: one row a bucket, or one row a training run.

The cells of a `Table` are formatted text; a terminal aligns them, the page escapes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.columns import column, extrapolated, ordered
from ntkdiag.report.figures.weights import normalised, schedule_of, weight_grid
from ntkdiag.report.formatting import MISSING, interval, interval_or_dash, level, number, one_line
from ntkdiag.report.inputs import full_kernel_of, require_measured
from ntkdiag.report.runs import Runs, bucket_losses

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.claims import ByClass
    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.trust import Examination


@dataclass(frozen=True)
class Table:
    """Headings and rows of text, a cell a heading.

    Example:
        >>> table = nd.report.Table(("log-SNR", "trace"), (("−2", "5.1"),))
        >>> table.rows[0]
        ('−2', '5.1')
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_text(self, width: int | None = None) -> str:
        """Columns flush right, two spaces apart, with a rule below the headings.

        Args:
            width: Characters in a line. A wider table is cut into parts, one below the other, each with the first column;
                None leaves it whole.
        """
        lines = [self.columns, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        parts = [[0]]
        for place in range(1, len(widths)):
            full = width is not None and sum(widths[one] + 2 for one in parts[-1]) + widths[place] > width
            if full and len(parts[-1]) > 1:
                parts.append([0])
            parts[-1].append(place)
        return "\n\n".join(_aligned(lines, widths, part) for part in parts)


def _aligned(lines: Sequence[tuple[str, ...]], widths: Sequence[int], places: Sequence[int]) -> str:
    """Some columns as text."""
    aligned = ["  ".join(line[place].rjust(widths[place]) for place in places) for line in lines]
    return "\n".join([aligned[0], "─" * len(aligned[0]), *aligned[1:]])


def summary_table(
    diagnosis: Diagnosis,
    tables: Mapping[str, Callable[[Any], Any]] | None = None,
    runs: Runs | None = None,
) -> Table:
    """One row a bucket, noisiest first.

    Args:
        diagnosis: What was measured.
        tables: Name → weight; adds a column each, at mean 1 over the range measured.
        runs: Training runs; adds the loss per bucket of each. Without them, the loss of the diagnosis itself is shown.

    Returns:
        log-SNR (with an asterisk where the schedule never trains), trace, top eigenvalue, effective rank [interval], of
        the untrained control if there is one, participation ratio from pairs, amplitude, Bayes share, gradient SNR
        [interval], weights, losses.

    Example:
        >>> table = nd.report.summary_table(diagnosis)
        >>> table.columns[0], len(table.rows)
        ('log-SNR', 4)
    """
    require_measured(diagnosis)
    summary = ordered(diagnosis.summary)
    log_snr = column(summary, "log_snr")
    cells: dict[str, list[str]] = {"log-SNR": _levels(summary, log_snr)}
    cells["trace"] = _numbers(summary, "trace")
    cells["top eigenvalue"] = _numbers(summary, "top_eigenvalue")
    cells["effective rank [90%]"] = _intervals(summary, "effective_rank")
    if "untrained" in diagnosis.refs:
        cells["untrained"] = _matched(log_snr, diagnosis.refs["untrained"].summary, "effective_rank")
    cells["PR"] = _numbers(summary, "participation_ratio_pairs")
    cells["amplitude"] = _numbers(summary, "amplitude")
    # Without a known posterior there is no excess, and the share is a bound.
    exact = np.isfinite(column(summary, "excess")).any()
    cells["Bayes share" if exact else "Bayes share ≥"] = _numbers(summary, "bayes_share")
    cells["GSNR [90%]"] = _intervals(summary, "gsnr", interval_or_dash)
    grid, schedule = weight_grid(diagnosis), schedule_of(diagnosis)
    for name, weight in (tables or {}).items():
        values = normalised(weight, log_snr, grid, schedule)
        cells[f"weight {one_line(name, 16)}"] = [number(value) for value in values]
    cells |= _losses(summary, log_snr, runs)
    return Table(tuple(cells), tuple(zip(*cells.values(), strict=True)))


def class_table(found: ByClass) -> Table:
    """One row a class, one column a noise level: effective rank within the class; a dash where it has too few samples."""
    ranks = found.classes.pivot(index="label", columns="log_snr", values="effective_rank").sort_index()
    used = found.classes.groupby("label")["available"].first()
    rows = [
        (str(label), str(used[label]), *(MISSING if np.isnan(value) else number(value) for value in row))
        for label, row in zip(ranks.index, ranks.to_numpy(dtype=float), strict=True)
    ]
    return Table(("class", "samples", *(level(float(one)) for one in ranks.columns.to_numpy())), tuple(rows))


def full_table(diagnosis: Diagnosis) -> Table:
    """One row a bucket of the full kernel, noisiest first.

    Args:
        diagnosis: With a full kernel.

    Returns:
        log-SNR, trace [interval], top eigenvalue, effective rank [interval], of the untrained control if there is one,
        participation ratio [interval], and the shares of target and residual in the eigenfunctions found.

    Raises:
        InputError: there is no full kernel.
    """
    full = full_kernel_of(diagnosis)
    summary = ordered(full.summary)
    log_snr = column(summary, "log_snr")
    caught = full.spectra.groupby("bucket")[["target_alignment", "residual_alignment"]].sum(min_count=1)
    caught = caught.reindex(summary["bucket"])
    count = full.eigenfunctions.shape[1]
    cells = {"log-SNR": _levels(diagnosis.summary, log_snr), "trace [90%]": _intervals(summary, "trace")}
    cells["top eigenvalue"] = _numbers(summary, "top_eigenvalue")
    cells["effective rank [90%]"] = _intervals(summary, "effective_rank")
    control = diagnosis.refs.get("untrained")
    if control is not None and control.full is not None:
        cells["untrained"] = _matched(log_snr, control.full.summary, "effective_rank")
    cells["PR [90%]"] = _intervals(summary, "participation_ratio")
    cells[f"target in {count}"] = _numbers(caught, "target_alignment")
    cells[f"residual in {count}"] = _numbers(caught, "residual_alignment")
    return Table(tuple(cells), tuple(zip(*cells.values(), strict=True)))


def quality_table(quality: pd.DataFrame) -> Table:
    """One row a run, one column a metric, each number with its interval."""
    records = quality.to_dict("records")
    metrics = list(dict.fromkeys(str(row["metric"]) for row in records))
    found = {
        (str(row["run"]), str(row["metric"])): interval(row.get("value"), row.get("low"), row.get("high"))
        for row in records
    }
    runs = dict.fromkeys(run for run, _ in found)
    rows = tuple((run, *(found.get((run, metric), MISSING) for metric in metrics)) for run in runs)
    return Table(("run", *metrics), rows)


def text(value: Any) -> str:
    """A cell of words: empty for None and for NaN, as which an empty cell of a CSV file is read."""
    return "" if value is None or value != value else str(value)


def _levels(summary: pd.DataFrame, log_snr: np.ndarray) -> list[str]:
    """Log-SNRs as text, with an asterisk where the summary says that the schedule never trains."""
    beyond = column(summary, "log_snr")[extrapolated(summary)]
    return [level(value) + ("*" if np.isclose(value, beyond).any() else "") for value in log_snr]


def _numbers(frame: pd.DataFrame, name: str) -> list[str]:
    return [number(value) for value in column(frame, name)]


def _intervals(frame: pd.DataFrame, name: str, form: Callable[[Any, Any, Any], str] = interval) -> list[str]:
    parts = (column(frame, name + end) for end in ("", "_low", "_high"))
    return [form(*row) for row in zip(*parts, strict=True)]


def _matched(log_snr: np.ndarray, frame: pd.DataFrame, name: str) -> list[str]:
    """A column of another table at the log-SNRs of this one; "–" where that table has no such bucket."""
    near = np.isclose(log_snr[:, None], column(frame, "log_snr")[None, :])
    values = column(frame, name)
    return [number(values[row.argmax()]) if row.any() else MISSING for row in near]


def _losses(summary: pd.DataFrame, log_snr: np.ndarray, runs: Runs | None) -> dict[str, list[str]]:
    try:
        losses = bucket_losses(runs or {})
    except InputError:
        return {"loss": _numbers(summary, "loss")}
    return {f"loss {one_line(name, 16)}": _matched(log_snr, table, "loss") for name, table in losses.items()}


def linearity_table(found: Examination) -> Table:
    """How long the kernel describes training, one row a noise level."""
    rows = ordered(found.tables["linearity"]).fillna("").to_dict("records")
    columns = ("log-SNR", "error of 1 step", "good up to (of a step)", "good steps", "better kernel")
    return Table(
        columns,
        tuple(
            (
                level(row["log_snr"]),
                number(row["error"]),
                f"{row['largest_fraction']:g}",
                f"{int(row['good_steps'])}",
                str(row["kernel"]) or MISSING,
            )
            for row in rows
        ),
    )


def drift_table(found: Examination) -> Table:
    """The kernel at each measured step, one row a step and noise level."""
    rows = found.tables["drift"].sort_values(["step", "log_snr"]).to_dict("records")
    columns = ("step", "log-SNR", "alignment", "top space", "trace", "rank", "centred rank", "shared share")
    names = ("alignment", "top_overlap", "trace", "effective_rank", "centred_effective_rank", "shared_share")
    return Table(
        columns,
        tuple(
            (f"{int(row['step']):,}", level(row["log_snr"]), *(number(row[name]) for name in names))
            for row in rows
        ),
    )
