"""Results as text for a terminal: aligned columns, and one line for each bucket."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ntkdiag.report.formatting import interval, level, number
from ntkdiag.report.inputs import full_kernel_of
from ntkdiag.report.tables import Table, class_table, full_table, summary_table

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.claims import ByClass
    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.weights import WeightTable

# Columns of running text.
WIDTH = 80
# A weight table with more rows than this is shown at whole log-SNRs.
_MOST_ROWS = 24


def summary_text(diagnosis: Diagnosis) -> str:
    """What was measured, then one line for each bucket, and where its numbers need a remark."""
    parts = [about(diagnosis), summary_table(diagnosis).as_text(table_width()), remark_text(diagnosis)]
    return "\n\n".join(filter(None, parts))


def remark_text(diagnosis: Diagnosis) -> str:
    """Where the kernel is zero and where the network was never trained, in sentences; empty if nowhere."""
    from ntkdiag.report.columns import ordered
    from ntkdiag.report.page.summary_sentences import levels_never_trained

    said = filter(None, (levels_never_trained(ordered(diagnosis.summary)), zero_text(diagnosis)))
    return "\n".join(map(wrapped, said))


def zero_text(diagnosis: Diagnosis) -> str:
    """Where the kernel is zero, in a sentence; empty if it is zero nowhere."""
    from ntkdiag.report.page.summary_sentences import kernels_of_zero

    return kernels_of_zero(diagnosis.summary)


def about(diagnosis: Diagnosis) -> str:
    """One line: the network, the data, and the sizes of the measurement."""
    meta = diagnosis.meta
    config, network = meta["config"], meta["network"]
    return wrapped(
        f"{network['class']}, {network['parameters']:,} parameters, predicts {config['target']} on "
        f"{config['schedule']['name']}; {meta['data']['name']}; {len(diagnosis.summary)} buckets × "
        f"{config['samples']} samples, {config['probes']} probes, {meta['engine']} engine, {meta['seconds']:.1f} s"
    )


def full_text(diagnosis: Diagnosis) -> str:
    """The full kernel: its cost, one line for each bucket, and what did not converge."""
    config, summary = diagnosis.meta["config"], full_kernel_of(diagnosis).summary
    rows = config["samples"] * diagnosis.meta["network"]["outputs"]
    lines = [
        wrapped(
            f"Full kernel, {rows:,} × {rows:,} a bucket and never formed: top {config['full']['top_k']} eigenfunctions, "
            f"{summary['products'].sum():,} products, {diagnosis.meta['full_seconds']:.1f} s"
        ),
        "",
        full_table(diagnosis).as_text(table_width()),
        "",
        wrapped(
            f"target, residual in {config['full']['top_k']}: share of their energy in the eigenfunctions found."
        ),
    ]
    unfinished = [level(row["log_snr"]) for row in summary.to_dict("records") if not row["converged"]]
    if unfinished:
        lines += [
            "",
            f"Eigenpairs that did not converge: at log-SNR {', '.join(unfinished)}; see their residuals.",
        ]
    return "\n".join(lines)


def class_text(found: ByClass) -> str:
    """The effective rank of each class over log-SNR, which class is the first to lose it, and which share a kernel."""
    used = int(found.classes["samples"].max())
    parts = [
        f"By class, on {used} samples of each: effective rank at each log-SNR",
        class_table(found).as_text(table_width()),
        wrapped(" ".join(filter(None, (found.first, _closest(found))))),
    ]
    return "\n\n".join(filter(None, parts))


def _closest(found: ByClass) -> str:
    """Which two classes share most of their kernel in the middle of the range, and which least."""
    between = found.between
    levels = sorted(between["log_snr"].unique())
    middle = levels[len(levels) // 2]
    rows = between[(between["log_snr"] == middle) & (between["label_a"] < between["label_b"])].dropna()
    if len(rows) < 2:
        return ""
    most, least = rows.loc[rows["kernel"].idxmax()], rows.loc[rows["kernel"].idxmin()]
    return (
        f"At log-SNR {level(middle)} classes {most['label_a']:.0f} and {most['label_b']:.0f} share most of their kernel "
        f"({number(most['kernel'])} of that within), {least['label_a']:.0f} and {least['label_b']:.0f} least "
        f"({number(least['kernel'])})."
    )


def wrapped(text: str) -> str:
    """Running text in lines of `WIDTH` columns, paragraph by paragraph."""
    return "\n\n".join(textwrap.fill(part, WIDTH) for part in text.split("\n\n"))


def text_width() -> int:
    """Width of running text: that of the terminal, and at most 100 columns; 80 where there is no terminal."""
    return min(shutil.get_terminal_size((80, 24)).columns, 100)


def table_width() -> int:
    """Width of tables: that of the terminal, and at least 80 columns."""
    return max(80, shutil.get_terminal_size((80, 24)).columns)


def weight_text(table: WeightTable) -> str:
    """Weights over log-SNR; a long table is shown at the whole numbers from -10 to 10 within its range."""
    import torch

    levels = table.log_snr
    if len(levels) > _MOST_ROWS:
        whole = torch.arange(-10, 11, dtype=torch.float64)
        reached = whole[(whole >= levels[0]) & (whole <= levels[-1])]
        levels = reached if len(reached) > 1 else levels[:: len(levels) // _MOST_ROWS]
    rows = [
        (level(at), number(weight))
        for at, weight in zip(levels.tolist(), table(levels).tolist(), strict=True)
    ]
    return f"{table.name}, on {table.target}\n\n" + Table(("log-SNR", "weight"), tuple(rows)).as_text(
        table_width()
    )


def loss_text(losses: pd.DataFrame) -> str:
    """Held-out loss with its interval, one line for each bucket."""
    rows = [(level(row["log_snr"]), ranged(row, "loss")) for row in losses.to_dict("records")]
    return Table(("log-SNR", "held-out loss [95%]"), tuple(rows)).as_text(table_width())


def quality_text(quality: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A row for each set of samples, real data among them, with a column for each metric.

    Args:
        quality: Metric → name of the samples → value, low, high; every metric has the same names.
    """
    if not quality:
        return "Quality is not computed for fewer than 3 samples."
    rows = []
    for name in next(iter(quality.values())):
        scores = [metric[name] for metric in quality.values()]
        rows.append((name, *(interval(score["value"], score["low"], score["high"]) for score in scores)))
    return Table(("", *(f"{metric} [95%]" for metric in quality)), tuple(rows)).as_text(table_width())


def ranged(row: Mapping[Any, Any], name: str) -> str:
    """The value of a column with its interval."""
    return interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
