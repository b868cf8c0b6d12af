"""Audit: every rule is recognised from its numbers, however the function is written; the rest is described."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.weights import RULES, Refresher, WeightTable, effective, evaluate, rule
from ntkdiag.weights.audit import NAMES, TOLERANCE, AuditFinding, audit

Tensor = torch.Tensor
COSINE = schedules.cosine()
OFF_DEFAULT: dict[str, dict[str, float | str]] = {
    "min_snr": {"gamma": 0.7},
    "soft_min_snr": {"gamma": 20.0},
    "p2": {"k": 3.0, "gamma": 0.5},
    "edm": {"sigma_data": 2.0},
    "sigmoid": {"bias": -1.5},
}


def written(name: str, target: str, argument: str, schedule: object = None, **more: object) -> Callable:
    """A rule as a function of something else than log-SNR."""
    to_level: dict[str, Callable[[Tensor], Tensor]] = {
        "snr": lambda snr: snr.log(),
        "log_snr": lambda level: level,
        "sigma": lambda sigma: -2 * sigma.log(),
        "timesteps": lambda time: schedule.log_snr(time),  # type: ignore[attr-defined]
    }
    return lambda value: evaluate(name, target, to_level[argument](value), schedule, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("argument", ["snr", "log_snr", "sigma", "timesteps"])
@pytest.mark.parametrize("target", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_recognised_from_every_argument(name: str, target: str, argument: str) -> None:
    parameters = OFF_DEFAULT.get(name, {})
    function = written(name, target, argument, COSINE, **parameters)
    found = audit(lambda value: 3.0 * function(value), target, rule=name, argument=argument, schedule=COSINE)
    told = ", ".join(f"{key}={value:g}" for key, value in parameters.items())
    told = told or {"erd": "convention=vp"}.get(name, "")
    assert found.rule == f"{name}({told}) on {target}".replace("()", "")
    assert found.names[-1] == "equals" and "times 3" in found.findings[-1].text
    assert not {"differs", "another_rule", "other_parameters"} & set(found.names)


# Where training draws: everywhere, on a table of steps, at one end, and on a range too narrow to hold most bends.
PATHS = {
    "cosine": (COSINE, ("epsilon", "x0", "v", "score")),
    "linear_beta": (schedules.linear_beta(), ("epsilon", "x0", "v")),
    "noisy": (schedules.linear_log_snr(-9, -1), ("epsilon", "x0", "v")),
    "narrow": (schedules.linear_log_snr(-1, 1), ("epsilon", "x0", "v")),
    "flow": (schedules.flow(), ("flow",)),
    "edm": (schedules.edm(), ("F",)),
}


@pytest.mark.parametrize(
    ("path", "target"), [(path, target) for path, (_, targets) in PATHS.items() for target in targets]
)
@pytest.mark.parametrize("name", RULES)
def test_without_a_name_every_rule_is_found_as_itself(name: str, target: str, path: str) -> None:
    schedule = PATHS[path][0]
    for parameters in ({}, OFF_DEFAULT[name]) if name in OFF_DEFAULT else ({},):
        function = written(name, target, "log_snr", schedule, **parameters)
        found = audit(function, target, argument="log_snr", schedule=schedule)
        (equals,) = [finding.text for finding in found.findings if finding.name == "equals"]
        assert found.ok and found.rule is not None
        if "constant" in found.rule:  # at one end min-SNR is a constant, whose parameter no weight shows
            assert name == found.rule.partition(" ")[0] or name in ("min_snr", "truncated_snr")
        else:
            assert name in equals


def test_parameters_and_noise_levels_at_the_end_of_a_float_are_audited() -> None:
    assert audit(lambda snr: torch.ones_like(snr), "epsilon", rule="min_snr", gamma=1e308).ok
    found = audit(lambda snr: torch.ones_like(snr), "x0", rule="min_snr", gamma=1e308)
    assert found.names[0] == "another_rule"
    far = schedules.from_table(torch.linspace(709, -709, 50).tolist())
    made = audit(lambda level: torch.ones_like(level), "v", argument="log_snr", schedule=far)
    assert made.rule == "constant_v on v"
    assert (
        audit(lambda level: torch.exp(level / 9), "v", argument="log_snr", schedule=far, rule="edm").rule
        is None
    )


def test_of_rules_that_agree_the_simplest_is_named_first() -> None:
    for function, target, schedule, first in (
        (lambda level: torch.ones_like(level), "v", COSINE, "constant_v on v"),  # edm(sigma_data=1) too
        (lambda level: torch.ones_like(level), "flow", schedules.flow(), "uniform on flow"),  # erd too
        (
            lambda level: torch.exp(level / 2 - torch.nn.functional.softplus(level)),
            "v",
            COSINE,
            "debias on v",
        ),
        (lambda level: torch.sigmoid(-level).sqrt(), "epsilon", COSINE, "erd(convention=vp) on epsilon"),
    ):
        found = audit(function, target, argument="log_snr", schedule=schedule)
        assert found.rule == first and ", which is also " in str(found)


@pytest.mark.parametrize("target", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("plain", ["constant_epsilon", "constant_x0", "constant_v", "debias"])
@pytest.mark.parametrize("said", [name for name, rule in RULES.items() if rule.parameters])
def test_no_mistake_with_a_chosen_parameter_beats_a_plain_rule(plain: str, target: str, said: str) -> None:
    found = audit(written(plain, target, "log_snr"), target, argument="log_snr", schedule=COSINE, rule=said)
    assert found.rule is not None
    if found.names[0] == "another_rule":
        assert f"the weights are those of {plain} on {target}, not of {said}" in found.findings[0].text
    elif found.names[0] == "formula_of_another_target":  # with the defaults, which nobody chose
        reading = f"that are {said}({', '.join(f'{k}={v}' for k, v in DEFAULTS[said].items())}) on "
        assert reading in found.findings[0].text
    else:
        assert "equals" in found.names and found.rule.startswith(said)


DEFAULTS = {
    name: {
        key: parameter.default if isinstance(parameter.default, str) else f"{parameter.default:g}"
        for key, parameter in rule.parameters.items()
    }
    for name, rule in RULES.items()
}


@pytest.mark.parametrize("said", ["min_snr", "soft_min_snr", "p2", "edm", "erd"])
@pytest.mark.parametrize("target", ["epsilon", "x0"])
def test_weights_of_one_are_the_constant_and_no_mistake_in_another_rule(target: str, said: str) -> None:
    found = audit(lambda snr: torch.ones_like(snr), target, rule=said)
    assert [finding.name for finding in found.findings if finding.severity == "mistake"] == ["another_rule"]
    assert f"those of constant_{target} on {target}, not of {said}" in found.findings[0].text


@pytest.mark.parametrize("target", ["v", "x0"])
@pytest.mark.parametrize("said", [None, "erd", "min_snr", "debias", "edm"])
def test_the_erd_formula_of_another_target_is_named_so(target: str, said: str | None) -> None:
    found = audit(lambda snr: (1 + snr) ** -0.5, target, rule=said)
    assert found.names[0] == ("formula_of_another_target" if said in (None, "erd") else "another_rule")
    assert "formula_of_another_target" in found.names
    text = next(finding.text for finding in found.findings if finding.name == "formula_of_another_target")
    assert text.startswith(f"weights for {target} that are erd(convention=vp) on epsilon")
    assert text.endswith(f"the formula for epsilon, applied to {target}")


def test_ties_are_all_told() -> None:
    text = audit(lambda snr: (1 + snr) ** -0.5, "epsilon").findings[-1].text
    assert "p2(k=1, gamma=0.5) on epsilon" in text and "erd(convention=vp) on epsilon" in text
    text = audit(lambda snr: snr.sqrt() / (1 + snr), "v").findings[-1].text
    assert "debias on v" in text and "erd(convention=vp) on v" in text


@pytest.mark.parametrize("path", [schedules.flow(), schedules.edm()])
@pytest.mark.parametrize(("name", "target"), [("uniform", "flow"), ("cosmap", "flow"), ("edm", "F")])
def test_targets_of_a_path_are_recognised_with_it(name: str, target: str, path: schedules.Schedule) -> None:
    found = audit(written(name, target, "sigma", path), target, argument="sigma", schedule=path, rule=name)
    assert found.rule is not None and found.rule.startswith(name)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["min_snr", "soft_min_snr"]),
    bend=st.floats(-9, 9),
    factor=st.floats(1e-3, 1e3),
    target=st.sampled_from(["epsilon", "x0", "v"]),
)
def test_any_gamma_and_any_factor_are_found(name: str, bend: float, factor: float, target: str) -> None:
    gamma = math.exp(bend)
    found = audit(lambda snr: factor * evaluate(name, target, snr.log(), gamma=gamma), target, rule=name)
    assert found.rule is not None
    told = float(found.rule.partition("gamma=")[2].partition(")")[0])
    assert told == pytest.approx(gamma, rel=2e-3)


def test_a_difference_of_less_than_the_tolerance_is_none_and_of_more_is_one() -> None:
    for size, equal in ((0.8, True), (1.6, False)):
        found = audit(
            lambda s, size=size: s.clamp(max=5) * (1 + size * TOLERANCE * torch.sin(s.log())),
            "x0",
            rule="min_snr",
        )
        assert (found.rule is not None) is equal and found.ok is equal


def test_the_parameters_that_are_named_must_hold() -> None:
    sound = audit(lambda snr: snr.clamp(max=5), "x0", rule="min_snr", gamma=5)
    assert sound.ok and sound.names == ("equals",)
    # k-diffusion hides γ in σ_d: γ/σ_d² where γ is meant.
    hidden = audit(lambda snr: 20 * snr / (snr + 20), "x0", rule="soft_min_snr", gamma=5.0)
    assert not hidden.ok
    assert "those of soft_min_snr(gamma=20) on x0, not of gamma=5.0" in hidden.findings[0].text
    assert hidden.names[0] == "other_parameters"


def test_another_rule_is_named() -> None:
    found = audit(lambda snr: torch.maximum(snr, torch.ones_like(snr)), "x0", rule="soft_min_snr")
    assert found.names[0] == "another_rule" and not found.ok
    assert "those of truncated_snr on x0, not of soft_min_snr" in found.findings[0].text


def test_the_curve_the_largest_ratio_and_where() -> None:
    # min-SNR with a second ceiling: right up to log-SNR ln 5, then too low by (SNR/γ)^0.3.
    def bent(snr: Tensor) -> Tensor:
        return torch.where(snr <= 5, snr, 5 * (snr / 5) ** -0.3)

    found = audit(bent, "x0", rule="min_snr", gamma=5.0)
    (differs,) = [finding for finding in found.findings if finding.name == "differs"]
    assert not found.ok and differs.severity == "mistake"
    ratio = (math.exp(15) / 5) ** -0.3
    assert differs.log_snr == 15.0 and f"is {ratio:.3g}, at log-SNR 15" in differs.text
    assert "equal from -15 to 1.5" in differs.text
    assert list(found.curve.columns) == ["log_snr", "weight", "reference", "ratio"]
    assert found.curve["ratio"].iloc[-1] == pytest.approx(ratio)
    np.testing.assert_allclose(
        found.curve["reference"], np.minimum(np.exp(found.curve["log_snr"]), 5), rtol=1e-12
    )
    assert found.reference == "min_snr(gamma=5) on x0" and found.rule is None


def test_weights_of_nobody_are_no_mistake_if_nothing_is_said() -> None:
    found = audit(lambda snr: snr**0.3 / (1 + snr), "v", schedule=COSINE)
    assert found.ok and found.rule is None and "differs" in found.names


@pytest.mark.parametrize("name", ["min_snr", "erd", "sigmoid", "p2"])
@pytest.mark.parametrize("target", ["epsilon", "v"])
def test_the_effective_weight_is_that_of_the_rule(name: str, target: str) -> None:
    found = audit(written(name, target, "log_snr", COSINE), target, argument="log_snr", schedule=COSINE)
    level = torch.from_numpy(found.curve["log_snr"].to_numpy(copy=True))
    expected = effective(name, target, COSINE, level)
    np.testing.assert_allclose(found.curve["effective"], expected.numpy(), rtol=1e-10)


@pytest.mark.parametrize(
    ("function", "trend", "effective_trend"),
    [
        (lambda snr: torch.ones_like(snr), "constant", "falling"),
        (lambda snr: snr, "rising", "neither"),
        (lambda snr: snr**2, "rising", "rising"),
        (lambda snr: 1 / (1 + snr), "falling", "falling"),
        (lambda snr: snr**1.2 / (1 + snr) ** 1.4, "neither", "neither"),
    ],
)
def test_trends(function: Callable, trend: str, effective_trend: str) -> None:
    found = audit(function, "x0", schedule=COSINE)
    assert (found.trend, found.effective_trend) == (trend, effective_trend)
    assert audit(function, "x0").effective_trend is None


def test_the_effective_weight_of_the_sigmoid_rule_is_monotone() -> None:
    assert audit(written("sigmoid", "epsilon", "log_snr", COSINE), "epsilon", argument="log_snr",
                 schedule=COSINE).effective_trend == "falling"  # fmt: skip


def test_the_mean_and_what_it_does_to_the_learning_rate() -> None:
    path = schedules.linear_log_snr(-10, 10)
    found = audit(lambda snr: torch.clamp(5 / snr, max=1.0), "epsilon", schedule=path)
    bend = math.log(5)
    assert found.mean == pytest.approx((bend + 11 - math.exp(bend - 10)) / 20, rel=1e-3)
    (told,) = [finding for finding in found.findings if finding.name == "mean_not_one"]
    assert told.severity == "warning" and "0.63" in told.text and "learning rate" in told.text
    table = rule("min_snr", "epsilon", path)
    assert audit(table, schedule=path).mean == pytest.approx(1.0, abs=1e-3)
    assert audit(table, schedule=path).names == ("equals",)
    steps = schedules.from_table([2.0, 1.0, 0.0, -1.0, -2.0, -3.0])
    weight = torch.tensor([5.0, 1.0, 2.0, 3.0, 4.0, 9.0])
    assert audit(lambda t: weight[t], "v", argument="timesteps", schedule=steps).mean == pytest.approx(4.0)


def test_a_mean_that_its_tail_carries_is_told() -> None:
    found = audit(lambda snr: snr**-0.5, "epsilon", schedule=COSINE)
    (told,) = [finding for finding in found.findings if finding.name == "mean_unbounded"]
    assert told.log_snr == -15.0 and "mean_not_one" not in found.names
    assert (
        "mean_unbounded" not in audit(lambda snr: snr**-0.5, "v", schedule=schedules.linear_log_snr()).names
    )


def test_tables_and_files_are_read_by_log_snr(tmp_path: Path) -> None:
    made = rule("min_snr", "v", COSINE, gamma=3.0)
    made.save(tmp_path / "weights.csv")
    for given_as in (made, tmp_path / "weights.csv", str(tmp_path / "weights.csv")):
        found = audit(given_as, schedule=COSINE)
        assert found.ok and found.rule == "min_snr(gamma=3) on v" and found.argument == "log_snr"


def test_a_measured_table_is_compared_at_its_rows() -> None:
    rows = torch.linspace(-7, 7, 15, dtype=torch.float64)
    made = WeightTable(rows, evaluate("min_snr", "v", rows), "v")
    # Between two rows it is a straight line in ln w, which misses the bend by more than the tolerance.
    assert abs(made(0.5).item() / evaluate("min_snr", "v", 0.5).item() - 1) > TOLERANCE
    assert audit(made).rule == "min_snr(gamma=5) on v"


def test_too_few_rows_equal_nothing() -> None:
    rows = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    found = audit(WeightTable(rows, rows.exp(), "x0"))
    assert found.rule is None and found.ok


def test_a_table_for_another_target_is_a_mistake() -> None:
    found = audit(rule("min_snr", "epsilon"), "v")
    assert "table_for_another_target" in found.names and "formula_of_another_target" in found.names
    assert not found.ok
    assert audit(rule("min_snr", "epsilon"), "eps").ok


def test_a_refresher_is_audited_as_it_is_now() -> None:
    source = Refresher(lambda: (torch.zeros(2), torch.ones(2)), "v", COSINE)
    assert audit(source, schedule=COSINE).rule == "constant_v on v"


def test_diffusers_like_schedulers_give_timesteps_and_density() -> None:
    alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    scheduler = SimpleNamespace(alphas_cumprod=alphas, config={})
    snr = alphas / (1 - alphas)
    found = audit(lambda t: snr[t].clamp(max=5) / snr[t], "epsilon", argument="timesteps", schedule=scheduler,
                  rule="min_snr", gamma=5.0)  # fmt: skip
    assert found.ok and found.rule == "min_snr(gamma=5) on epsilon" and len(found.curve) == 500
    # The same against the exact schedule: float32 betas are within the tolerance.
    assert audit(
        lambda t: snr[t].clamp(max=5), "x0", argument="timesteps", schedule=schedules.linear_beta()
    ).rule
    flow = SimpleNamespace(sigmas=torch.linspace(1, 0.002, 500), config={"num_train_timesteps": 500})
    found = audit(lambda t: 2 / (math.pi * (1 - 2 * t / 500 + 2 * (t / 500) ** 2)), "flow", argument="timesteps",
                  schedule=flow)  # fmt: skip
    assert found.rule == "cosmap on flow"
    edm = SimpleNamespace(config={"sigma_data": 0.5})
    found = audit(lambda t: (torch.exp(4 * t) ** 2 + 0.25) / (torch.exp(4 * t) * 0.5) ** 2, "x0", argument="timesteps",
                  schedule=edm)  # fmt: skip
    assert found.rule == "edm(sigma_data=0.5) on x0"


def test_functions_of_numpy_are_called_with_numpy() -> None:
    def with_numpy(snr: np.ndarray) -> np.ndarray:
        if not isinstance(snr, np.ndarray):
            raise TypeError("numpy only")
        return np.minimum(snr, 5) / (snr + 1)

    found = audit(with_numpy, "v")
    assert found.rule == "min_snr(gamma=5) on v" and found.ok


def test_the_function_cannot_change_what_it_is_handed() -> None:
    def greedy(snr: Tensor) -> Tensor:
        return snr.clamp_(max=5).div_(snr + 1) * 0 + 1

    assert audit(greedy, "v").rule == "constant_v on v"


def test_an_audit_prints_and_is_json() -> None:
    found = audit(lambda snr: snr.clamp(max=5) / snr, "v", schedule=COSINE)
    lines = str(found).splitlines()
    assert lines[0] == "weights on v, a function of snr: not ok"
    assert lines[2].startswith("  mistake: formula_of_another_target: ")
    assert [finding.severity for finding in found.findings] == sorted(
        (finding.severity for finding in found.findings), key=["mistake", "warning", "note"].index
    )
    document = json.loads(json.dumps(found.describe(), allow_nan=False))
    assert document["ok"] is False and len(document["curve"]["weight"]) == 121
    assert {"-inf"} <= {finding["log_snr"] for finding in document["findings"]}


def test_finding_names_are_a_closed_list() -> None:
    with pytest.raises(InputError, match="Did you mean 'max_for_min'"):
        AuditFinding("max_for_mim", "note", "")
    with pytest.raises(InputError, match="severity"):
        AuditFinding("differs", "error", "")
    assert all(text for text in NAMES.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weights": 3.0}, "weights: expected a function, a weight table or the path of one; got float"),
        ({"weights": "missing.csv"}, r"missing\.csv: expected a readable file"),
        ({"target": None}, "target: expected the target the weights are applied to; got none"),
        ({"target": "velocity"}, "target: expected one of"),
        ({"argument": "t"}, "argument: expected one of snr, log_snr, sigma, timesteps"),
        ({"argument": "timesteps"}, "schedule: expected the schedule whose timesteps the function takes"),
        ({"rule": "min_sn"}, "Did you mean 'min_snr'"),
        ({"gamma": 5.0}, "rule: expected the rule that has gamma; got none"),
        ({"rule": "min_snr", "gama": 5.0}, "Did you mean 'gamma'"),
        ({"rule": "min_snr", "gamma": -1.0}, "gamma of rule 'min_snr'"),
        ({"rule": "sigmoid"}, "schedule: expected the schedule trained on; got none"),
        ({"target": "flow"}, "schedule: expected the schedule trained on; got none"),
        ({"schedule": object()}, "scheduler: expected a scheduler with"),
    ],
)
def test_what_cannot_be_audited_is_refused(arguments: dict[str, object], words: str) -> None:
    call: dict[str, object] = {"weights": torch.sqrt, "target": "v", **arguments}
    with pytest.raises(InputError, match=words):
        audit(**call)  # type: ignore[arg-type]


def test_a_function_that_fails_on_everything_is_refused_in_one_line() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("first line\nsecond line")

    with pytest.raises(
        InputError, match="weights for a batch of snr; got RuntimeError: first line"
    ) as caught:
        audit(broken, "v")
    assert "second" not in str(caught.value)
    for returned in (None, "text", {"weight": 1}, torch.tensor([1j])):
        with pytest.raises(InputError, match="it returned"):
            audit(lambda _, returned=returned: returned, "v")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_curve_that_is_no_weight_somewhere_is_named_by_where_it_is_one(bad: float) -> None:
    # From log-SNR 10 on, as after an overflow in half precision.
    found = audit(
        lambda snr: torch.where(snr > 2e4, bad, snr.clamp(max=5) / snr), "epsilon", rule="min_snr", gamma=5.0
    )
    (differs,) = [finding for finding in found.findings if finding.name == "differs"]
    assert found.reference == "min_snr(gamma=5) on epsilon" and found.rule is None and not found.ok
    assert "equal from -15 to 9.75" in differs.text
    unsaid = audit(lambda snr: torch.where(snr > 2e4, bad, snr.clamp(max=5) / snr), "epsilon")
    assert unsaid.reference == "min_snr(gamma=5) on epsilon" and "equal from -15 to 9.75" in str(unsaid)


def test_weights_in_a_sparse_tensor_are_weights() -> None:
    found = audit(lambda snr: snr.clamp(max=5).to_sparse(), "x0", rule="min_snr", gamma=5.0)
    assert found.rule == "min_snr(gamma=5) on x0" and found.ok


def test_whole_numbers_beyond_a_float_are_refused() -> None:
    for said in ({"gamma": 10**400}, {"gamma": -(10**400)}):
        with pytest.raises(InputError, match="gamma of rule 'min_snr': expected a number above 0"):
            audit(lambda snr: snr, "x0", rule="min_snr", **said)
    with pytest.raises(InputError, match="clip: expected a number above 0"):
        rule("min_snr", "v", clip=10**400)
