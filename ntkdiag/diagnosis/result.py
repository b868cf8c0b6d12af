"""`Diagnosis`: the result of a measurement as tables, kernels and provenance, saved as one folder.

diagnosis.json     versions, device, seeds, configuration, data hash
summary.csv        one row per bucket
spectra.csv        one row per eigenvalue
coupling.csv       one row per pair of buckets
rarefaction.csv    effective rank against the number of samples
grams.safetensors  the kernels themselves
full_*.csv, eigenfunctions.safetensors  the full kernel, where it was measured (see `full_kernel_files`)
refs/<name>/       reference networks measured on the same draws (the untrained control)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors.torch import save
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.diagnosis.file_readers import read_table, read_tensors
from ntkdiag.diagnosis.full_kernel import FullKernel
from ntkdiag.diagnosis.full_kernel_files import read_full, write_full
from ntkdiag.diagnosis.outputs import BEST, DATA, OUTPUT
from ntkdiag.errors import InputError, require_path
from ntkdiag.later import work_of
from ntkdiag.notebook import html_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLES = ("summary", "spectra", "coupling", "rarefaction")
FORMAT = 1
# The tensor among the kernels that holds each sample's class.
LABELS = "labels"
# Columns of the summary that a notebook shows.
_SHOWN = (
    "log_snr",
    "samples",
    "loss",
    "trace",
    "top_eigenvalue",
    "effective_rank",
    "effective_rank_low",
    "effective_rank_high",
    "amplitude",
    "bayes_share",
    "gsnr",
)
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


@dataclass(eq=False, repr=False)
class Diagnosis:
    """The result of `measure`.

    Attributes:
        summary: One row per log-SNR bucket; see below.
        spectra: One row per eigenvalue of K/N, descending within a bucket, with its share of the sum.
        coupling: One row per pair of buckets: normalised cross kernel (of the first samples of each bucket where all are
            more than 4,096), and cosine of mean gradients with `_low` and `_high`; NaN where the mean gradient of one
            bucket cannot be told from noise.
        rarefaction: Effective rank of subsets of the samples, by subset size.
        grams: Kernels in float64: "trace" [B, N, N] and "residual" [B·N, B·N]; where the trace kernel is estimated
            from R probes also "per_probe" [B, R, N, N], and "trace_stderr" [B, N, N] unless R is 1. "losses" [B, N] holds
            the mean squared error of each sample. "labels" [N], int64, holds each sample's class where the data has labels.
            "output", "output_best" [B, N, N] and "output_data" [N, N]: inner products of predicted x0 over D, of the network
            (not of references), of the best prediction where it is known (`meta["output_source"]`), and of the data.
        meta: Provenance and configuration; plain JSON values.
        refs: Reference networks measured on the same draws, by name.
        full: The full kernel, with a row for every output of every sample (see `ntkdiag.diagnosis.full_kernel`); None
            where it was not measured.

    Columns of `summary`; `_low` and `_high` are the ends of 90% intervals, NaN where too few samples allow none:
        bucket, log_snr (where it was measured), log_snr_low, log_snr_high (the bucket's edges), samples (N).
        extrapolated: Whether the bucket lies at a noise level outside the schedule's support, which the network never saw.
        loss: Mean squared error per dimension, unweighted; loss_low, loss_high.
        trace, top_eigenvalue, effective_rank, participation_ratio_pairs, participation_ratio, stable_rank,
            decay_exponent, each with _low and _high, corrected for the bias by few probes; numerical_rank: of K/N,
            see `ntkdiag.spectra`.
        shared_share: 1ᵀK1/(N tr K), the share of the trace by which all samples move together; centred_trace,
            centred_top_eigenvalue, centred_effective_rank, centred_participation_ratio_pairs: of the kernel without it,
            HKH/(1 − 1/N) with H = I − 11ᵀ/N. Each with _low and _high.
        input_effective_rank: Effective rank of the noisy inputs' own Gram matrix, which that of untrained networks follows.
        top8_energy: Share of the trace in the eight largest eigenvalues. negative_mass: Share of |e| in negative ones.
        trace_x0: The trace had the network predicted x0, trace / k².
        amplitude, bayes_share, learnability: Three measures of recoverability, see `ntkdiag.recoverability` and
            `ntkdiag.process.bayes`.
            bayes_share is a lower 95% bound where the posterior is not known exactly (`meta["bayes_source"]`), and
            bayes_share_estimate what the best estimator (`meta["bayes_bounds"]`) recovers on average.
        floor, excess: Loss that no training removes, loss that training can still remove; excess is NaN, and
            floor an upper 95% bound, where the posterior is not known exactly.
        half_life: Gradient-flow time until half of the residual's energy is gone, in units of 1/e; may be infinite.
        gsnr: Signal-to-noise ratio of one sample's gradient; gsnr_low, gsnr_high.
        gain: Fall of the objective on the target for the gradient noise, per unit of weight on the bucket, see
            `ntkdiag.recoverability.gradient_gain`; gain_low, gain_high.
        contamination: Share of gradient energy that is Bayes noise, with _low and _high; NaN where the posterior is
            not known exactly.
        contamination_finite: The same with the posterior of the finite training set, which memorises it, with _low and
            _high; NaN where the posterior is known exactly, for references, and where the data is too large.

    Example:
        >>> diagnosis.summary[["log_snr", "samples"]].values.tolist()[0]
        [..., 8.0]
    """

    summary: pd.DataFrame
    spectra: pd.DataFrame
    coupling: pd.DataFrame
    rarefaction: pd.DataFrame
    grams: dict[str, Tensor]
    meta: dict[str, Any]
    refs: dict[str, Diagnosis] = field(default_factory=dict)
    full: FullKernel | None = None

    def __repr__(self) -> str:
        return (
            f"Diagnosis(buckets={len(self.summary)}, refs={sorted(self.refs)}, full={self.full is not None})"
        )

    def _repr_html_(self) -> str:
        shown = [name for name in _SHOWN if name in self.summary]
        return html_rows(repr(self), shown, self.summary[shown].itertuples(index=False))

    def plot(self, what: str = "effective_rank", axes: Axes | None = None, *, theme: str = "light") -> Axes:
        """Draw a statistic over log-SNR with its interval, beside the references, or a figure of one panel.

        Args:
            what: A column of `summary`, or a name in `nd.report.FIGURES`.
            axes: Matplotlib axes to draw on; None makes a new figure, which a notebook shows.
            theme: "light" or "dark".

        Returns:
            The axes.

        Raises:
            InputError: no such statistic or figure, a figure of several panels, or nothing to draw.

        Example:
            >>> diagnosis.plot("effective_rank").get_ylabel()
            'effective rank (directions)'
        """
        return work_of("Diagnosis.plot")(self, what, axes, theme=theme)  # type: ignore[no-any-return]

    def report(self, path: Path | str = "page.html", **parts: Any) -> Path:
        """Write one self-contained HTML page, with the answer of `verify` if the diagnosis is large enough for one.

        Args:
            path: File to write; its folder must exist.
            parts: tables, runs, samples, quality and trust, as for `nd.report.write_page`.

        Returns:
            The path.

        Raises:
            InputError: the file cannot be written.

        Example:
            >>> diagnosis.report("page.html").name
            'page.html'
        """
        return work_of("Diagnosis.report")(self, path, **parts)  # type: ignore[no-any-return]

    def verify(self, trust: Any = None) -> Any:
        """Say what this diagnosis shows, as `nd.verify(diagnosis)`.

        Args:
            trust: As in `nd.verify`.

        Returns:
            An `ntkdiag.claims.Verification`.

        Raises:
            InputError: too few buckets or samples to say anything.

        Example:
            >>> diagnosis.verify()
            Verification(effective rank: ... at the noisy end, ... at the clean end)
        """
        return work_of("Diagnosis.verify")(self, trust)

    def save(self, folder: Path | str, force: bool = False) -> None:
        """Write the folder, whole or not at all.

        Raises:
            InputError: the folder is in use (an earlier run is replaced only with `force`), or the name of a
                reference cannot name a folder.

        Example:
            >>> diagnosis.save("measured")
            >>> nd.Diagnosis.load("measured")
            Diagnosis(buckets=4, refs=[], full=False)
        """
        folder = require_path("folder", folder)
        for name in self.refs:
            require_folder_name("name of a reference", name)
        with provenance.run_folder(folder, force) as building:
            self._fill(building)

    def _fill(self, folder: Path) -> None:
        for name in TABLES:
            provenance.write_text(folder / f"{name}.csv", getattr(self, name).to_csv(index=False))
        grams = {name: gram.contiguous() for name, gram in self.grams.items()}
        provenance.write_bytes(folder / "grams.safetensors", save(grams))
        if self.full is not None:
            write_full(self.full, folder)
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
            InputError: not a diagnosis folder, a file is missing or damaged, columns or kernels are missing, or
                they do not fit together.

        Example:
            >>> diagnosis.save("runs/diagnosis")
            >>> len(nd.Diagnosis.load("runs/diagnosis").summary)
            4
        """
        folder = require_path("folder of a diagnosis", folder)
        meta = _read_meta(folder)
        tables = {name: read_table(folder / f"{name}.csv", REQUIRED_COLUMNS[name]) for name in TABLES}
        # Other kernels are saved only where the trace kernel is an estimate.
        grams = read_tensors(folder / "grams.safetensors", ("trace", "residual"), "kernel")
        _require_fit(folder, tables, grams)
        full = None
        if meta["config"].get("full"):
            full = read_full(folder, tables["summary"]["log_snr"].tolist(), grams["trace"].shape[1])
        refs = {path.name: cls.load(path) for path in sorted(folder.glob("refs/*")) if path.is_dir()}
        return cls(**tables, grams=grams, meta=meta, refs=refs, full=full)


def require_folder_name(what: str, name: str) -> None:
    """Check that a name can be the name of a folder inside another one.

    Raises:
        InputError: it contains a path separator or another character that is not allowed.
    """
    if not re.fullmatch(r"\w[\w .+-]*", name):
        raise InputError(what, expected="a name of letters, digits, spaces and . _ + -", got=repr(name))


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "diagnosis.json"
    if not path.is_file():
        raise InputError(str(folder), expected="a folder with diagnosis.json", got="none there")
    try:
        meta = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise InputError(str(path), expected="JSON", got=str(error)) from error
    if not isinstance(meta, dict) or meta.pop("format", None) != FORMAT:
        raise InputError(str(path), expected=f"a diagnosis of format {FORMAT}", got="another file")
    if not isinstance(meta.get("config"), dict) or "target" not in meta["config"]:
        raise InputError(str(path), expected="config.target", got=f"keys {', '.join(sorted(meta))}")
    return meta


def _require_fit(folder: Path, tables: dict[str, pd.DataFrame], grams: dict[str, Tensor]) -> None:
    """Check that tables and kernels have the same number of buckets B and samples N."""
    buckets, samples = len(tables["summary"]), grams["trace"].shape[-1]
    shapes: dict[str, tuple[int, ...]] = {
        "trace": (buckets, samples, samples),
        "residual": (buckets * samples,) * 2,
    }
    pairs = {OUTPUT: (buckets, samples, samples), BEST: (buckets, samples, samples), DATA: (samples, samples)}
    shapes |= {name: shape for name, shape in pairs.items() if name in grams}
    for name, shape in shapes.items():
        if tuple(grams[name].shape) != shape:
            raise InputError(
                f"kernel {name} in {folder}",
                expected=f"shape {shape}, as summary.csv has {buckets} rows",
                got=tuple(grams[name].shape),
            )
    for name, rows in (("spectra", buckets * samples), ("coupling", buckets**2)):
        if len(tables[name]) != rows:
            raise InputError(str(folder / f"{name}.csv"), expected=f"{rows} rows", got=len(tables[name]))
