"""Which weights of a checkpoint are a network's: found by their names and shapes, wherever they lie.

A checkpoint is a nest of dicts. A state dict in it has a *key*: the names of the dicts on the way, and what stands before
the network's own names ("module." of DistributedDataParallel, "model." of a wrapper), with dots between.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError, did_you_mean, listed
from ntkdiag.state_dicts.fit import check_fit, misfits

# Parts of names that wrappers put anywhere between others: torch.compile, FSDP, activation checkpointing.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# A key of an exponential moving average: "ema", "model_ema", "params_ema", "ema_0.999", "average".
_EMA = re.compile(r"(?:^|[._-])(?:ema|average)(?=\d|[._-]|$)", re.IGNORECASE)
# The weights that are being averaged, where ema_pytorch stores them beside the average.
_NO_EMA = re.compile(r"(?:^|[._-])online(?=[._-]|$)", re.IGNORECASE)
TOP = "."  # the key of weights that have no other
_DEEPEST = 16  # most dicts in each other; deeper ones are no checkpoint


@dataclass(frozen=True)
class WeightsTaken:
    """Which weights of a file a network was given.

    Attributes:
        file: The file.
        key: Where they lie in it; "." for the top level.
        ema: Whether the key says that they are an exponential moving average.
        others: Keys of other weights of the file that fit the network.

    Example:
        >>> nd.train.save_weights(denoiser, "weights.safetensors")
        >>> taken = nd.train.load_weights(denoiser, "weights.safetensors")
        >>> taken.key, taken.ema
        ('.', False)
    """

    file: str
    key: str
    ema: bool
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = "" if self.key == TOP else f" '{self.key}'"
        average = ", a moving average," if self.ema else ""
        others = f"; {listed(map(repr, self.others))} would fit too" if self.others else ""
        return f"the weights{name} of {self.file}{average} were taken{others}"


@dataclass(frozen=True)
class Candidate:
    """Part of a checkpoint that may be the weights of a network.

    Attributes:
        key: Where it lies.
        state: Its tensors by the network's own names, and whatever else has their prefix.
        misfit: How its names and shapes differ from the network's; empty if they do not.
        matching: Number of tensors with a name and shape of the network's.
    """

    key: str
    state: dict[str, Tensor]
    misfit: str
    matching: int

    @property
    def ema(self) -> bool:
        """Whether the key is that of a moving average."""
        return bool(_EMA.search(self.key)) and not _NO_EMA.search(self.key)


def weights_in(
    content: Any, wanted: Mapping[str, Tensor], file: str, owner: str, key: str | None = None
) -> tuple[dict[str, Tensor], WeightsTaken]:
    """The weights of a network in a checkpoint; a moving average is preferred.

    Args:
        content: The nest of dicts.
        wanted: The state dict of the network, for its names and shapes.
        file: Name of the file.
        owner: Name of the network, for errors.
        key: Take the weights of this key instead, or the ones below it.

    Returns:
        The tensors by the network's own names, and where they came from.

    Raises:
        InputError: no weights that fit; or several, of which none or more than one are a moving average.
    """
    dicts = list(_dicts(content))
    if not dicts:
        raise InputError(file, expected="a checkpoint of tensors by name", got=_kind(content))
    candidates = sorted(_candidates(dicts, wanted), key=lambda one: -one.matching)
    named = candidates if key is None else _below(candidates, key, file)
    fitting = [one for one in named if not one.misfit]
    if not fitting:
        nearest = named[0] if named else Candidate(TOP, max(dicts, key=lambda one: len(one[1]))[1], "", 0)
        where = "" if nearest.key == TOP else f" ('{nearest.key}')"
        check_fit(wanted, nearest.state, f"{file}{where} for {owner}")
    chosen = _preferred(fitting, file, key)
    others = [one.key for one in candidates if not one.misfit and one.key != chosen.key]
    return chosen.state, WeightsTaken(file, chosen.key, chosen.ema, tuple(others))


def _below(candidates: list[Candidate], key: str, file: str) -> list[Candidate]:
    """The candidates of a key, or the ones below it."""
    bare = key.strip(".") or TOP
    exact = [one for one in candidates if one.key == bare]
    found = exact or [one for one in candidates if one.key.startswith(f"{bare}.")]
    if not found:
        keys = [one.key for one in candidates if not one.misfit] or [one.key for one in candidates]
        raise InputError(
            "weights_key",
            expected=f"a key of {file}, such as {listed(keys)}",
            got=repr(key),
            fix=did_you_mean(bare, keys),
        )
    return found


def _preferred(fitting: list[Candidate], file: str, key: str | None) -> Candidate:
    """The moving average, or else the only one."""
    chosen = [one for one in fitting if one.ema] or fitting
    first, *others = chosen
    if any(_differ(first.state, other.state) for other in others):
        raise InputError(
            file if key is None else f"{file} ('{key}')",
            expected="one set of weights that fits the network, or one moving average",
            got=listed(repr(one.key) for one in chosen),
            fix="Choose one with {weights_key}.",
            arguments={"weights_key": None},
        )
    return first


def _differ(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return any(
        value.dtype != right[name].dtype or not torch.equal(value, right[name])
        for name, value in left.items()
    )


def _candidates(
    dicts: list[tuple[tuple[str, ...], dict[str, Tensor]]], wanted: Mapping[str, Tensor]
) -> Iterator[Candidate]:
    """Every part of the dicts in which some names end as the network's do."""
    bare = {_bare(name): name for name in wanted}
    if len(bare) < len(wanted):  # two names that differ by a wrapper alone
        bare = {name: name for name in wanted}
    for path, tensors in dicts:
        parts = {**_by_prefix(tensors, bare), **_without_dots(tensors, bare)}
        parts = {prefix: part | _tied(part, wanted) for prefix, part in parts.items()}
        whole = {prefix for prefix, part in parts.items() if prefix and wanted.keys() <= part.keys()}
        beside = {name for name in tensors if name.startswith(tuple(whole))}
        for prefix, part in parts.items():
            # Other whole sets of weights may lie beside those of the top level, but nothing else.
            state = {
                name: value for name, value in part.items() if prefix or name in wanted or name not in beside
            }
            key = ".".join([*path, *filter(None, [prefix.rstrip(".")])]) or TOP
            matching = sum(
                name in wanted and wanted[name].shape == value.shape for name, value in state.items()
            )
            yield Candidate(key, state, misfits(wanted, state), matching)


