"""Audit: mistakes from public code, each planted as it was written there and found by its name."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ntkdiag.process import schedules
from ntkdiag.weights import evaluate, rule
from ntkdiag.weights.audit import NAMES, Audit, audit
from ntkdiag.weights.rules.catalogue import RULES

Tensor = torch.Tensor
GAMMA = 5.0
BETAS = schedules.linear_beta()


def mistakes(found: Audit) -> set[str]:
    return {finding.name for finding in found.findings if finding.severity == "mistake"}


def rescaled() -> tuple[Tensor, schedules.Schedule]:
    """SNR of every step of DDPM's betas before, and the schedule after, zero terminal SNR."""
    level = torch.tensor(BETAS.levels, dtype=torch.float64)  # type: ignore[attr-defined]
    root = torch.sigmoid(level).sqrt()
    after = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return level.exp(), schedules.from_table(after.log() - torch.log1p(-after))


BEFORE, ZERO_TERMINAL = rescaled()


@pytest.mark.parametrize("said", ["min_snr", None])
@pytest.mark.parametrize(
    ("target", "function"),
    [
        ("epsilon", lambda snr: torch.stack([snr, GAMMA * torch.ones_like(snr)], 1).max(dim=1)[0] / snr),
        ("v", lambda snr: torch.maximum(snr, torch.full_like(snr, 3.0)) / (snr + 1)),
        ("x0", lambda snr: snr.clamp(min=GAMMA)),  # denoising-diffusion-pytorch#363: clamp_(min=) for max=
    ],
)
def test_max_for_min(target: str, function: Callable, said: str | None) -> None:
    found = audit(function, target, rule=said)
    assert mistakes(found) == {"max_for_min"}
    assert "max(SNR, γ)" in found.findings[0].text


def test_max_with_gamma_one_is_the_truncated_rule_unless_min_snr_was_meant() -> None:
    function = lambda snr: snr.clamp(min=1.0)  # noqa: E731
    assert audit(function, "x0").rule == "truncated_snr on x0"
    assert mistakes(audit(function, "x0", rule="min_snr")) == {"max_for_min"}


@pytest.mark.parametrize("said", ["p2", None])
@pytest.mark.parametrize(
    ("distort", "name"),
    [
        (torch.sqrt, "snr_not_squared"),
        (torch.square, "snr_squared_twice"),
        (torch.reciprocal, "snr_inverted"),
    ],
)
def test_another_power_of_snr(distort: Callable, name: str, said: str | None) -> None:
    found = audit(lambda snr: (1 + distort(snr)) ** -0.7, "epsilon", rule=said)
    assert mistakes(found) == {name}
    found = audit(
        lambda snr: distort(snr).clamp(max=GAMMA) / distort(snr), "epsilon", rule="min_snr", gamma=GAMMA
    )
    assert mistakes(found) == {name}


def test_the_inverse_snr_is_another_min_snr_unless_gamma_is_named() -> None:
    # min(1/SNR, γ)/(1 + 1/SNR) = γ·min(SNR, 1/γ)/(1 + SNR).
    function = lambda snr: torch.clamp(1 / snr, max=GAMMA) / (1 + 1 / snr)  # noqa: E731
    assert audit(function, "v").rule == "min_snr(gamma=0.2) on v"
    assert mistakes(audit(function, "v", rule="min_snr", gamma=GAMMA)) == {"snr_inverted"}
    assert mistakes(audit(function, "v", rule="min_snr", gamma=3.0)) == {"other_parameters"}


def test_snr_of_sigma_that_was_not_squared() -> None:
    # SNR = 1/σ where 1/σ² is meant.
    found = audit(lambda sigma: torch.clamp(sigma**-1.0, max=GAMMA), "x0", argument="sigma", rule="min_snr")
    assert mistakes(found) == {"snr_not_squared"}
    assert "α/σ was taken for the SNR" in found.findings[0].text


@pytest.mark.parametrize("said", ["min_snr", None])
def test_the_epsilon_formula_used_for_v(said: str | None) -> None:
    found = audit(lambda snr: snr.clamp(max=GAMMA) / snr, "v", rule=said)
    assert mistakes(found) == {"formula_of_another_target"}
    assert "min_snr(gamma=5) on epsilon: the formula for epsilon, applied to v" in found.findings[0].text


@pytest.mark.parametrize("name", ["min_snr", "soft_min_snr", "p2"])
@pytest.mark.parametrize(
    ("source", "target"), [("epsilon", "v"), ("epsilon", "x0"), ("v", "epsilon"), ("x0", "v")]
)
def test_any_formula_on_another_target(name: str, source: str, target: str) -> None:
    found = audit(lambda level: evaluate(name, source, level), target, argument="log_snr", rule=name)
    assert mistakes(found) == {"formula_of_another_target"}
    assert f"applied to {target}" in found.findings[0].text


