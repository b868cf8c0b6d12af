"""The promise: a rule is one decorated function in one file; tables, command line, audit and figures show it."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ntkdiag.cli import main
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.report.figures.weights import all_rules
from ntkdiag.weights import (
    RULES,
    Parameter,
    WeightTable,
    effective,
    evaluate,
    register_rule,
    rule,
    unregister_rule,
)
from ntkdiag.weights.audit import audit

EXAMPLE = Path(__file__).parents[3] / "docs" / "extend" / "weight_rule.py"
COSINE = schedules.cosine()
LEVEL = torch.linspace(-8, 8, 33, dtype=torch.float64)


def bell(center: float, width: float) -> torch.Tensor:
    return torch.exp(-((LEVEL - center) ** 2) / (2 * width**2))


@pytest.fixture
def example() -> Iterator[None]:
    """The rule of the example, registered during one test."""
    before = list(RULES)
    runpy.run_path(str(EXAMPLE))
    yield
    unregister_rule("bell")
    assert list(RULES) == before


def test_the_example_is_short_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 40
    try:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    finally:
        unregister_rule("bell")
    assert "note: equals: bell(center=1, width=2) on epsilon" in capsys.readouterr().out


@pytest.mark.usefixtures("example")
def test_it_is_evaluated_on_every_target() -> None:
    snr = LEVEL.exp()
    torch.testing.assert_close(evaluate("bell", "epsilon", LEVEL, center=1.0, width=3.0), bell(1.0, 3.0))
    torch.testing.assert_close(evaluate("bell", "v", LEVEL), bell(0.0, 2.0) * snr / (1 + snr))
    torch.testing.assert_close(effective("bell", "x0", COSINE, LEVEL), bell(0.0, 2.0) * COSINE.density(LEVEL))
    assert evaluate("bell", "epsilon", math.inf).item() == evaluate("bell", "epsilon", -math.inf).item() == 0
    with pytest.raises(InputError, match="width of rule 'bell': expected a number above 0; got 0"):
        evaluate("bell", "v", LEVEL, width=0)


@pytest.mark.usefixtures("example")
def test_a_table_of_it_is_exact_and_comes_back_from_its_file(tmp_path: Path) -> None:
    table = rule("bell", "v", COSINE, center=1.0)
    assert table.name == "bell(center=1, width=2)" and table.mean_under(COSINE) == pytest.approx(1.0)
    for suffix in ("csv", "json"):
        table.save(tmp_path / f"bell.{suffix}")
        assert torch.equal(WeightTable.load(tmp_path / f"bell.{suffix}")(LEVEL), table(LEVEL))


def test_a_file_of_a_rule_that_is_not_registered_says_so(tmp_path: Path) -> None:
    register_rule("tent", "x0", text="e^−|λ| on x0")(lambda log_snr: -log_snr.abs())
    rule("tent", "x0").save(tmp_path / "tent.csv")
    unregister_rule("tent")
    with pytest.raises(InputError, match=r"rule: expected one of .*got 'tent'"):
        WeightTable.load(tmp_path / "tent.csv")


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("said", ["bell", None])
@pytest.mark.parametrize(("center", "width"), [(1.0, 2.0), (-2.5, 4.0)])
def test_an_audit_names_it_with_its_parameters(center: float, width: float, said: str | None) -> None:
    def weights(log_snr: torch.Tensor) -> torch.Tensor:
        return 7 * torch.exp(-((log_snr - center) ** 2) / (2 * width**2))

    found = audit(weights, "epsilon", argument="log_snr", rule=said)
    assert found.rule == f"bell(center={center:g}, width={width:g}) on epsilon"
    assert found.ok and found.names == ("equals",)


@pytest.mark.usefixtures("example")
def test_an_audit_tells_other_parameters_and_the_wrong_target() -> None:
    def weights(snr: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(snr.log() ** 2) / 8)

    said = audit(weights, "epsilon", rule="bell", center=1.0)
    assert said.names[0] == "other_parameters" and "bell(center=0, width=2)" in said.findings[0].text
    assert audit(weights, "v", rule="bell").names[0] == "formula_of_another_target"


@pytest.mark.usefixtures("example")
def test_the_command_line_lists_and_makes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "--list"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[0] == "bell" and "on ε" in line and "center=0.0, width=2.0" in line
    assert main(["weights", "--rule", "bell", "--target", "v", "--option", "center=1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    table = rule("bell", "v", COSINE, center=1.0)
    assert document["name"] == table.name and document["weight"] == table.weight.tolist()


@pytest.mark.usefixtures("example")
def test_the_picture_of_all_rules_shows_it() -> None:
    shown = all_rules("v", COSINE)
    assert list(shown) == sorted(RULES, key=list(shown).index) and "bell" in shown
    assert torch.equal(shown["bell"](LEVEL), evaluate("bell", "v", LEVEL))


def test_a_rule_may_take_the_schedule_and_is_refused_without_one() -> None:
    @register_rule("over_density", "epsilon", text="1/p(λ) on ε")
    def over_density(log_snr: torch.Tensor, *, schedule: schedules.Schedule) -> torch.Tensor:
        return -schedule.density(log_snr).log()

    try:
        with pytest.raises(InputError, match="because the formula of rule 'over_density' takes it"):
            evaluate("over_density", "epsilon", LEVEL)
        with pytest.raises(InputError, match="schedule: expected the schedule trained on"):
            audit(lambda snr: snr, "epsilon", rule="over_density")
        weight = evaluate("over_density", "epsilon", LEVEL, COSINE)
        torch.testing.assert_close(weight * COSINE.density(LEVEL), torch.ones_like(LEVEL))
        table = rule("over_density", "epsilon", schedules.linear_log_snr(-5, 5))
        assert table.rule is not None and table.rule.schedule == schedules.linear_log_snr(-5, 5)
    finally:
        unregister_rule("over_density")


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("min_snr", {"gamma": Parameter(1.0)}, "name of a rule: expected a name that is not taken"),
        ("Mine", {"gamma": Parameter(1.0)}, "name of a rule: expected a lower-case identifier; got 'Mine'"),
        ("my-rule", {"gamma": Parameter(1.0)}, "expected a lower-case identifier"),
        ("mine", {}, "parameters of rule 'mine': expected the keywords of its function: gamma; got none"),
        ("mine", {"gama": Parameter(1.0)}, "the keywords of its function: gamma; got gama"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: str, parameters: dict, words: str) -> None:
    before = dict(RULES)
    with pytest.raises(InputError, match=words):
        register_rule(name, "x0", text="γ on x0", parameters=parameters)(lambda log_snr, *, gamma: log_snr)
    with pytest.raises(InputError, match="target"):
        register_rule("mine", "w", text="1 on w")(lambda log_snr: log_snr)
    assert dict(RULES) == before


def test_the_same_function_may_be_registered_again_as_a_notebook_does() -> None:
    for slope in (1.0, 2.0):

        @register_rule("again", "x0", text="SNR^slope on x0")
        def again(log_snr: torch.Tensor) -> torch.Tensor:
            return slope * log_snr  # noqa: B023

    assert evaluate("again", "x0", 1.0).item() == pytest.approx(math.exp(2.0))
    unregister_rule("again")
    with pytest.raises(InputError, match="rule: expected one of"):
        unregister_rule("again")


@pytest.mark.parametrize(
    ("parameter", "log_snr", "value"),
    [
        (Parameter(1.0, above=0.0), 2.0, math.exp(2.0)),
        (Parameter(1.0, at_least=0.0, bend="sigma"), 2.0, math.exp(-1.0)),
        (Parameter(1.0), -2.0, -2.0),
        (Parameter(1.0, at_least=-1.0), -2.0, -1.0),
        (Parameter(3.0, at_least=2.0), -2.0, 2.0),
    ],
)
def test_a_parameter_is_searched_by_the_level_of_its_bend_and_within_its_range(
    parameter: Parameter, log_snr: float, value: float
) -> None:
    assert parameter.at_bend(log_snr) == pytest.approx(value)
    assert parameter.check("it", parameter.at_bend(log_snr)) == pytest.approx(value)
    if value not in (-1.0, 2.0):
        assert parameter.bend_of(value) == pytest.approx(log_snr)
    open_end = Parameter(3.0, above=2.0)
    assert open_end.check("it", open_end.at_bend(-100.0)) > 2.0
    assert Parameter(1.0, at_least=0.0).bend_of(0.0) == -math.inf
    assert Parameter(1.0, at_least=0.0, bend="sigma").bend_of(0.0) == math.inf
