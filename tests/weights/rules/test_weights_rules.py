"""Every rule against its formula in 60 decimal digits, the identities between rules, and their limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, getcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.target import TARGETS, convert, value
from ntkdiag.weights import RULES, effective, evaluate
from ntkdiag.weights.rules.evaluate import log_gain

getcontext().prec = 60
PI = Decimal("3.14159265358979323846264338327950288419716939937510")
LEVELS = (-80.0, -40.5, -20.0, -3.3, -0.1, 0.0, math.log(5.0), 2.7, 20.25, 60.0, 80.0)
VP_TARGETS = ("epsilon", "x0", "v")
# Rules that are one objective on all targets, with parameters off their defaults as well.
CASES: dict[str, tuple[str, dict[str, float], dict[str, Callable[[Decimal], Decimal]]]] = {
    "constant_epsilon": (
        "constant_epsilon",
        {},
        {"x0": lambda s: s, "epsilon": lambda s: Decimal(1), "v": lambda s: s / (1 + s)},
    ),
    "constant_x0": (
        "constant_x0",
        {},
        {"x0": lambda s: Decimal(1), "epsilon": lambda s: 1 / s, "v": lambda s: 1 / (1 + s)},
    ),
    "constant_v": (
        "constant_v",
        {},
        {"x0": lambda s: 1 + s, "epsilon": lambda s: 1 + 1 / s, "v": lambda s: Decimal(1)},
    ),
    "min_snr": (
        "min_snr",
        {},
        {
            "x0": lambda s: min(s, Decimal(5)),
            "epsilon": lambda s: min(Decimal(1), 5 / s),
            "v": lambda s: min(s, Decimal(5)) / (1 + s),
        },
    ),
    "min_snr gamma 1/4": (
        "min_snr",
        {"gamma": 0.25},
        {"x0": lambda s: min(s, Decimal("0.25")), "v": lambda s: min(s, Decimal("0.25")) / (1 + s)},
    ),
    "soft_min_snr": (
        "soft_min_snr",
        {},
        {
            "x0": lambda s: 5 * s / (s + 5),
            "epsilon": lambda s: 5 / (s + 5),
            "v": lambda s: 5 * s / ((s + 5) * (1 + s)),
        },
    ),
    "p2": ("p2", {}, {"x0": lambda s: s / (1 + s), "epsilon": lambda s: 1 / (1 + s)}),
    "p2 k 3 gamma 1/2": (
        "p2",
        {"k": 3, "gamma": 0.5},
        {
            "x0": lambda s: s / (3 + s).sqrt(),
            "epsilon": lambda s: 1 / (3 + s).sqrt(),
            "v": lambda s: s / (1 + s) / (3 + s).sqrt(),
        },
    ),
    "p2 k 0": ("p2", {"k": 0, "gamma": 2}, {"epsilon": lambda s: 1 / s**2}),
    "debias": (
        "debias",
        {},
        {"x0": lambda s: s.sqrt(), "epsilon": lambda s: 1 / s.sqrt(), "v": lambda s: s.sqrt() / (1 + s)},
    ),
    "truncated_snr": (
        "truncated_snr",
        {},
        {
            "x0": lambda s: max(s, Decimal(1)),
            "epsilon": lambda s: max(Decimal(1), 1 / s),
            "v": lambda s: max(s, Decimal(1)) / (1 + s),
        },
    ),
    "edm": (
        "edm",
        {},
        {"x0": lambda s: s + 4, "epsilon": lambda s: 1 + 4 / s, "v": lambda s: (s + 4) / (1 + s)},
    ),
    "edm sigma_data 2": ("edm", {"sigma_data": 2.0}, {"x0": lambda s: s + Decimal("0.25")}),
    "uniform": (
        "uniform",
        {},
        {"x0": lambda s: (1 + s.sqrt()) ** 2, "epsilon": lambda s: (1 + 1 / s.sqrt()) ** 2},
    ),
    "cosmap": ("cosmap", {}, {"x0": lambda s: 2 / PI * (1 + s.sqrt()) ** 4 / (1 + s)}),
}


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(left: torch.Tensor, right: torch.Tensor, tolerance: float = 1e-12) -> None:
    assert left.shape == right.shape
    torch.testing.assert_close(left, right, rtol=tolerance, atol=0.0)


@pytest.mark.parametrize("case", CASES)
def test_a_rule_is_its_formula_to_twelve_digits_from_minus_80_to_80(case: str) -> None:
    rule, parameters, formulas = CASES[case]
    for target, formula in formulas.items():
        exact = [float(formula(Decimal(level).exp())) for level in LEVELS]
        close(evaluate(rule, target, tensor(*LEVELS), **parameters), tensor(*exact))


def test_every_rule_is_tested_against_a_formula() -> None:
    assert {rule for rule, _, _ in CASES.values()} | {"sigmoid", "erd"} == set(RULES)


def test_edm_is_one_on_its_own_target_for_any_data_scale() -> None:
    for sigma_data in (0.5, 1.0, 3.0):
        path = schedules.edm(sigma_data=sigma_data)
        close(
            evaluate("edm", "F", tensor(*LEVELS), path, sigma_data=sigma_data),
            torch.ones(len(LEVELS)).double(),
        )


def test_uniform_and_cosmap_are_the_published_functions_of_time_on_the_linear_path() -> None:
    path = schedules.flow()
    time = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    close(evaluate("uniform", "flow", path.log_snr(time), path), torch.ones(50).double())
    close(evaluate("cosmap", "flow", path.log_snr(time), path), 2 / (math.pi * (1 - 2 * time + 2 * time**2)))


def test_cosmap_under_uniform_time_samples_like_the_cosine_path() -> None:
    # w_u(cosmap)·p_flow must be p_cosine: the paper's own definition of the map.
    level = torch.linspace(-12, 12, 49, dtype=torch.float64)
    weight = evaluate("cosmap", "flow", level, schedules.flow())
    close(weight * schedules.flow().density(level), schedules.cosine().density(level))


def test_ties_between_rules() -> None:
    level = tensor(*LEVELS)
    for target in VP_TARGETS:
        close(evaluate("constant_v", target, level), evaluate("edm", target, level, sigma_data=1.0))
        close(evaluate("debias", target, level), evaluate("p2", target, level, k=0.0, gamma=0.5))
        for gamma in (0.3, 1.0, 5.0):
            soft = evaluate("soft_min_snr", target, level, gamma=gamma)
            close(soft, gamma * evaluate("p2", target, level, k=gamma, gamma=1.0))
    path = schedules.edm(sigma_data=0.5)
    soft_on_f = evaluate("soft_min_snr", "F", level, path, gamma=4.0)
    close(soft_on_f, evaluate("erd", "F", level, path) ** 2)


def test_soft_min_snr_lies_below_min_snr_and_by_half_at_most() -> None:
    level = torch.linspace(-15, 15, 301, dtype=torch.float64)
    ratio = evaluate("soft_min_snr", "v", level) / evaluate("min_snr", "v", level)
    assert (ratio < 1).all() and (ratio >= 0.5 - 1e-12).all()


@pytest.mark.parametrize(
    ("rule", "target", "at_zero_snr", "at_infinite_snr"),
    [
        ("constant_epsilon", "v", 0.0, 1.0),
        ("constant_v", "x0", 1.0, math.inf),
        ("constant_v", "epsilon", math.inf, 1.0),
        ("min_snr", "epsilon", 1.0, 0.0),
        ("min_snr", "x0", 0.0, 5.0),
        ("min_snr", "v", 0.0, 0.0),
        ("soft_min_snr", "epsilon", 1.0, 0.0),
        ("soft_min_snr", "x0", 0.0, 5.0),
        ("p2", "epsilon", 1.0, 0.0),
        ("debias", "v", 0.0, 0.0),
        ("debias", "epsilon", math.inf, 0.0),
        ("truncated_snr", "v", 1.0, 1.0),
        ("edm", "x0", 4.0, math.inf),
        ("erd", "epsilon", 1.0, 0.0),
        ("erd", "x0", 0.0, 1.0),
        ("erd", "v", 0.0, 0.0),
    ],
)
def test_limits_at_zero_and_infinite_snr(
    rule: str, target: str, at_zero_snr: float, at_infinite_snr: float
) -> None:
    for side, limit in ((-math.inf, at_zero_snr), (math.inf, at_infinite_snr)):
        if math.isinf(limit):
            with pytest.raises(InputError, match=r"finite weight; got inf at log-SNR -?inf\..*clip="):
                evaluate(rule, target, side)
            assert evaluate(rule, target, side, clip=7.0).item() == 7.0
        else:
            assert evaluate(rule, target, side).item() == pytest.approx(limit, rel=1e-13, abs=0.0)


def test_limits_do_not_disturb_their_finite_neighbours() -> None:
    level = tensor(-math.inf, 0.0, math.inf, 1.5)
    weight = evaluate("min_snr", "epsilon", level)
    assert weight[0] == 1 and weight[2] == 0
    close(weight[[1, 3]], evaluate("min_snr", "epsilon", level[[1, 3]]))


def test_a_slow_power_still_has_the_right_limit() -> None:
    assert evaluate("p2", "epsilon", math.inf, gamma=1e-3).item() == 0.0
    assert evaluate("p2", "epsilon", math.inf, gamma=0.0).item() == 1.0


def test_limits_hold_on_targets_that_depend_on_the_path() -> None:
    assert evaluate("min_snr", "F", -math.inf, schedules.edm()).item() == 0.0
    assert evaluate("constant_v", "flow", -math.inf, schedules.flow()).item() == pytest.approx(1.0, rel=1e-13)
    assert evaluate("constant_epsilon", "flow", math.inf, schedules.flow()).item() == pytest.approx(
        1.0, rel=1e-13
    )
    assert evaluate("constant_epsilon", "score", -math.inf, schedules.cosine()).item() == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from([name for name in RULES if name != "erd"]),
    path=st.sampled_from(["cosine", "flow", "edm", "linear_beta", "linear_log_snr"]),
    other=st.sampled_from(TARGETS),
    level=st.floats(-9.0, 9.0),
    seed=st.integers(0, 2**20),
)
def test_the_weighted_loss_is_the_same_whatever_target_it_is_written_on(
    rule: str, path: str, other: str, level: float, seed: int
) -> None:
    schedule = schedules.named(path)
    generator = torch.Generator().manual_seed(seed)
    x0, epsilon, guess = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    x = schedule.diffuse(x0, epsilon, level)

    def loss(target: str) -> torch.Tensor:
        prediction = convert(guess, x, level, schedule, "v", target)
        error = (prediction - value(target, schedule, level, x0, epsilon)).square().mean()
        return evaluate(rule, target, level, schedule) * error

    torch.testing.assert_close(loss(other), loss("v"), rtol=1e-6, atol=0.0)


def test_erd_is_never_converted_between_targets() -> None:
    level = tensor(-2.0, 0.0, 2.0)
    on_epsilon, on_v = evaluate("erd", "epsilon", level), evaluate("erd", "v", level)
    snr = level.exp()
    converted = on_epsilon * snr / (1 + snr)
    assert ((converted / on_v) / (converted / on_v)[0] - 1).abs().max() > 0.1


@pytest.mark.parametrize("path", ["cosine", "edm", "flow", "linear_log_snr"])
def test_sigmoid_has_the_effective_weight_of_its_paper_under_any_sampling(path: str) -> None:
    schedule = schedules.named(path)
    level = torch.linspace(-8, 8, 33, dtype=torch.float64)
    for target in ("epsilon", "v", "F", "flow"):
        shown = effective("sigmoid", target, schedule, level, bias=1.0)
        close(shown, torch.sigmoid(1.0 - level), 1e-11)
    weight = evaluate("sigmoid", "epsilon", level, schedule, bias=1.0)
    close(weight * schedule.density(level), torch.sigmoid(1.0 - level))


def test_effective_weight_is_the_weight_on_epsilon_times_the_density() -> None:
    path = schedules.cosine()
    level = torch.linspace(-10, 10, 41, dtype=torch.float64)
    sech = 1 / torch.cosh(level / 2)
    # Constant v loss on the cosine path: (1 + 1/SNR) sech(λ/2)/2π = e^{−λ/2}/π (Kingma & Gao 2023, table 1).
    for target in TARGETS:
        close(effective("constant_v", target, path, level), torch.exp(-level / 2) / math.pi, 1e-11)
    # ERD on v: ½ sech(λ/2) on v is ½ sech(λ/2)(1 + 1/SNR) on ε.
    close(effective("erd", "v", path, level), sech / 2 * (1 + torch.exp(-level)) * sech / (2 * math.pi))


def test_effective_weight_is_zero_where_training_never_looks() -> None:
    path = schedules.linear_log_snr(-5, 5)
    shown = effective("sigmoid", "epsilon", path, tensor(-math.inf, -6.0, 0.0, 6.0, math.inf))
    assert shown[[0, 1, 3, 4]].tolist() == [0.0] * 4
    assert shown[2] == pytest.approx(torch.sigmoid(tensor(2.0)).item())


def test_effective_weight_is_clipped_on_the_target() -> None:
    path = schedules.cosine()
    clipped = effective("debias", "epsilon", path, -10.0, clip=3.0)
    close(clipped, 3.0 * path.density(-10.0))


def test_log_gain_is_the_ratio_of_squared_errors() -> None:
    path = schedules.edm()
    level = tensor(-3.0, 0.4, 5.0)
    close(log_gain("epsilon", None, level), level)
    close(log_gain("v", None, level), torch.log1p(level.exp()))
    close(log_gain("F", path, level), torch.log(level.exp() + 4))


def test_shape_and_dtype_follow_the_input() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        weight = evaluate("min_snr", "v", torch.zeros(2, 3, dtype=dtype))
        assert weight.dtype == dtype and weight.shape == (2, 3)
    assert evaluate("min_snr", "v", 1.0).dtype == torch.float64
    assert evaluate("min_snr", "v", 1.0).shape == ()
    assert evaluate("min_snr", "v", torch.zeros(0)).shape == (0,)
    assert evaluate("min_snr", "v", torch.tensor([0, 1])).dtype == torch.float64


def test_a_number_is_not_rounded_to_single_precision() -> None:
    assert evaluate("debias", "x0", 0.1).item() == pytest.approx(math.exp(0.05), rel=1e-15)


def test_single_precision_is_computed_in_double() -> None:
    level = torch.linspace(-60, 60, 101)
    close(evaluate("soft_min_snr", "v", level), evaluate("soft_min_snr", "v", level.double()).float(), 1e-7)


def test_half_precision_overflow_is_refused_not_returned() -> None:
    with pytest.raises(InputError, match=r"finite weight; got inf at log-SNR 20"):
        evaluate("constant_epsilon", "x0", torch.tensor([20.0], dtype=torch.float16))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: evaluate("min_snrr", "v", 0.0), "Did you mean 'min_snr'"),
        (lambda: evaluate("edm2", "v", 0.0), r"learned.*Use 'edm'.*Refresher"),
        (lambda: evaluate("min_snr", "w", 0.0), "target: expected one of epsilon"),
        (lambda: evaluate("min_snr", "v", 0.0, gama=1), r"parameter of rule 'min_snr'.*Did you mean 'gamma'"),
        (
            lambda: evaluate("debias", "v", 0.0, gamma=1),
            r"rule 'debias': expected no parameters; got 'gamma'",
        ),
        (
            lambda: evaluate("min_snr", "v", 0.0, gamma=0),
            r"gamma of rule 'min_snr': expected a number above 0; got 0",
        ),
        (lambda: evaluate("min_snr", "v", 0.0, gamma=math.nan), "gamma of rule"),
        (lambda: evaluate("min_snr", "v", 0.0, gamma=True), "gamma of rule"),
        (lambda: evaluate("min_snr", "v", 0.0, gamma="5"), "gamma of rule"),
        (lambda: evaluate("p2", "v", 0.0, k=-1), r"k of rule 'p2': expected a number of at least 0; got -1"),
        (lambda: evaluate("erd", "v", 0.0, convention="paper"), "expected one of vp, raw, official"),
        (
            lambda: evaluate("sigmoid", "epsilon", 0.0),
            r"schedule: expected a schedule, because the formula of rule 'sigmoid'",
        ),
        (lambda: evaluate("min_snr", "F", 0.0), r"schedule: expected a schedule, because target F"),
        (lambda: evaluate("min_snr", "v", math.nan), "log_snr: expected numbers; got NaN"),
        (lambda: evaluate("min_snr", "v", 0.0, clip=0.0), "clip: expected a number above 0"),
        (lambda: evaluate("min_snr", "v", 0.0, clip=math.inf), "clip: expected a number above 0; got inf"),
        (
            lambda: effective("min_snr", "v", schedules.cosine(), 0.0, clip=-1),
            "clip: expected a number above 0",
        ),
        (
            lambda: evaluate("sigmoid", "v", 12.0, schedules.linear_log_snr()),
            "finite weight; got inf at log-SNR 12",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_names_are_read_as_papers_spell_them() -> None:
    close(evaluate("min-SNR", "v_prediction", 1.0), evaluate("min_snr", "v", 1.0))
