"""The full kernel's part of a diagnosis folder.

full_summary.csv            one row per bucket
full_spectra.csv            one row per eigenpair
full_density.csv            eigenvalues per unit ln e; no rows without quadrature
full_contraction.csv        what gradient flow leaves of the residual, over time
eigenfunctions.safetensors  the eigenfunctions [B, k, N, *shape]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from safetensors.torch import save
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.diagnosis.file_readers import read_table, read_tensors
from ntkdiag.diagnosis.full_kernel import FullKernel
from ntkdiag.errors import InputError

FULL_TABLES = ("summary", "spectra", "density", "contraction")
REQUIRED_COLUMNS = {
    "summary": (
        "bucket", "log_snr", "top_eigenvalue", "converged", "trace", "trace_low", "trace_high", "participation_ratio",
        "participation_ratio_low", "participation_ratio_high", "stable_rank", "products",
    ),
    "spectra": (
        "bucket", "log_snr", "index", "eigenvalue", "residual", "target_alignment", "residual_alignment", "data_share",
    ),
    "density": ("bucket", "log_snr", "log_eigenvalue", "density", "low", "high"),
    "contraction": ("bucket", "log_snr", "time", "low", "high"),
}  # fmt: skip
WORDS = {"summary": ("method",)}
EIGENFUNCTIONS = "eigenfunctions"


def write_full(full: FullKernel, folder: Path) -> None:
    """Write the five files.

    Args:
        full: The full kernel.
        folder: Folder of a diagnosis that is being written.
    """
    for name in FULL_TABLES:
        provenance.write_text(folder / f"full_{name}.csv", getattr(full, name).to_csv(index=False))
    tensors = {EIGENFUNCTIONS: full.eigenfunctions.contiguous()}
    provenance.write_bytes(folder / f"{EIGENFUNCTIONS}.safetensors", save(tensors))


def read_full(folder: Path, log_snr: Sequence[float], samples: int) -> FullKernel:
    """Read the five files.

    Args:
        folder: Folder of a saved diagnosis.
        log_snr: Log-SNR of each bucket, [B], from the summary of the trace kernel.
        samples: N.

    Returns:
        `FullKernel`.

    Raises:
        InputError: a file is missing or damaged, or does not fit the others.
    """
    tables = {
        name: read_table(folder / f"full_{name}.csv", REQUIRED_COLUMNS[name], WORDS.get(name, ()))
        for name in FULL_TABLES
    }
    path = folder / f"{EIGENFUNCTIONS}.safetensors"
    functions = read_tensors(path, (EIGENFUNCTIONS,), "tensor")[EIGENFUNCTIONS]
    _require_fit(folder, tables, functions, list(log_snr), samples)
    return FullKernel(**tables, eigenfunctions=functions)


def _require_fit(
    folder: Path, tables: dict[str, pd.DataFrame], functions: Tensor, log_snr: list[float], samples: int
) -> None:
    """Check that tables and eigenfunctions have the same buckets, samples and numbers of rows."""
    buckets, shape = len(log_snr), tuple(functions.shape)
    if len(shape) < 4 or shape[0] != buckets or shape[2] != samples:
        raise InputError(
            str(folder / f"{EIGENFUNCTIONS}.safetensors"),
            expected=f"shape [{buckets}, k, {samples}, ...], as summary.csv has it",
            got=shape,
        )
    for name, rows in (("summary", buckets), ("spectra", buckets * shape[1])):
        if len(tables[name]) != rows:
            raise InputError(str(folder / f"full_{name}.csv"), expected=f"{rows} rows", got=len(tables[name]))
    for name, table in tables.items():
        if not table["bucket"].isin(range(buckets)).all():
            raise InputError(
                str(folder / f"full_{name}.csv"),
                expected=f"buckets 0 to {buckets - 1}",
                got=table["bucket"].max(),
            )
        if (table["log_snr"] != [log_snr[int(bucket)] for bucket in table["bucket"]]).any():
            raise InputError(
                str(folder / f"full_{name}.csv"),
                expected="the log-SNRs of summary.csv",
                got=table["log_snr"].unique().tolist(),
            )
    for name in ("density", "contraction"):
        lengths = tables[name].groupby("bucket").size().tolist()
        if len(set(lengths)) > 1:
            raise InputError(
                str(folder / f"full_{name}.csv"), expected="equally many rows of each bucket", got=lengths
            )