def _dicts(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dict of a nest that has tensors in it, each once, with the keys on the way to it."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        path, part = waiting.pop()
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        tensors = {str(name): value for name, value in part.items() if isinstance(value, Tensor)}
        if tensors:
            yield path, tensors
        if len(path) < _DEEPEST:
            waiting += [((*path, str(name)), value) for name, value in reversed([*part.items()])]


def _by_prefix(tensors: dict[str, Tensor], bare: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """Prefix of names → the tensors that have it, by the network's names or the rest of their own.

    Only the prefixes that lead to the most names of the network: a short one, such as "weight", ends many others.
    """
    prefixes: Counter[str] = Counter()
    for name in tensors:
        ends = [0, *(match.end() for match in re.finditer(r"\.", name))]
        prefixes.update(
            name[:end] for end in ends if not _ends_in_wrapper(name[:end]) and _bare(name[end:]) in bare
        )
    most = max(prefixes.values(), default=0)
    return {
        prefix: {
            bare.get(_bare(name[len(prefix) :]), name[len(prefix) :]): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
        for prefix, count in prefixes.items()
        if count == most
    }


def _tied(part: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is missing because the network has it under two names, of which some formats store one."""
    places = {_place(wanted[name]): value for name, value in part.items() if name in wanted}
    missing = {name: _place(value) for name, value in wanted.items() if name not in part and value.numel()}
    return {name: places[place] for name, place in missing.items() if place in places}


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _without_dots(tensors: dict[str, Tensor], bare: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """The same for a moving average whose names have lost their dots, as latent-diffusion's "model_ema." has."""
    flat = {name.replace(".", ""): own for name, own in bare.items()}
    heads = {name.partition(".")[0] for name in tensors if name.count(".") == 1}
    found = {}
    for head in filter(_EMA.search, heads):
        inside = {
            name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{head}.")
        }
        longest = max(flat, key=len, default="")
        for end in {name.removesuffix(longest) for name in inside if longest and name.endswith(longest)}:
            if all(f"{end}{name}" in inside for name in flat) and len(flat) == len(bare):
                found[f"{head}.{end}"] = {own: inside[f"{end}{name}"] for name, own in flat.items()}
    return found


def _bare(name: str) -> str:
    """A name without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _ends_in_wrapper(prefix: str) -> bool:
    return prefix.removesuffix(".").rpartition(".")[2] in _WRAPPERS


def _kind(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict of {listed(map(str, content))}" if content else "an empty dict"
    return type(content).__name__
