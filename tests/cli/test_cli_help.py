"""`--help`: whole sentences, every choice, every default, and examples that the commands accept."""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import Any

import pytest

from ntkdiag.claims.levels import DEFAULT_SIZES, LEVELS
from ntkdiag.cli.app import command_line
from ntkdiag.cli.options import choices
from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.data import DATASETS
from ntkdiag.diagnosis import FullSettings
from ntkdiag.kernel.engines import ENGINES
from ntkdiag.kernel.gram import KERNELS
from ntkdiag.models import MODELS
from ntkdiag.process.buckets import DEFAULT_COUNT
from ntkdiag.process.schedules import SCHEDULES
from ntkdiag.process.target import TARGETS
from ntkdiag.report.drawing.theme import THEMES
from ntkdiag.train import PRESETS, TrainConfig
from ntkdiag.train.config import OPTIMIZERS
from ntkdiag.train.sampling import SAMPLERS
from ntkdiag.weights import RULES, SCORES
from ntkdiag.weights.audit.argument import ARGUMENTS

COMMANDS = command_line().commands
OPTIONS = [(name, option) for name, command in COMMANDS.items() for option in command.params]
EVERY_OPTION = pytest.mark.parametrize(
    ("name", "option"), OPTIONS, ids=[f"{name}-{option.name}" for name, option in OPTIONS]
)
EVERY_COMMAND = pytest.mark.parametrize("name", COMMANDS)
# Which choices stand in the help of an option.
LISTED = {
    "model": MODELS, "data": DATASETS, "schedule": SCHEDULES, "target": TARGETS, "call": choices.CALLS,
    "engine": ENGINES, "kernel": choices.KERNELS, "level": LEVELS, "rule": RULES, "score": SCORES, "preset": PRESETS,
    "setting": choices.SETTINGS, "sampler": SAMPLERS, "argument": ARGUMENTS, "theme": THEMES, "weights": RULES,
}  # fmt: skip


@EVERY_OPTION
def test_every_option_is_explained_in_whole_sentences(name: str, option: Any) -> None:
    assert re.match(r"[A-Z]", option.help or ""), option.help
    assert option.help.endswith(".") and "  " not in option.help
    assert not re.match(r"(Of|For|Beside|Under|At) ", option.help)


@EVERY_OPTION
def test_every_option_says_how_its_value_is_typed(name: str, option: Any) -> None:
    assert getattr(option, "is_flag", False) or option.metavar


@EVERY_OPTION
def test_the_choices_of_an_option_are_listed(name: str, option: Any) -> None:
    if option.name in LISTED and (name, option.name) != ("audit", "weights"):
        words = set(re.findall(r"\w+", option.help))
        assert set(LISTED[option.name]) <= words


def test_the_lists_of_choices_are_those_of_the_rooms_that_own_them() -> None:
    """They are repeated for help, which needs no torch."""
    settings = {field.name for field in dataclasses.fields(TrainConfig)}
    with_own_options = {"steps", "batch", "learning_rate", "optimizer", "align", "seed"}
    for listed, owned in [
        (choices.MODELS, MODELS), (choices.DATASETS, DATASETS), (choices.SCHEDULES, SCHEDULES),
        (choices.TARGETS, TARGETS), (choices.ENGINES, ENGINES), (choices.RULES, RULES), (choices.SCORES, SCORES),
        (choices.PRESETS, PRESETS), (choices.ARGUMENTS, ARGUMENTS), (choices.THEMES, THEMES),
        (choices.SAMPLERS, SAMPLERS), (choices.SETTINGS, settings - with_own_options), (choices.OPTIMIZERS, OPTIMIZERS),
    ]:  # fmt: skip
        assert set(listed) == set(owned) and len(listed) == len(owned)
    assert set(choices.KERNELS) <= set(KERNELS)
    assert list(choices.LEVELS) == list(LEVELS)


def test_the_settings_of_refresh_are_listed() -> None:
    from ntkdiag.cli.inputs.weighting import _PROBE, _REFRESHER

    (option,) = [option for option in COMMANDS["train"].params if option.name == "weights"]
    assert {*_PROBE, *_REFRESHER} <= set(re.findall(r"\w+", option.help))


def test_the_defaults_that_help_names_are_the_real_ones() -> None:
    from ntkdiag.cli.inputs.loading import load

    shown = {
        option.name: option.show_default for _, option in OPTIONS if isinstance(option.show_default, str)
    }
    loaded = load(ModelOptions(model="mlp"))
    assert shown["data"] == loaded.data.name
    measure = {option.name: option.show_default for option in COMMANDS["measure"].params}
    assert (
        measure["schedule"] == loaded.denoiser.schedule.name and measure["target"] == loaded.denoiser.target
    )
    assert DEFAULT_SIZES.buckets == DEFAULT_COUNT == 10  # as the help of --buckets says
    assert shown["range"].startswith("where the schedule trains")
    assert (shown["top_k"], shown["slq"]) == (
        str(FullSettings().top_k),
        str(FullSettings().quadrature_vectors),
    )


@EVERY_COMMAND
def test_help_shows_options_under_their_titles(call: Any, name: str) -> None:
    result = call(name, "--help")
    assert result.code == 0 and result.err == ""
    assert f"ntkdiag {name}" in result.out
    options = result.out.partition("\nOptions:\n")[2]
    assert "--json" in options and "--model " not in options
    for option in COMMANDS[name].params:
        assert option.metavar is None or option.metavar in result.out


def test_titles_come_from_the_groups(call: Any) -> None:
    text = call("measure", "--help").out
    titles = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    assert titles == ["Network and data", "Measurement", "Full kernel", "Options"]
    assert "--probes" in text.partition("Measurement:")[2].partition("Full kernel:")[0]
    assert text.count("--seed") == 2  # the option, and the sentence that names it


@EVERY_COMMAND
def test_every_command_has_an_example_that_it_accepts(name: str) -> None:
    examples = COMMANDS[name].help.partition("Example")[2].replace("\\\n", " ")
    lines = [line.strip() for line in examples.splitlines() if line.strip().startswith("ntkdiag ")]
    assert lines
    for line in lines:
        program, command, *arguments = shlex.split(line)
        assert (program, command) == ("ntkdiag", name)
        COMMANDS[name].make_context(name, arguments)  # parses them; raises an error of usage otherwise
