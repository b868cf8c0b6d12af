"""Files of weight tables: CSV to read and plot anywhere, JSON for machines; both bit-exact.

A CSV opens with lines '# key: value' (format, name, target, rule, meta), then the columns log_snr,
weight and, where the weights have intervals, low and high. A file that is read is checked.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from ntkdiag.errors import InputError, require_one_of, require_path
from ntkdiag.provenance import read_text, write_text

FORMAT = "ntkdiag weight table 1"
_HEADER = ("format", "name", "target", "rule", "meta")
_OBJECTS = ("rule", "meta")
_COLUMNS = ("log_snr", "weight", "low", "high")


class RuleFile(BaseModel):
    """The closed form behind a table."""

    model_config = ConfigDict(strict=True, extra="forbid")

    rule: str
    parameters: dict[str, float | str]
    clip: float | None
    schedule: dict[str, Any] | None
    scale: float

    @field_validator("schedule")
    @classmethod
    def _named(cls, schedule: dict[str, Any] | None) -> dict[str, Any] | None:
        if schedule is not None and not isinstance(schedule.get("name"), str):
            raise ValueError("a schedule has a name")
        return schedule


class TableFile(BaseModel):
    """The content of a weight-table file; grids and values are checked by `WeightTable`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["ntkdiag weight table 1"]
    name: str
    target: str
    rule: RuleFile | None = None
    meta: dict[str, Any] = {}
    log_snr: list[float]
    weight: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


def write(path: Path | str, content: dict[str, Any]) -> None:
    """Write CSV or JSON, chosen by the suffix, whole or not at all.

    Args:
        path: Ends in .csv or .json.
        content: The fields of `TableFile` but for its format; None is left out.

    Raises:
        InputError: another suffix, a folder that cannot be written to, or meta that JSON cannot hold.
    """
    encode = {".csv": _to_csv, ".json": _to_json}[_suffix(path)]
    try:
        text = encode(
            {"format": FORMAT, **{key: value for key, value in content.items() if value is not None}}
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"meta of {path}", expected="values JSON can hold", got=str(error)) from error
    write_text(path, text)


def read(path: Path | str) -> TableFile:
    """Read what `write` wrote.

    Raises:
        InputError: the file is missing, is not text, or is not a weight table (a wrong row is named).
    """
    suffix = _suffix(path)
    text = read_text(path)
    fields = _from_csv(str(path), text) if suffix == ".csv" else _parse_json(str(path), text)
    try:
        return TableFile.model_validate(fields)
    except ValidationError as error:
        raise _one_line(str(path), error) from None


def _to_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _to_csv(content: dict[str, Any]) -> str:
    header = {
        key: json.dumps(content[key], allow_nan=False) if key in _OBJECTS else content[key]
        for key in _HEADER
        if key in content
    }
    columns = [name for name in _COLUMNS if name in content]
    lines = [f"# {key}: {value}" for key, value in header.items()]
    lines.append(",".join(columns))
    # repr of a float is the shortest text that reads back to the same bits.
    rows = zip(*(content[name] for name in columns), strict=True)
    lines += [",".join(map(repr, row)) for row in rows]
    return "\n".join(lines) + "\n"


def _from_csv(path: str, text: str) -> dict[str, Any]:
    """The fields of a CSV file, numbers parsed, not yet checked."""
    lines = text.splitlines()
    header = [line for line in lines if line.startswith("#")]
    fields: dict[str, Any] = {}
    for line in header:
        key, colon, value = line[1:].partition(":")
        if colon and key.strip() in _HEADER:
            fields[key.strip()] = value.strip()
    for key in _OBJECTS:
        if key in fields:
            fields[key] = _parse_json(f"{path}, line '# {key}:'", fields[key])
    rest = "\n".join(line for line in lines if line and not line.startswith("#"))
    try:
        body = list(csv.reader(io.StringIO(rest)))
    except csv.Error as error:
        raise InputError(path, expected="a CSV table", got=str(error)) from None
    names = [name.strip() for name in body[0]] if body else []
    if names not in (list(_COLUMNS[:2]), list(_COLUMNS)):
        raise InputError(
            path,
            expected="the columns log_snr,weight or log_snr,weight,low,high",
            got=",".join(names) or "none",
        )
    columns: dict[str, list[float]] = {name: [] for name in names}
    for number, row in enumerate(body[1:], start=1):
        if len(row) != len(names):
            raise InputError(f"{path}, row {number}", expected=f"{len(names)} values", got=f"{len(row)}")
        for name, value in zip(names, row, strict=True):
            columns[name].append(_number(f"{path}, row {number}, {name}", value))
    return {**fields, **columns}


def _number(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(what, expected="a number", got=repr(text)) from None


def _parse_json(what: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a mere ValueError
        raise InputError(what, expected="JSON", got=str(error)) from None
    if not isinstance(value, dict):
        raise InputError(what, expected="a JSON object", got=type(value).__name__)
    return value


def _one_line(path: str, error: ValidationError) -> InputError:
    """The first thing pydantic found, as one line that names the row."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if len(place) == 2 and place[0] in _COLUMNS:
        place = [f"row {int(place[1]) + 1}", place[0]]
    message = first["msg"]
    got = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
    return InputError(f"{path}, {' '.join(place)}", expected=message[0].lower() + message[1:], got=got)


def _suffix(path: Path | str) -> str:
    name = require_path("file of a weight table", path)
    return require_one_of(f"suffix of {path}", name.suffix.lower(), (".csv", ".json"))
