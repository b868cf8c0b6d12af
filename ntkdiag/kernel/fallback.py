"""Kernels by the slow engines: exact, and plain autograd for parameters for which exact is found wrong."""

from __future__ import annotations

from torch import Tensor

from ntkdiag.kernel import autograd, exact
from ntkdiag.kernel.check import Check
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.row_grams import RowGradients, grouped_grams
from ntkdiag.kernel.sharded import gathered_whole, gathering_of

# In the coverage, of a network that `fully_shard` has sharded.
GATHERED = "the whole network gathered in each process"
# Fastest first.
ROW_ENGINES: dict[str, RowGradients] = {"exact": exact.row_gradients, "autograd": autograd.row_gradients}


def slow_grams(
    problem: Problem, cotangents: Tensor, check: Check, engine: str = "exact"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Gram matrices from row gradients.

    Args:
        problem: What is measured.
        cotangents: [R, N, *out].
        check: Compares each engine with plain autograd.
        engine: "exact" or "autograd".

    Returns:
        Group label → [R, N, N] float64 on the CPU, and parameter name → engine, with the reason if it is not `engine`, and
        whether a sharded network was gathered for it.
    """
    with gathered_whole(problem.module):
        grams, coverage = _slow_grams(problem, cotangents, check, engine)
    if gathering_of(problem.module) is not None:
        coverage = {name: noted(how, GATHERED) for name, how in coverage.items()}
    return grams, coverage


def _slow_grams(
    problem: Problem, cotangents: Tensor, check: Check, engine: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    names = list(problem.parameters)
    wrong: dict[str, str] = {}
    if engine == "exact":
        check.compare_rows(engine, exact.row_gradients, names)
        wrong = {name: why for name, why in check.known(engine).items() if name in problem.parameters}
        if problem.share is not None:  # all leave the same parameters to plain autograd
            every = problem.share.processes.each_says("verdict on the exact engine", wrong)
            wrong = {name: why for each in reversed(every) for name, why in each.items()}
    shares = {engine: [name for name in names if name not in wrong], "autograd": list(wrong)}
    if engine == "autograd":
        shares = {engine: names}
    grams: dict[str, Tensor] = {}
    for each, some in shares.items():
        if some:
            add_grams(grams, grouped_grams(ROW_ENGINES[each], problem.only(some), cotangents))
    coverage = {name: f"autograd (exact {wrong[name]})" if name in wrong else engine for name in names}
    return grams, coverage


def noted(how: str, what: str) -> str:
    """An entry of the coverage with one more remark in its brackets."""
    return f"{how[:-1]}; {what})" if how.endswith(")") else f"{how} ({what})"


def add_grams(grams: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    """Add Gram matrices of the same groups."""
    for label, gram in others.items():
        grams[label] = grams[label] + gram if label in grams else gram
