"""A data set: training samples, and held-out samples that the network never sees."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ntkdiag import provenance
from ntkdiag.conditions import LABEL, Conditions, checked_conditions, shared
from ntkdiag.data.samples import LazySamples, Samples, in_memory
from ntkdiag.errors import InputError, require_type
from ntkdiag.notebook import html_facts

if TYPE_CHECKING:
    from ntkdiag.process.bayes import Oracle


# Of data with more numbers than this, a random choice stands for all: 512 MiB in float64.
MANY = 2**26


@dataclass(frozen=True, repr=False)
class Data:
    """Samples to train and measure on, and others that the network never sees.

    Args:
        name: Name of the data in reports.
        train: Training samples [N, *shape], floating point and finite; `LazySamples` are read when they are drawn.
        held_out: Held-out samples [M, *shape] of the same dtype, or None: only what evaluates a network needs them.
        oracle: The optimal denoiser of the distribution that the samples come from, where it is known.
        labels, held_out_labels: A whole number for each sample, int64 [N] and [M], or None.
        description: What the samples are and what was done to them, in words.
        cond, held_out_cond: Conditions of a network by name, such as text embeddings: tensors or arrays [N, ...], [M, ...]
            with a row for each sample. One called "label" is passed to networks in place of `labels`.
        from_network: Whether the samples were drawn from the network that is measured on them, which answers then say.

    Raises:
        InputError: a part is empty, is not floating point, contains a NaN or infinity, or the parts differ in
            shape or dtype; labels of another number or type; or conditions that have another number of rows, are no
            numbers, or are not those of the other part.

    Example:
        >>> points = torch.linspace(-1, 1, 20).reshape(10, 2)
        >>> data = nd.data.Data("line", train=points[:8], held_out=points[8:])
        >>> data.shape
        (2,)
        >>> labelled = nd.data.Data("line", points, labels=torch.arange(10) % 2, cond={"height": points[:, 1]})
        >>> sorted(labelled.conditions)
        ['height', 'label']
    """

    name: str
    train: Samples
    held_out: Samples | None = None
    oracle: Oracle | None = None
    labels: Tensor | None = None
    held_out_labels: Tensor | None = None
    description: str = ""
    cond: Mapping[str, Any] = field(default_factory=dict)
    held_out_cond: Mapping[str, Any] = field(default_factory=dict)
    from_network: bool = False

    def __post_init__(self) -> None:
        require_type(
            "name of the data",
            self.name,
            str,
            "one line of text",
            fix="Give the name first, then the samples.",
        )
        if self.train is None:
            raise InputError(f"training samples of '{self.name}'", expected="a tensor [N, ...]", got="None")
        parts = (("training", self.train, self.labels), ("held-out", self.held_out, self.held_out_labels))
        for part, samples, labels in parts:
            what = f"{part} samples of '{self.name}'"
            if samples is not None and not isinstance(samples, LazySamples):
                check_samples(what, samples)
            _check_labels(what, samples, labels)
        for name, part, samples in (
            ("cond", "training", self.train),
            ("held_out_cond", "held-out", self.held_out),
        ):
            what = f"conditions of {part} samples of '{self.name}'"
            count = 0 if samples is None else len(samples)
            object.__setattr__(self, name, checked_conditions(what, getattr(self, name), count))
        self._require_same_conditions()
        held_out = self.held_out
        if held_out is not None and (
            self.train.shape[1:] != held_out.shape[1:] or self.train.dtype != held_out.dtype
        ):
            raise InputError(
                f"held-out samples of '{self.name}'",
                expected=f"samples of shape {self.shape} and {self.train.dtype}, as in training",
                got=f"shape {tuple(held_out.shape[1:])} and {held_out.dtype}",
            )

    def _require_same_conditions(self) -> None:
        if self.held_out is None:
            return
        kinds = [
            {name: (values.dtype, tuple(values.shape[1:])) for name, values in part.items()}
            for part in (self.cond, self.held_out_cond)
        ]
        if kinds[0] != kinds[1]:
            name = next(name for name in (*kinds[0], *kinds[1]) if kinds[0].get(name) != kinds[1].get(name))
            raise InputError(
                f"conditions of held-out samples of '{self.name}'",
                expected=f"'{name}' as in training, {_kind(kinds[0].get(name))}",
                got=_kind(kinds[1].get(name)),
            )

    def __repr__(self) -> str:
        held_out = 0 if self.held_out is None else len(self.held_out)
        return f"Data({self.name!r}, shape={self.shape}, train={len(self.train)}, held_out={held_out})"

    def _repr_html_(self) -> str:
        rows = {
            "shape of a sample": " × ".join(map(str, self.shape)),
            "dtype": str(self.train.dtype).removeprefix("torch."),
            "training samples": f"{len(self.train):,}",
            "held-out samples": "none" if self.held_out is None else f"{len(self.held_out):,}",
            "labels": "none" if self.labels is None else f"{len(self.labels.unique()):,} classes",
            "description": self.description,
        }
        return html_facts(f"Data '{self.name}'", rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.train.shape[1:])

    @property
    def conditions(self) -> Conditions:
        """Conditions of the training samples by name, [N, ...]; the labels are "label"."""
        return _with_labels(self.labels, self.cond)

    @property
    def held_out_conditions(self) -> Conditions:
        """Conditions of the held-out samples, as `conditions`."""
        return _with_labels(self.held_out_labels, self.held_out_cond)

    def at_condition(self, **values: Any) -> Data:
        """The same samples, all under one condition: at the null label of classifier-free guidance, say.

        Args:
            values: Name → the value of one sample, a number or a tensor [...].

        Returns:
            Data with these conditions. Labels stay, so that results by class are of the classes that samples belong to.

        Raises:
            InputError: values that are no numbers.

        Example:
            >>> digits = nd.data.load("digits").at_condition(label=10)  # 10 is "no label" for a network of ten classes
            >>> digits.conditions["label"].unique(), digits.labels.unique().numel()
            (tensor([10]), 10)
        """
        held_out = 0 if self.held_out is None else len(self.held_out)
        return replace(
            self,
            cond={**self.cond, **shared("condition", values, len(self.train))},
            held_out_cond={**self.held_out_cond, **shared("condition", values, held_out)} if held_out else {},
        )

    @cached_property
    def variance(self) -> float:
        """Variance of the training samples (divisor N), averaged over the dimensions; of many, of a random choice."""
        return float(in_memory(self.train, MANY).double().var(dim=0, correction=0).mean())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of both parts; equal data with an equal split has an equal digest.

        Of samples that are read when they are drawn it covers which they are and the content of 64 in each part.
        """
        parts = [self.train] if self.held_out is None else [self.train, self.held_out]
        if all(isinstance(part, Tensor) for part in parts):
            return provenance.digest(*(in_memory(part) for part in parts))
        digests = [
            part.digest() if isinstance(part, LazySamples) else provenance.digest(part) for part in parts
        ]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def held_out_for(self, purpose: str) -> Samples:
        """The held-out samples.

        Args:
            purpose: What needs them, for the error.

        Raises:
            InputError: there are none.
        """
        if self.held_out is None:
            raise InputError(
                f"data '{self.name}'",
                expected=f"held-out samples, for {purpose}",
                got="training samples alone",
                fix="Hold some of them out with ntkdiag.data.as_data.",
            )
        return self.held_out


