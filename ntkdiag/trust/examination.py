"""`examine`: everything about a training run that says how far to trust its kernel, as tables in one folder.

trust.json      what was measured and how, and what it says in sentences
<name>.csv      the tables, see `TABLES`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ntkdiag import provenance
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, first_line
from ntkdiag.process.buckets import DEFAULT_COUNT, BucketsLike
from ntkdiag.train.checkpoints.run_folder import kept_weights
from ntkdiag.trust.along_training import drift
from ntkdiag.trust.features import features
from ntkdiag.trust.linearity import linearization
from ntkdiag.trust.outputs_structure import outputs
from ntkdiag.trust.real_steps import Weights
from ntkdiag.trust.sizes import run_sizes_named, sizes_named
from ntkdiag.trust.step_range import step_range

MANIFEST = "trust.json"
FORMAT = 1
SECTIONS = ("linearity", "drift", "features", "outputs")
# Table → columns that readers use.
TABLES = {
    "linearity": ("bucket", "log_snr", "error", "largest_fraction", "good_steps", "kernel"),
    "linearity_steps": ("repeat", "step", "bucket", "log_snr", "error", "true_change", "predicted_change"),
    "drift": (
        "step", "bucket", "log_snr", "alignment", "top_overlap", "trace", "effective_rank", "centred_effective_rank",
        "shared_share",
    ),
    "drift_ends": ("step", "statistic", "end", "effect", "low", "high", "word"),
    "features": ("network", "module", "bucket", "log_snr", "rankme", "centred_effective_rank", "cka_clean", "probe"),
    "features_between": ("network", "module", "log_snr_a", "log_snr_b", "cka"),
    "features_ends": ("network", "module", "end", "effect", "low", "high", "word"),
    "outputs": ("bucket", "log_snr", "output_rank", "best_rank", "data_rank", "loss_over_best"),
    "outputs_ends": ("structure", "end", "effect", "low", "high", "word"),
}  # fmt: skip
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False, repr=False)
class Examination:
    """What is known of a training run's kernel, features and outputs.

    Attributes:
        tables: Name → table, of those in `TABLES` that were measured.
        said: "linearity", "drift", "features", "outputs" → what the numbers say, in plain sentences.
        meta: The run and the sizes; plain JSON values.

    Example:
        >>> nd.trust.Examination(tables={}, said={"drift": "The rank falls from step 300 on."}, meta={})
        Examination(drift)
    """

    tables: dict[str, pd.DataFrame]
    said: dict[str, str]
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.tables)

    def __repr__(self) -> str:
        return f"Examination({', '.join(self.said)})"

    @property
    def step_range(self) -> str:
        """How many of the next steps the kernel describes, in a sentence.

        Raises:
            InputError: that was not measured.
        """
        missing = [name for name in ("linearity", "linearity_steps") if name not in self.tables]
        if missing:
            raise InputError(
                "examination", expected=f"a table {missing[0]}", got=", ".join(self.tables) or "none"
            )
        most = int(self.tables["linearity_steps"]["step"].max())
        batch = self.meta.get("batch")
        by = str(self.meta.get("optimizer", "the optimizer of the run"))
        return step_range(self.tables["linearity"], most, by, batch if isinstance(batch, int) else None)

    def save(self, folder: Path | str, force: bool = False) -> None:
        """Write the folder, whole or not at all.

        Raises:
            InputError: the folder is in use; an earlier examination is replaced only with `force`.
        """
        with provenance.run_folder(folder, force) as building:
            self.write(building)

    def write(self, folder: Path) -> None:
        """Write the files into an existing folder."""
        for name, table in self.tables.items():
            provenance.write_text(folder / f"{name}.csv", table.to_csv(index=False))
        document = {"format": FORMAT, "said": self.said, "tables": list(self.tables), **self.meta}
        provenance.write_json(folder / MANIFEST, document)

    @classmethod
    def load(cls, folder: Path | str) -> Examination:
        """Read a folder that `save` wrote; nothing in it is run.

        Raises:
            InputError: it is something else, or a table lacks a column.
        """
        path = Path(folder) / MANIFEST
        try:
            document = json.loads(provenance.read_text(path))
        except ValueError as error:
            raise InputError(str(path), expected="JSON", got=first_line(error)) from error
        if not _is_manifest(document):
            raise InputError(str(path), expected=f"an examination of format {FORMAT}", got="another file")
        tables = {name: _table(Path(folder) / f"{name}.csv", TABLES[name]) for name in document.pop("tables")}
        said = {name: document["said"][name] for name in SECTIONS if name in document["said"]}
        meta = {name: value for name, value in document.items() if name not in ("format", "said")}
        return cls(tables, said, meta)


def _is_manifest(document: object) -> bool:
    return (
        isinstance(document, dict)
        and document.get("format") == FORMAT
        and isinstance(document.get("said"), dict)
        and all(isinstance(text, str) for text in document["said"].values())
        and isinstance(document.get("tables"), list)
        and all(name in TABLES for name in document["tables"])
    )


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, keep_default_na=True)
    except (OSError, ValueError) as error:
        raise InputError(str(path), expected="a table in CSV", got=first_line(error)) from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(str(path), expected=f"a column {missing[0]}", got=", ".join(map(str, table)))
    return table


def examine(
    run: Path | str,
    denoiser: Denoiser,
    data: Data,
    *,
    buckets: BucketsLike = DEFAULT_COUNT,
    level: str = "standard",
    seed: int = 0,
    patterns: str | Sequence[str] | None = None,
    untrained: Denoiser | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
) -> Examination:
    """Everything of this room for a training run.

    Args:
        run: The folder of a run of `nd.train.train`, with `keep_every` for the drift, which is left out without.
        denoiser: The trained network, whose activations and outputs are read.
        data: What it was trained on.
        buckets, seed: As in `measure`.
        level: "quick", "standard" or "thorough".
        patterns: Of the modules whose activations are read, see `features`.
        untrained: A fresh network of the same kind, as a control of the features.
        weights: Loss weights of training, for the real steps; None for 1.
        progress: Called with (description of the work, steps done, steps in total).

    Raises:
        InputError: as `linearization`, `drift`, `features` and `outputs`.
        MeasurementError: likewise.

    Example:
        >>> config = nd.train.TrainConfig(steps=20, batch=16, keep_every=10)
        >>> result = nd.train.train(denoiser, data, None, config, out="examined")
        >>> nd.trust.examine("examined", result.denoiser, data, buckets=3, level="quick")
        Examination(linearity, drift, features, outputs)
    """
    sizes = run_sizes_named(level)
    forwards = min(sizes.forwards, len(data.train))
    linear = linearization(
        denoiser, data, Path(run), buckets=buckets, level=level, seed=seed, weights=weights, progress=progress
    )
    tables, said = {"linearity": linear.buckets, "linearity_steps": linear.steps}, {"linearity": linear.text}
    if len(kept_weights(run)) > 1:
        samples = min(sizes.samples, len(data.train))
        along = drift(
            run, denoiser, data, buckets=buckets, samples=samples, probes=sizes.probes, most=sizes.most, seed=seed,
            progress=progress,
        )  # fmt: skip
        tables |= {"drift": along.table, "drift_ends": along.ends}
        said["drift"] = along.text
    read = features(
        denoiser, data, patterns, buckets=buckets, samples=forwards, seed=seed, untrained=untrained
    )
    tables |= {"features": read.table, "features_between": read.between, "features_ends": read.ends}
    said["features"] = read.text
    try:
        made = outputs(denoiser, data, buckets=buckets, samples=forwards, seed=seed)
    except InputError as error:
        said["outputs"] = f"Not compared with the best possible prediction. {error}"
    else:
        tables |= {"outputs": made.table, "outputs_ends": made.distortion.ends}
        said["outputs"] = made.text
    meta = {
        "run": Path(run).name,
        "level": level,
        "seed": seed,
        "optimizer": linear.optimizer,
        "batch": linear.batch,
    }
    return Examination(tables, said, meta)


def cost(run: Path | str, level: str, buckets: int) -> int:
    """About how many training steps of batch 128 `examine` costs.

    Raises:
        InputError: an unknown level.
    """
    kept = len(kept_weights(run))
    along = run_sizes_named(level).training_steps(kept if kept > 1 else 0, buckets)
    return sizes_named(level).training_steps(buckets) + along
