"""Remedies: every argument that an error names has an option, and is spelled as the command types it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ntkdiag
from ntkdiag.cli.app import COMMANDS
from ntkdiag.cli.options.remedies import parameter_of, spelled

ROOT = Path(ntkdiag.__file__).parent
# Errors of `integrations` reach users of Python alone.
FILES = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "integrations"]
# What a Denoiser is made with in Python, which no command does for a network of the user's.
OF_DENOISERS = {"conditions", "null", "sigma_data"}
OPTIONS = {name for command in COMMANDS for name in inspect.signature(command).parameters}


def keywords(name: str) -> Iterator[tuple[str, ast.expr]]:
    """The value of every keyword argument of that name in a call, with its place."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg == name:
                    yield f"{path.relative_to(ROOT)}:{keyword.value.lineno}", keyword.value


def test_every_argument_of_a_remedy_has_an_option() -> None:
    named = {
        ast.literal_eval(key): place
        for place, value in keywords("arguments")
        if isinstance(value, ast.Dict)
        for key in value.keys
        if isinstance(key, ast.Constant)
    }
    assert {"clip", "normalise", "schedule"} <= named.keys()
    assert named.keys() >= OF_DENOISERS
    known = OPTIONS | OF_DENOISERS
    assert {name: place for name, place in named.items() if parameter_of(name) not in known} == {}


def test_no_remedy_spells_an_argument_as_plain_text() -> None:
    """A remedy that says "clip=5" could not be translated: its arguments stand in braces."""
    texts = {place: ast.unparse(value) for place, value in keywords("fix")}
    # What Denoiser and @claim take, and a function of Python: none of them an option.
    allowed = ("a call=function(", "reads=[", "dataclasses.replace(")
    found = {
        place: text
        for place, text in texts.items()
        if re.search(r"\b[a-z_]+=", text) and not any(word in text for word in allowed)
    }
    assert len(texts) > 20 and found == {}


@pytest.mark.parametrize(
    ("argument", "value", "text"),
    [
        ("clip", None, "--clip"),
        ("normalise", False, "--no-normalise"),
        ("schedule", "ntkdiag.schedules.flow()", "--schedule flow"),
        ("score", "'amplitude'", "--score amplitude"),
        ("classes", "K", "--model-option classes=K"),
        ("load_check", False, "--no-load-check"),
        ("params", None, "params="),
    ],
)
def test_an_argument_is_spelled_as_the_option_that_takes_it(argument: str, value: object, text: str) -> None:
    parameters = {"clip", "normalise", "schedule", "score", "model_option", "load_check"}
    assert spelled(argument, value, parameters) == text
