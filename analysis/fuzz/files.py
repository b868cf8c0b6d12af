"""Damaged files: weight tables, arrays of samples, and weights of a network."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from analysis.fuzz.damage import Rng, damaged, refusal, unreadable_path
from ntkdiag import data
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.train import load_weights
from ntkdiag.weights import RULES, WeightTable, rule, save_steps

_SUFFIXES = (".csv", ".json")


def tables(rng: Rng, folder: Path) -> str:
    """A table, damaged a few times, is loaded, read, written and loaded again, or refused in one line."""
    path = folder / f"table{rng.choice(_SUFFIXES)}"
    if rng.random() < 0.1:
        path = unreadable_path(rng, path)
    else:
        _table(rng).save(path)
        content = _with_one_value_replaced(rng, path) if rng.random() < 0.3 else path.read_bytes()
        for _ in range(rng.integers(0, 4)):
            content = damaged(rng, content)
        path.write_bytes(content)
    try:
        table = WeightTable.load(path)
    except InputError as error:
        return refusal(str(error))
    _require_weights(table)
    again = folder / f"again{rng.choice(_SUFFIXES)}"
    table.save(again)
    found = WeightTable.load(again)
    assert torch.equal(found.weight, table.weight), "the table changed when it was saved and loaded"
    assert (found.name, found.target, dict(found.meta)) == (table.name, table.target, dict(table.meta))
    return "accepted"


def _table(rng: Rng) -> WeightTable:
    if rng.random() < 0.5:
        return rule(str(rng.choice(list(RULES))), "v", schedules.linear_log_snr(-3, 3))
    grid, weight = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([1.0, 0.5, 2.0])
    ends = {"low": weight / 2, "high": 2 * weight} if rng.random() < 0.5 else {}
    return WeightTable(grid, weight, "v", meta={"a": [1, None], "ε": "λ"}, **ends)


def _with_one_value_replaced(rng: Rng, path: Path) -> bytes:
    """The table with one of its values replaced, as valid JSON or as .csv."""
    content: dict[str, Any] = {
        "format": "ntkdiag weight table 1", "name": "mine", "target": "v", "meta": {},
        "rule": {"rule": "edm", "parameters": {"sigma_data": 0.5}, "clip": None, "scale": 1.0,
                 "schedule": {"name": "linear_beta", "steps": 50}},
        "log_snr": [-1.0, 0.0, 1.0], "weight": [1.0, 2.0, 3.0],
    }  # fmt: skip
    values: tuple[Any, ...] = (
        None, True, "", "v", -1, 0, 1e308, 10**400, 10**12, [], {}, [[]], [math.nan], {"a": {}}, "\ud800", ["1"], "\x00",
    )  # fmt: skip
    place: Any = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[int(rng.integers(len(keys)))]
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner and rng.random() < 0.7):
            break
        place = inner
    place[key] = values[int(rng.integers(len(values)))]
    if rng.random() < 0.5 and path.suffix == ".csv":
        header = [
            f"# {name}: {json.dumps(content.get(name))}" for name in ("format", "target", "rule", "meta")
        ]
        return "\n".join([*header, "log_snr,weight", "0,1", "1,2", ""]).encode(errors="replace")
    return json.dumps(content).encode()


def _require_weights(table: WeightTable) -> None:
    try:
        weights = table(torch.tensor([-50.0, -1.0, 0.3, 50.0]))
    except InputError:  # a rule need not be finite everywhere
        return
    assert bool((weights >= 0).all() and torch.isfinite(weights).all()), "negative or non-finite weights"


def arrays(rng: Rng, folder: Path) -> str:
    """Samples from a damaged .npy file are finite, or the file is refused in one line."""
    path = folder / "samples.npy"
    if rng.random() < 0.1:
        path = unreadable_path(rng, path)
    elif rng.random() < 0.1:
        save_steps(rule("erd", "v"), schedules.linear_beta(20), path)  # loss weights instead of samples
    else:
        content = _array(rng)
        for _ in range(rng.integers(0, 3)):
            content = damaged(rng, content)
        path.write_bytes(content)
    try:
        found = data.load(path)
    except InputError as error:
        return refusal(str(error))
    assert found.train.dtype == torch.float32 and bool(torch.isfinite(found.train).all())
    assert len(found.train) >= 1 and len(found.held_out) >= 1
    return "accepted"


def _array(rng: Rng) -> bytes:
    """A .npy file of some type and shape."""
    kinds = ("f2", "f4", "f8", ">f4", "u1", "i8", "?", "c8", "O", "U3", "S2", "M8[s]", [("a", "f4")])
    kind = kinds[int(rng.integers(len(kinds)))] if rng.random() < 0.5 else "f4"
    shape = tuple(int(size) for size in rng.integers(0, 5, rng.integers(0, 5)))
    values = 10 * rng.standard_normal(shape if rng.random() < 0.5 else (6, 2))
    if rng.random() < 0.2 and values.size:
        values.flat[0] = rng.choice([math.nan, math.inf, 1e300])
    with np.errstate(all="ignore"):
        made = (
            np.zeros(values.shape, kind) if isinstance(kind, list) or kind == "M8[s]" else values.astype(kind)
        )
    stream = io.BytesIO()
    if rng.random() < 0.1:
        np.savez(stream, made)
    else:
        np.save(stream, made, allow_pickle=True)
    return stream.getvalue()


def tensors(rng: Rng, folder: Path) -> str:
    """Weights from a damaged .safetensors file are finite, or the file is refused and the network keeps its own."""
    path = folder / "weights.safetensors"
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    if rng.random() < 0.1:
        path = unreadable_path(rng, path)
    else:
        content = _state(rng, before)
        for _ in range(rng.integers(0, 3)):
            content = damaged(rng, content)
        path.write_bytes(content)
    try:
        load_weights(network, path)
    except InputError as error:
        same = all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert same, "the network was changed although its file was refused"
        return refusal(str(error))
    assert all(bool(torch.isfinite(value).all()) for value in network.parameters())
    return "accepted"


def _state(rng: Rng, state: dict[str, torch.Tensor]) -> bytes:
    """A .safetensors file; one tensor may have another type, shape, value or name."""
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64,
             torch.float8_e4m3fn, torch.float8_e5m2)  # fmt: skip
    changed, name = dict(state), str(rng.choice(list(state)))
    match int(rng.integers(0, 6)):
        case 0:
            changed[name] = changed[name].to(types[int(rng.integers(len(types)))])
        case 1:
            changed[name] = torch.zeros(tuple(rng.integers(0, 4, rng.integers(0, 4)).tolist()))
        case 2:
            changed[name] = torch.full_like(changed[name], float(rng.choice([math.nan, -math.inf, 3e38])))
        case 3:
            changed["other\u2028name\n"] = changed.pop(name)
        case 4:
            changed[name] = torch.full(changed[name].shape, 1e300, dtype=torch.float64)
        case _:
            pass
    return safetensors.torch.save(changed)
