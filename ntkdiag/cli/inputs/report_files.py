"""Files that plot and report read beside a diagnosis: weight tables, training runs and verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.options import parsing
from ntkdiag.errors import InputError, first_line

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.weights import WeightTable


def weight_tables(items: list[str] | None) -> dict[str, WeightTable] | None:
    """The tables of [NAME=]FILE items, by the given name or else by their own."""
    from ntkdiag.weights import WeightTable

    tables: dict[str, WeightTable] = {}
    for name, path in parsing.named_paths(items):
        table = WeightTable.load(path)
        _add(tables, "--table", name or table.name, table)
    return tables or None


def runs(items: list[str] | None) -> dict[str, Any] | None:
    """The training runs of [NAME=]FOLDER items, by the given name or else by that of the folder."""
    from ntkdiag.cli.inputs.training_runs import read_run

    found: dict[str, Any] = {}
    for name, path in parsing.named_paths(items):
        _add(found, "--run", name or Path(path).resolve().name, read_run(Path(path)))
    return found or None


def verdicts(path: Path | None, diagnosis: Diagnosis) -> pd.DataFrame | None:
    """Verdicts from a file or a folder of 'ntkdiag verify'; without a path, those of the diagnosis itself.

    Returns:
        None without a path, if the diagnosis is too small to test the claims.
    """
    import pandas as pd

    from ntkdiag.claims import COLUMNS, judge

    if path is None:
        try:
            return judge(diagnosis)
        except InputError:
            return None
    path = path / "verdicts.csv" if path.is_dir() else path
    try:
        table = pd.read_csv(path, keep_default_na=True)
    except (OSError, ValueError) as error:
        raise InputError(
            str(path),
            expected="verdicts.csv, as 'ntkdiag verify --out' writes it",
            got=first_line(error),
        ) from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InputError(str(path), expected="columns " + ", ".join(COLUMNS), got=f"none named {missing[0]}")
    return table.fillna({"note": "", "test": ""})


def _add(found: dict[str, Any], option: str, name: str, value: Any) -> None:
    if name in found:
        raise InputError(
            option, expected="one of each name", got=f"two named '{name}'", fix="Name them: NAME=PATH."
        )
    found[name] = value
