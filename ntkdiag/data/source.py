"""A source of samples, and the data set that is made of it: read at once if it is small, when drawn if it is large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ntkdiag.conditions import rows_of
from ntkdiag.data.arrays import ArrayReader
from ntkdiag.data.dataset import Data, check_samples, held_out_count, split_order
from ntkdiag.data.samples import LazySamples, Reader, Samples

# Samples of at most so many bytes in all are read, checked and digested at once: 256 MiB.
SMALL = 2**28


@dataclass(frozen=True)
class Source:
    """Samples before they are split.

    Attributes:
        name: Name of the data in reports.
        what: What errors call it: its path, or "data".
        reader: Where the samples come from.
        description: What they are and what was done to them, in words.
        labels: A label for each sample, int64 [N], or None.
        test: Samples that the source itself sets apart, to be held out.
        cond: Conditions by name, [N, ...].
    """

    name: str
    what: str
    reader: Reader
    description: str = ""
    labels: Tensor | None = None
    test: Source | None = None
    cond: Mapping[str, Tensor] = field(default_factory=dict)


def data_of(source: Source, held_out: float, seed: int) -> Data:
    """The data set of a source.

    Args:
        source: Its own test samples are held out if it has any.
        held_out: Share of the samples to hold out if it has none, in [0, 1); of a single sample none is.
        seed: Seed of that split.

    Raises:
        InputError: samples that cannot be read, or of which one contains a NaN or infinity.
    """
    count = len(source.reader)
    samples, labels, cond = _read(source), source.labels, source.cond
    rest, rest_labels, rest_cond = None, None, {}
    if source.test is not None:
        rest, rest_labels, rest_cond = _read(source.test), source.test.labels, dict(source.test.cond)
        share = f"{len(rest):,} more, set apart by the source, are held out"
    elif held_out == 0 or count < 2:
        share = "none is held out"
    else:
        kept, out = split_order(count, held_out_count(count, held_out), seed)
        rest, rest_labels = _rows(samples, out), None if labels is None else labels[out]
        samples, labels = _rows(samples, kept), None if labels is None else labels[kept]
        cond, rest_cond = rows_of(cond, kept), rows_of(cond, out)
        share = f"{len(out):,} of them are held out (seed {seed})"
    return Data(
        source.name,
        samples,
        rest,
        labels=labels,
        held_out_labels=rest_labels,
        cond=cond,
        held_out_cond=rest_cond,
        description="; ".join(filter(None, [f"{count:,} samples", source.description, share])),
    )


def _read(source: Source) -> Samples:
    """All samples of a source: in memory if they are small, or are there already."""
    reader = source.reader
    if isinstance(reader, ArrayReader) and reader.unchanged is not None:
        check_samples(source.what, reader.unchanged)
        return reader.unchanged
    lazy = LazySamples(reader, what=source.what)
    return lazy[:] if lazy.shape.numel() * lazy.dtype.itemsize <= SMALL else lazy


def _rows(samples: Samples, order: Tensor) -> Samples:
    if isinstance(samples, Tensor):
        return samples[order.to(samples.device)]
    return LazySamples(samples.reader, samples.rows[order], samples.what)
