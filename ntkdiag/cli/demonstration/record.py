"""What the demo leaves: the files of its folder, and demo.json, which holds its numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ntkdiag.cli.demonstration.plan import Outcome, Plan
from ntkdiag.cli.inputs.training_runs import LOSSES_FILE, loss_table
from ntkdiag.cli.output.json_document import plain
from ntkdiag.cli.output.progress import Progress

# Of a bucket, from the diagnosis.
_MEASURED = ("log_snr", "trace", "top_eigenvalue", "effective_rank", "effective_rank_low", "effective_rank_high",
             "participation_ratio_pairs", "amplitude", "gsnr")  # fmt: skip


def write(folder: Path, outcome: Outcome, bars: Progress) -> None:
    """All files but demo.json; the runs' folders are there already."""
    from ntkdiag import provenance
    from ntkdiag.report import save_figures, write_page
    from ntkdiag.weights import rule

    bars("figures and page", 0, 2)
    outcome.diagnosis.save(folder / "diagnosis")
    outcome.table.save(folder / "weights.csv")
    provenance.write_text(folder / "verdicts.csv", outcome.verdicts.to_csv(index=False))
    runs = {}
    for name, result in outcome.results.items():
        buckets = loss_table(outcome.losses[name])
        provenance.write_text(folder / name / LOSSES_FILE, buckets.to_csv(index=False))
        runs[name] = {"history": result.history, "buckets": buckets}
    parts: dict[str, Any] = {
        "tables": {"constant": rule("constant_v", outcome.table.target), "erd": outcome.table},
        "runs": runs,
        "samples": outcome.samples,
        "quality": outcome.quality,
    }
    save_figures(folder / "figures", outcome.diagnosis, **parts)
    bars("figures and page", 1, 2)
    write_page(folder / "page.html", outcome.diagnosis, verdicts=outcome.verdicts, **parts)
    bars("figures and page", 2, 2)


def document(outcome: Outcome, plan: Plan, seed: int) -> dict[str, Any]:
    """All numbers, ready for JSON."""
    from ntkdiag import provenance

    return plain(
        {
            "format": 1,
            "seed": seed,
            "plan": asdict(plan),
            "environment": provenance.environment(),
            "parameters": outcome.diagnosis.meta["network"]["parameters"],
            "buckets": _bucket_rows(outcome),
            "verdicts": outcome.verdicts.to_dict("records"),
            "quality": outcome.quality.to_dict("records"),
        }
    )


def _bucket_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """The demo's table: a row a bucket."""
    import torch

    losses = {name: loss_table(values)["loss"] for name, values in outcome.losses.items()}
    paired = (outcome.losses["erd"] - outcome.losses["constant"]).table()
    before = outcome.diagnosis.refs["untrained"].summary
    rows = []
    for place, measured in enumerate(outcome.diagnosis.summary.to_dict("records")):
        row = {name: measured[name] for name in _MEASURED}
        row["effective_rank_untrained"] = before["effective_rank"].iloc[place]
        row["weight"] = float(outcome.table(torch.tensor(measured["log_snr"], dtype=torch.float64)))
        row |= {f"loss_{name}": values.iloc[place] for name, values in losses.items()}
        row |= {f"loss_change{end}": paired[column].iloc[place]
                for end, column in (("", "mean"), ("_low", "low"), ("_high", "high"))}  # fmt: skip
        rows.append(row)
    return rows
