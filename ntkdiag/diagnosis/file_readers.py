"""Read tables and tensors of a diagnosis folder exactly as they were written, or say in one line what is wrong."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ntkdiag.errors import InputError, first_line

_TRUTH = {"True": True, "False": False}


def read_table(path: Path, columns: tuple[str, ...], words: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a CSV table; numbers and truth values come back exactly.

    Args:
        path: The file.
        columns: Columns that the table must have; it may have others.
        words: Columns that may hold text; all others hold numbers or truth values.

    Raises:
        InputError: no such file, no table, a column that is missing or not of numbers.
    """
    try:
        texts = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(str(path), expected="a table of the diagnosis", got="no such file") from None
    except (ValueError, OSError) as error:
        raise InputError(str(path), expected="a CSV table", got=first_line(error)) from error
    table = pd.DataFrame({name: _values(texts[name].tolist()) for name in texts.columns})
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(str(path), expected="columns " + ", ".join(columns), got=f"none named {missing[0]}")
    if table.empty:
        return table.astype("float64")  # without rows the type is unknown
    for name in table.columns:
        if name not in words and not is_numeric_dtype(table[name]):
            raise InputError(
                str(path), expected=f"numbers in column {name}", got=repr(_first_text(texts[name]))
            )
    return table


def read_tensors(path: Path, names: tuple[str, ...], kind: str) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: The file.
        names: Tensors that the file must have; it may have others.
        kind: What a tensor is called in the error message.

    Raises:
        InputError: no such file, another format, or a tensor that is missing.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(str(path), expected="a safetensors file", got=first_line(error)) from error
    for name in names:
        if name not in tensors:
            raise InputError(str(path), expected=f"a {kind} named {name}", got=", ".join(tensors) or "none")
    return tensors


def _values(texts: list[str]) -> list[int] | list[float] | list[bool] | list[str]:
    """A column as integers, else floats, else truth values, else text; Python's own parser rounds correctly."""
    try:
        return [int(text) for text in texts]
    except ValueError:
        pass
    try:
        return [float(text or "nan") for text in texts]
    except ValueError:
        return [_TRUTH[text] for text in texts] if _TRUTH.keys() >= set(texts) else texts


def _first_text(column: pd.Series) -> str:
    """The first entry that is no number."""
    return next((text for text in column if isinstance(_values([text])[0], str)), "")
