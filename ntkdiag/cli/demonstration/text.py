"""What the demo prints: the verdicts, one table with a row a bucket, and the quality of the samples."""

from __future__ import annotations

from typing import Any

from ntkdiag.cli.output.tables import ranged, verdict_text
from ntkdiag.report.formatting import interval, level, number
from ntkdiag.report.tables import Table

_HEAD = ("log-SNR", "trace", "top eig.", "effective rank [90%]", "before", "PR", "amplitude", "GSNR", "weight",
         "loss const.", "loss ERD")  # fmt: skip


def demo_text(document: dict[str, Any]) -> str:
    """All of it.

    Args:
        document: What `demonstrate` returned.
    """
    plan = document["plan"]
    about = (
        f"A DiT of {document['parameters']:,} parameters that predicts v, trained twice for {plan['steps']:,} steps on "
        f"8×8 digits;\n{plan['buckets']} log-SNR buckets × {plan['samples']} samples, {plan['probes']} probes, "
        f"seed {document['seed']}, {document['seconds']:.0f} s in all."
    )
    return "\n\n".join(
        [
            about,
            "Claims about what training did to the kernel (constant weight, against the network before training):\n\n"
            + verdict_text(document["verdicts"]),
            Table(_HEAD, tuple(_row(row) for row in document["buckets"])).as_text(),
            "Kernel of the network trained with constant weight. 'before': effective rank before training. Losses are\n"
            "held out and unweighted; ↓ lower, ↑ higher than with constant weight (95% interval of the paired difference).",
            quality_text(document["quality"]),
        ]
    )


def quality_text(quality: list[dict[str, Any]]) -> str:
    """Energy distance of both runs and of real data, a line each."""
    rows = tuple((row["run"], interval(row["value"], row["low"], row["high"])) for row in quality)
    return Table(("samples of", "energy distance to held-out digits [95%], lower is better"), rows).as_text()


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    names = ("participation_ratio_pairs", "amplitude", "gsnr", "weight", "loss_constant")
    return (
        level(row["log_snr"]),
        number(row["trace"]),
        number(row["top_eigenvalue"]),
        ranged(row, "effective_rank"),
        number(row["effective_rank_untrained"]),
        *(number(row[name]) for name in names),
        f"{number(row['loss_erd'])} {_arrow(row)}",
    )


def _arrow(row: dict[str, Any]) -> str:
    if row["loss_change_high"] < 0:
        return "↓"
    return "↑" if row["loss_change_low"] > 0 else " "