def test_debias_on_v_without_the_root() -> None:
    # sd-scripts#1058
    found = audit(lambda snr: 1 / (snr + 1), "v", rule="debias")
    assert mistakes(found) == {"debias_without_root"}
    unsaid = audit(lambda snr: 1 / (snr + 1), "v")
    assert unsaid.ok and unsaid.rule == "constant_x0 on v" and "debias_without_root" in unsaid.names
    assert "debias_without_root" not in audit(lambda snr: 1 / (snr + 1), "epsilon").names


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda snr: snr.clamp(max=GAMMA) / snr + 1, "weight_plus_one"),
        (lambda snr: (snr + 1).clamp(max=GAMMA) / (snr + 1), "snr_plus_one"),
    ],
)
@pytest.mark.parametrize("said", ["min_snr", None])
def test_the_ones_that_were_added_for_v(function: Callable, name: str, said: str | None) -> None:
    assert mistakes(audit(function, "v", rule=said)) == {name}


def test_nan_at_zero_snr() -> None:
    snr = ZERO_TERMINAL.alpha(torch.tensor(ZERO_TERMINAL.levels)) ** 2  # type: ignore[attr-defined]
    snr = snr / (1 - snr)
    found = audit(lambda t: snr[t].clamp(max=GAMMA) / snr[t], "epsilon", argument="timesteps",
                  schedule=ZERO_TERMINAL, rule="min_snr")  # fmt: skip
    assert mistakes(found) == {"not_finite_at_zero_snr"}
    assert found.findings[0].text == "nan at SNR 0, which the schedule draws"
    assert found.findings[0].log_snr == -math.inf
    sound = audit(lambda t: snr[t].clamp(max=GAMMA) / (1 + snr[t]), "v", argument="timesteps", schedule=ZERO_TERMINAL,
                  rule="min_snr")  # fmt: skip
    assert sound.ok


def test_nan_at_zero_snr_is_a_warning_where_it_is_not_drawn() -> None:
    function = lambda snr: snr.clamp(max=GAMMA) / snr  # noqa: E731
    for schedule, told in ((None, "if it is ever drawn"), (BETAS, "which this schedule does not draw")):
        found = audit(function, "epsilon", schedule=schedule)
        (warning,) = [finding for finding in found.findings if finding.name == "not_finite_at_zero_snr"]
        assert found.ok and warning.severity == "warning" and told in warning.text
    within = audit(lambda t: function(BEFORE[t]), "epsilon", argument="timesteps", schedule=BETAS)
    assert "not_finite_at_zero_snr" not in within.names


def test_an_infinite_weight_at_zero_snr() -> None:
    found = audit(lambda level: torch.exp(-level / 2), "epsilon", argument="log_snr", schedule=ZERO_TERMINAL)
    assert mistakes(found) == {"not_finite_at_zero_snr"} and found.findings[0].text.startswith("inf at SNR 0")


def test_a_finite_but_wrong_weight_at_zero_snr() -> None:
    patched = lambda snr: torch.nan_to_num(snr.clamp(max=GAMMA) / snr, nan=0.0)  # noqa: E731
    found = audit(patched, "epsilon", schedule=ZERO_TERMINAL)
    assert mistakes(found) == {"wrong_at_zero_snr"}
    assert "0 where the limit of min_snr(gamma=5) on epsilon is 1" in found.findings[0].text
    assert audit(
        lambda snr: torch.nan_to_num(snr.clamp(max=GAMMA) / snr, nan=1.0), "epsilon", schedule=ZERO_TERMINAL
    ).ok


@pytest.mark.parametrize("said", ["min_snr", None])
@pytest.mark.parametrize(("target", "plus"), [("epsilon", 0), ("v", 1)])
@pytest.mark.parametrize("gamma", [5.0, 1.0])
def test_snr_taken_before_the_betas_were_rescaled(
    target: str, plus: int, gamma: float, said: str | None
) -> None:
    # sd-scripts#1263
    function = lambda t: BEFORE[t].clamp(max=gamma) / (BEFORE[t] + plus)  # noqa: E731
    found = audit(function, target, argument="timesteps", schedule=ZERO_TERMINAL, rule=said)
    assert "snr_before_rescale" in mistakes(found)
    root = torch.sigmoid(BEFORE[-1].log()).sqrt().item()
    told = float(found.findings[0].text.partition("√ᾱ_T was ")[2].partition(")")[0])
    assert told == pytest.approx(root, rel=0.05)
    assert audit(function, target, argument="timesteps", schedule=BETAS, rule=said).ok


def test_nan_without_noise() -> None:
    found = audit(lambda snr: snr / (1 + snr), "v")
    (told,) = [finding for finding in found.findings if finding.name == "not_finite_at_infinite_snr"]
    assert told.severity == "warning" and told.log_snr == math.inf
    # SNR on x0 is meant to grow without bound.
    assert "not_finite_at_infinite_snr" not in audit(lambda snr: snr, "x0").names


def test_one_scalar_for_the_batch() -> None:
    # numpy's .min(axis)[0] is a number; torch's .min(dim)[0] is the vector of minima.
    def as_published(snr: Tensor) -> np.ndarray:
        both = np.stack([np.asarray(snr), GAMMA * np.ones(len(snr))], axis=1)
        return both.min(axis=1)[0] / np.asarray(snr)

    found = audit(as_published, "epsilon", rule="min_snr")
    assert mistakes(found) == {"one_scalar_for_batch"}
    assert found.rule == "min_snr(gamma=5) on epsilon"