def _with_labels(labels: Tensor | None, cond: Conditions) -> Conditions:
    return dict(cond) if labels is None else {LABEL: labels, **cond}


def _kind(kind: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return "none" if kind is None else f"{kind[0]} {[*kind[1]]} for each sample"


def _check_labels(what: str, samples: Samples | None, labels: Tensor | None) -> None:
    if labels is None:
        return
    count = 0 if samples is None else len(samples)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        got = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"labels of {what}", expected=f"int64 [{count}]", got=got)


def check_samples(what: str, samples: Tensor) -> None:
    """Refuse tensors that are not samples; the error names the first bad sample.

    Args:
        what: Name of the samples in the error.
        samples: Tensor to check, [N, *shape] expected.

    Raises:
        InputError: not floating point, no sample, no dimension, or a NaN or infinity.
    """
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        got = samples.dtype if isinstance(samples, Tensor) else type(samples).__name__
        raise InputError(what, expected="a floating-point tensor [N, ...]", got=got)
    if samples.ndim < 2 or samples.numel() == 0:
        raise InputError(
            what, expected="[N, ...] with at least one sample and one dimension", got=list(samples.shape)
        )
    finite = samples.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = finite.logical_not().nonzero().flatten().tolist()
        raise InputError(
            what,
            expected="finite numbers",
            got=f"a NaN or infinity in sample {bad[0]} ({len(bad)} of {len(finite)} samples affected)",
        )


def split(samples: Tensor, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split samples at random.

    Args:
        samples: [N, *shape].
        held_out: Number of samples to hold out, in [1, N-1].
        seed: Seed of the permutation; the split depends on it and on N alone.

    Returns:
        Training samples [N - held_out, *shape] and held-out samples [held_out, *shape].

    Raises:
        InputError: there are too few samples to leave one in each part.
    """
    kept, out = split_order(len(samples), held_out, seed)
    return samples[kept], samples[out]


def split_order(count: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """The numbers of the training samples and of the held-out ones, as `split` has them."""
    if not 1 <= held_out < count:
        raise InputError(
            "samples", expected=f"more than {max(held_out, 1)}, to hold {held_out} of them out", got=count
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:], order[:held_out]


def held_out_count(count: int, share: float) -> int:
    """Samples to hold out of `count`: the share rounded up, at least one."""
    return max(1, math.ceil(share * count))
