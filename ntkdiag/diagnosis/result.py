"""Diagnosis: what a measurement found, as tables, kernels and provenance; one folder on disk.

diagnosis.json     versions, device, seeds, configuration, data hash
summary.csv        a row a bucket
spectra.csv        a row an eigenvalue
coupling.csv       a row a pair of buckets
rarefaction.csv    effective rank against the number of samples
grams.safetensors  the kernels themselves
refs/<name>/       reference networks measured on the same draws (the untrained control)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.errors import InputError

TABLES = ("summary", "spectra", "coupling", "rarefaction")
FORMAT = 1

REQUIRED_COLUMNS = {
    "summary": (
        "bucket",
        "log_snr",
        "samples",
        "loss",
        "trace",
        "top_eigenvalue",
        "effective_rank",
        "amplitude",
    ),
    "spectra": ("bucket", "log_snr", "index", "eigenvalue", "share"),
    "coupling": ("bucket_a", "bucket_b", "log_snr_a", "log_snr_b", "kernel", "gradient_cosine"),
    "rarefaction": ("bucket", "log_snr", "samples", "effective_rank", "effective_rank_std"),
}


@dataclass
class Diagnosis:
    """The result of `measure`.

    Attributes:
        summary: A row a log-SNR bucket: loss, trace, eigenvalues, ranks with intervals, recoverability scores.
        spectra: A row an eigenvalue of K/N, descending within a bucket, with its share of the sum.
        coupling: A row a pair of buckets: normalised cross kernel, and cosine of mean gradients.
        rarefaction: Effective rank of subsets of the samples, by subset size.
        grams: "trace" [B, N, N], "trace_stderr" [B, N, N], "per_probe" [B, R, N, N], "residual" [B·N, B·N].
        meta: Provenance and configuration; plain JSON values.
        refs: Reference networks measured on the same draws, by name.
    """

    summary: pd.DataFrame
    spectra: pd.DataFrame
    coupling: pd.DataFrame
    rarefaction: pd.DataFrame
    grams: dict[str, Tensor]
    meta: dict[str, Any]
    refs: dict[str, Diagnosis] = field(default_factory=dict)

    def save(self, folder: Path | str, force: bool = False) -> None:
        """Write the folder, whole or not at all.

        Raises:
            InputError: the folder is in use (an earlier run is replaced only with `force`).
        """
        with provenance.run_folder(folder, force) as building:
            self._fill(building)

    def _fill(self, folder: Path) -> None:
        for name in TABLES:
            provenance.write_text(folder / f"{name}.csv", getattr(self, name).to_csv(index=False))
        save_file(
            {name: gram.contiguous() for name, gram in self.grams.items()}, folder / "grams.safetensors"
        )
        for name, reference in self.refs.items():
            inner = folder / "refs" / name
            inner.mkdir(parents=True)
            reference._fill(inner)
        meta = {"format": FORMAT, **self.meta}
        provenance.write_json(folder / "diagnosis.json", meta)

    @classmethod
    def load(cls, folder: Path | str) -> Diagnosis:
        """Read a saved Diagnosis.

        Raises:
            InputError: not a diagnosis folder, a file is missing or damaged, or columns are missing.
        """
        folder = Path(folder)
        path = folder / "diagnosis.json"
        if not path.is_file():
            raise InputError(str(folder), expected="a folder with diagnosis.json", got="none there")
        try:
            meta = json.loads(path.read_text())
        except (ValueError, OSError) as error:
            raise InputError(str(path), expected="JSON", got=str(error)) from error
        if not isinstance(meta, dict) or meta.pop("format", None) != FORMAT:
            raise InputError(str(path), expected=f"a diagnosis of format {FORMAT}", got="another file")
        tables = {name: _read_table(folder / f"{name}.csv", REQUIRED_COLUMNS[name]) for name in TABLES}
        references = folder / "refs"
        refs = {p.name: cls.load(p) for p in sorted(references.iterdir())} if references.is_dir() else {}
        return cls(**tables, grams=_read_grams(folder / "grams.safetensors"), meta=meta, refs=refs)


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, float_precision="round_trip")
    except FileNotFoundError:
        raise InputError(str(path), expected="a table of the diagnosis", got="no such file") from None
    except (ValueError, OSError) as error:
        raise InputError(str(path), expected="a CSV table", got=str(error).splitlines()[0]) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(str(path), expected="columns " + ", ".join(columns), got=f"none named {missing[0]}")
    return table


def _read_grams(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError, OSError) as error:
        raise InputError(str(path), expected="a safetensors file", got=str(error).splitlines()[0]) from error
