"""Files that plot and report read beside a diagnosis: weight tables, training runs and verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag import provenance
from ntkdiag.cli.options import parsing
from ntkdiag.errors import InputError, first_line

if TYPE_CHECKING:
    from ntkdiag.claims import Verification
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


def verdicts(path: Path | None, diagnosis: Diagnosis) -> Verification | None:
    """The answer in a file or a folder of 'ntkdiag verify'; without a path, that of the diagnosis itself.

    Returns:
        None without a path, if the diagnosis is too small to say anything.
    """
    from ntkdiag.claims import Verification
    from ntkdiag.report.page.page import answer_of

    if path is None:
        return answer_of(diagnosis)
    path = path / "verdicts.json" if path.is_dir() else path
    expected = "verdicts.json, as 'ntkdiag verify --out' writes it of one network"
    try:
        document = json.loads(provenance.read_text(path))
    except ValueError as error:
        raise InputError(str(path), expected=expected, got=first_line(error)) from error
    try:
        return Verification.from_document(document, diagnosis)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(path), expected=expected, got=first_line(error)) from error


def _add(found: dict[str, Any], option: str, name: str, value: Any) -> None:
    if name in found:
        raise InputError(
            option, expected="one of each name", got=f"two named '{name}'", fix="Name them: NAME=PATH."
        )
    found[name] = value