@pytest.mark.parametrize(
    "function",
    [
        lambda snr: snr.clamp(max=GAMMA)[0],
        lambda snr: snr.clamp(max=GAMMA)[:1],
        lambda snr: snr.clamp(max=GAMMA)[0].item(),
        lambda snr: snr.clamp(max=GAMMA)[0].expand(len(snr)),
        lambda snr: snr.clamp(max=GAMMA).mean(),
    ],
)
def test_one_scalar_for_the_batch_in_other_dress(function: Callable) -> None:
    found = audit(function, "x0")
    assert mistakes(found) == {"one_scalar_for_batch"} and found.rule == "min_snr(gamma=5) on x0"


@pytest.mark.parametrize("constant", [1.0, torch.tensor(2.0), torch.tensor([2.0]), np.float32(2.0)])
def test_one_number_is_right_where_all_weights_are_equal(constant: object) -> None:
    found = audit(lambda _: constant, "v")
    assert found.ok and found.rule == "constant_v on v"


def test_weights_that_are_normalised_over_the_batch() -> None:
    def normalised(snr: Tensor) -> Tensor:
        weight = snr.clamp(max=GAMMA)
        return weight / weight.mean()

    found = audit(normalised, "x0")
    assert mistakes(found) == {"depends_on_batch"} and found.rule == "min_snr(gamma=5) on x0"


def test_weights_of_another_shape() -> None:
    column = audit(lambda snr: snr.clamp(max=GAMMA)[:, None], "x0")
    assert mistakes(column) == {"wrong_shape"} and column.rule == "min_snr(gamma=5) on x0"
    assert "(121, 1) for a batch of shape (121,)" in column.findings[0].text
    assert mistakes(audit(lambda snr: snr.clamp(max=GAMMA)[:, None] * torch.ones(2), "x0")) == {"wrong_shape"}


def test_weights_that_are_drawn_at_random() -> None:
    generator = torch.Generator().manual_seed(0)
    found = audit(lambda snr: torch.rand(len(snr), generator=generator), "v")
    assert "not_repeatable" in mistakes(found)


def test_a_function_that_fails_on_batches_alone() -> None:
    found = audit(lambda snr: min(snr, torch.tensor(GAMMA)), "x0")
    assert mistakes(found) == {"fails"} and "on a batch of 121: RuntimeError" in found.findings[0].text
    assert found.rule == "min_snr(gamma=5) on x0"


def test_negative_and_nan_weights_in_the_middle() -> None:
    found = audit(lambda level: torch.sin(level), "v", argument="log_snr")
    assert "negative" in mistakes(found)
    found = audit(
        lambda level: torch.where(level.abs() < 0.5, math.nan, level.exp()), "v", argument="log_snr"
    )
    assert "not_finite" in mistakes(found)
    told = next(finding for finding in found.findings if finding.name == "not_finite")
    assert told.log_snr == -0.25 and "3 of 121 noise levels" in told.text


def test_two_mistakes_at_once_get_two_findings() -> None:
    found = audit(lambda snr: snr.clamp(min=GAMMA) / snr, "v", rule="min_snr")
    assert mistakes(found) == {"formula_of_another_target", "max_for_min"}
    found = audit(lambda snr: snr.sqrt().clamp(max=GAMMA) / snr.sqrt(), "v", rule="min_snr")
    assert mistakes(found) == {"formula_of_another_target", "snr_not_squared"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    # 1 − ᾱ in half precision: α² = sigmoid(λ) rounds to one long before SNR overflows.
    def cancels(level: Tensor) -> Tensor:
        alpha_squared = torch.sigmoid(level)
        return torch.clamp(alpha_squared / (1 - alpha_squared), max=1e4)

    found = audit(cancels, "x0", argument="log_snr", rule="min_snr")
    assert any(dtype in finding.text for finding in found.findings if finding.name == "half_precision")
    assert found.ok and found.rule == "min_snr(gamma=1e+04) on x0"


def test_half_precision_that_overflows_to_nan_and_one_that_does_not() -> None:
    overflows = audit(lambda snr: snr / (1 + snr), "v")
    (told,) = [finding for finding in overflows.findings if finding.name == "half_precision"]
    # float16 ends at 65504, e^11.09.
    assert "nan in float16" in told.text and told.log_snr == 11.25
    assert audit(lambda level: torch.sigmoid(level), "v", argument="log_snr").names == ("equals",)
    assert audit(rule("min_snr", "v")).names == ("equals",)


def test_the_functions_of_this_package_pass_their_own_audit() -> None:
    for name in RULES:
        for target in ("epsilon", "x0", "v"):
            made = rule(name, target, schedules.linear_log_snr(-9, 9))
            found = audit(made, schedule=schedules.linear_log_snr(-9, 9), rule=name)
            assert found.ok and not {"mean_not_one", "half_precision", "differs"} & set(found.names), str(
                found
            )


def test_every_name_is_one_that_some_test_provokes() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_weights_audit*.py"))
    assert [name for name in NAMES if f'"{name}"' not in tests] == []
