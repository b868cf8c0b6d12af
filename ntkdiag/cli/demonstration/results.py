"""What the demo leaves: the files of its folder, the numbers of demo.json, and the text it prints of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.inputs.training_runs import LOSSES_FILE, loss_table
from ntkdiag.cli.output.json_document import plain
from ntkdiag.cli.output.tables import quality_text, ranged, table_width, wrapped
from ntkdiag.cli.output.verdicts import effects_text
from ntkdiag.progress import Progress
from ntkdiag.report.formatting import interval_or_dash, level, number
from ntkdiag.report.tables import Table

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.claims import Verification
    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.train import BucketValues, TrainResult
    from ntkdiag.weights import WeightTable

# Columns of the diagnosis that demo.json has for each bucket.
_MEASURED = ("log_snr", "trace", "top_eigenvalue", "effective_rank", "effective_rank_low", "effective_rank_high",
             "participation_ratio_pairs", "amplitude", "gsnr", "gsnr_low", "gsnr_high")  # fmt: skip
_HEAD = ("log-SNR", "trace", "effective rank [90%]", "before", "PR", "amplitude", "GSNR [90%]", "weight",
         "loss const.", "loss ERD")  # fmt: skip


@dataclass(frozen=True)
class DemoResults:
    """What the demo measured, before it is written.

    Attributes:
        diagnosis: The network trained with constant weights, beside the same network before training.
        table: The ERD weights.
        runs: The result of each training run.
        losses: Held-out losses of each run, on the same draws.
        samples: Real data and samples of each run, from the same noise; arrays.
        quality: run, metric, value, low, high.
        verdicts: The answer about the network trained with constant weights.
    """

    diagnosis: Diagnosis
    table: WeightTable
    runs: dict[str, TrainResult]
    losses: dict[str, BucketValues]
    samples: dict[str, Any]
    quality: pd.DataFrame
    verdicts: Verification


def write(folder: Path, results: DemoResults, progress: Progress) -> None:
    """Write all files but demo.json; the folders of the training runs are there already."""
    from ntkdiag import provenance
    from ntkdiag.report import save_figures, write_page
    from ntkdiag.weights import rule

    progress("figures and page", 0, 2)
    results.diagnosis.save(folder / "diagnosis")
    results.table.save(folder / "weights.csv")
    provenance.write_text(folder / "verdicts.csv", results.verdicts.claims.to_csv(index=False))
    runs = {}
    for name, run in results.runs.items():
        buckets = loss_table(results.losses[name])
        provenance.write_text(folder / name / LOSSES_FILE, buckets.to_csv(index=False))
        runs[name] = {"history": run.history, "buckets": buckets}
    parts: dict[str, Any] = {
        "tables": {"constant": rule("constant_v", results.table.target), "erd": results.table},
        "runs": runs,
        "samples": results.samples,
        "quality": results.quality,
    }
    save_figures(folder / "figures", results.diagnosis, **parts)
    progress("figures and page", 1, 2)
    write_page(folder / "page.html", results.diagnosis, verdicts=results.verdicts, **parts)
    progress("figures and page", 2, 2)


def document(results: DemoResults, plan: dict[str, Any], seed: int) -> dict[str, Any]:
    """All numbers, ready for JSON."""
    from ntkdiag import provenance

    return plain(
        {
            "format": 1,
            "seed": seed,
            "plan": plan,
            "environment": provenance.environment(),
            "parameters": results.diagnosis.meta["network"]["parameters"],
            "buckets": _bucket_rows(results),
            "verdicts": results.verdicts.document(),
            "quality": results.quality.to_dict("records"),
        }
    )


def _bucket_rows(results: DemoResults) -> list[dict[str, Any]]:
    """One row for each bucket: what was measured, the weight, and the losses of both runs."""
    import torch

    losses = {name: loss_table(values)["loss"] for name, values in results.losses.items()}
    paired = (results.losses["erd"] - results.losses["constant"]).table()
    before = results.diagnosis.refs["untrained"].summary
    rows = []
    for place, measured in enumerate(results.diagnosis.summary.to_dict("records")):
        row = {name: measured[name] for name in _MEASURED}
        row["effective_rank_untrained"] = before["effective_rank"].iloc[place]
        row["weight"] = float(results.table(torch.tensor(measured["log_snr"], dtype=torch.float64)))
        row |= {f"loss_{name}": values.iloc[place] for name, values in losses.items()}
        row |= {f"loss_change{end}": paired[column].iloc[place]
                for end, column in (("", "mean"), ("_low", "low"), ("_high", "high"))}  # fmt: skip
        rows.append(row)
    return rows


def demo_text(document: dict[str, Any]) -> str:
    """What the demo prints: the answer, a table with a row for each bucket, and the quality of the samples.

    Args:
        document: What `demonstrate` returned.
    """
    plan, answer = document["plan"], document["verdicts"]
    quality: dict[str, Any] = {}
    for row in document["quality"]:
        quality.setdefault(row["metric"], {})[row["run"]] = row
    return "\n\n".join(
        [
            wrapped(
                f"A DiT of {document['parameters']:,} parameters that predicts v, trained twice for {plan['steps']:,} steps "
                f"on 8×8 digits; {plan['buckets']} log-SNR buckets × {plan['samples']} samples, {plan['probes']} probes, "
                f"seed {document['seed']}, {document['seconds']:.0f} s in all."
            ),
            "What the kernel of the network trained with constant weight says:\n" + wrapped(answer["text"]),
            effects_text(answer["claims"], answer["method"]),
            Table(_HEAD, tuple(_row(row) for row in document["buckets"])).as_text(table_width()),
            wrapped(
                "The kernel is that of the network trained with constant weight; 'before' is its effective rank before "
                "that. Losses are held out and unweighted; ↓ lower, ↑ higher than with constant weight (95% interval of "
                "the paired difference). A lower energy distance is better."
            ),
            quality_text(quality),
        ]
    )


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        level(row["log_snr"]),
        number(row["trace"]),
        ranged(row, "effective_rank"),
        number(row["effective_rank_untrained"]),
        number(row["participation_ratio_pairs"]),
        number(row["amplitude"]),
        interval_or_dash(*(row[f"gsnr{end}"] for end in ("", "_low", "_high"))),
        number(row["weight"]),
        number(row["loss_constant"]),
        f"{number(row['loss_erd'])} {_arrow(row)}",
    )


def _arrow(row: dict[str, Any]) -> str:
    if row["loss_change_high"] < 0:
        return "↓"
    return "↑" if row["loss_change_low"] > 0 else " "
