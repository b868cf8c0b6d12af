"""Runs the engine that the user asks for on checked inputs, and the next slower one where it is found wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ntkdiag.distributed import Processes, Share, in_step
from ntkdiag.distributed.alike import Fact, of_values, of_weights, require_alike
from ntkdiag.errors import (
    InputError,
    MeasurementError,
    NtkdiagError,
    first_line,
    listed,
    require_one_of,
    require_positive_int,
    require_type,
)
from ntkdiag.kernel.autograd import gradients_set_aside
from ntkdiag.kernel.check import Check, CheckOnce
from ntkdiag.kernel.directions import Directions
from ntkdiag.kernel.fallback import GATHERED, noted, slow_grams
from ntkdiag.kernel.guards import guarded_output, require_same
from ntkdiag.kernel.inference_mode import outside_inference_mode, usable
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.preconditioner import checked
from ntkdiag.kernel.problem import Problem, few_samples
from ntkdiag.kernel.sharded import gathered, gathering_of
from ntkdiag.kernel.sketch import sketch_of
from ntkdiag.kernel.streaming import gram_streaming
from ntkdiag.kernel.streaming.memory import is_out_of_memory
from ntkdiag.kernel.streaming.refusal import SeveralSweeps
from ntkdiag.modes import measuring

# What the user may ask for → the engines that are tried, until one agrees with plain autograd.
ENGINES = {
    "auto": ("streaming", "exact", "autograd"),
    "streaming": ("streaming", "exact", "autograd"),
    "exact": ("exact", "autograd"),
    "autograd": ("autograd",),
    "sketch": ("streaming", "exact", "autograd"),
}
# k: numbers along each side of a sketched gradient.
SKETCH = 64


@dataclass(frozen=True)
class Measured:
    """Result of an engine.

    Attributes:
        per_probe: [R, N, N] float64 on the CPU.
        engine: streaming, sketch, exact or autograd, joined by " + " where some parameters needed a slower one.
        coverage: Parameter name → how its gradient was obtained.
        parameters: P, scalar parameters the kernel is over.
        groups: Group label → [R, N, N].
        sketched: Whether entries are those of sketched gradients.
    """

    per_probe: Tensor
    engine: str
    coverage: dict[str, str]
    parameters: int
    groups: dict[str, Tensor] = field(default_factory=dict)
    sketched: bool = False


def run(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    directions: Directions,
    *,
    params: str | Sequence[str] | None = None,
    engine: str = "auto",
    memory: int | None = None,
    group: Callable[[str], str] | None = None,
    preconditioner: dict[str, Tensor] | None = None,
    check: bool | CheckOnce = True,
    sketch: int = SKETCH,
    seed: int = 0,
    may_sketch: bool = False,
    distributed: bool = False,
) -> Measured:
    """Gram matrices of J_iᵀ v by one engine; see `gram_of` for the other arguments.

    Args:
        directions: See `ntkdiag.kernel.directions`.
        check: Also a `CheckOnce`, for several calls of one network.
        may_sketch: Whether "auto" sketches more samples than fit into one sweep; without a preconditioner.

    Raises:
        InputError: shapes that do not fit, unknown engine, nothing to differentiate by, processes that were given different
            things.
        MeasurementError: samples are not independent of each other, parameters have no gradient, or no engine agrees with
            plain autograd.
    """
    processes = Processes() if distributed else None
    with in_step(processes), gathered(processes, module):
        require_one_of("engine", engine, ENGINES)
        if memory is not None:
            require_positive_int("memory, in bytes", memory)
        require_type("module", module, nn.Module, "a torch.nn.Module")
        samples = require_batch(inputs)
        parameters = select_parameters(module, params)
        with outside_inference_mode(), measuring(module), gradients_set_aside(module):
            problem = Problem(
                module,
                parameters,
                tuple(usable(tensor) for tensor in inputs),
                directions,
                group or (lambda name: ""),
                {name: 1 / p for name, p in checked(preconditioner, parameters).items()},
                memory,
                in_one_sweep=engine == "auto" and may_sketch and preconditioner is None,
                share=None if processes is None else Share(processes, samples),
            )
            if processes is not None:
                require_alike(processes, _given(problem, engine, sketch, seed))
            if engine == "sketch":
                problem = _sketched(problem, sketch, seed)
            try:
                grams, coverage = _grams(problem, engine, check)
            except SeveralSweeps as several:
                why = f"{problem.samples} samples, and memory for {several.fit} in one sweep"
                if isinstance(check, CheckOnce):
                    check.forget(problem)
                problem = _sketched(problem, sketch, seed)
                grams, coverage = _grams(problem, "sketch", check, why)
    total = sum(list(grams.values())[1:], start=next(iter(grams.values())))
    count = sum(p.numel() for p in parameters.values())
    sketched = problem.sketch is not None
    return Measured(total, _engines_of(coverage, sketched), coverage, count, grams if group else {}, sketched)


def _given(problem: Problem, engine: str, sketch: int, seed: int) -> dict[str, Fact]:
    """What all processes must have in common."""
    gathering = gathering_of(problem.module)
    own = {n: p for n, p in problem.parameters.items() if gathering is None or not gathering.serves(p)}
    return {
        "number of samples": problem.samples,
        "inputs": ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in problem.inputs),
        "values of the inputs (a sum)": sum(of_values(tensor) for tensor in problem.inputs),
        "parameters": listed(problem.parameters),
        "weights (a checksum)": of_weights(own),
        "engine": engine,
        "sketch": sketch,
        "seed": seed,
        "memory": str(problem.memory),
    }


def _sketched(problem: Problem, size: int, seed: int) -> Problem:
    """The problem of the sketched gradients."""
    found = sketch_of(size, seed, problem.parameters, problem.inverse_preconditioner)
    return replace(problem, sketch=found, inverse_preconditioner={}, in_one_sweep=False)


def _grams(
    problem: Problem, engine: str, check: bool | CheckOnce, why: str = ""
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Gram matrices by group and coverage, checked as asked for."""
    checking = check.check(problem) if isinstance(check, CheckOnce) else Check(problem, active=bool(check))
    grams, coverage = _checked_grams(problem, checking, ENGINES[engine])
    if not checking.active and not any(gram.any() for gram in grams.values()):
        checking = Check(problem)  # zeros may be what is left of products that underflow
        grams, coverage = _checked_grams(problem, checking, ENGINES[engine])
    if checking.active:
        checking.require_gradient()
    if problem.sketch is None:
        return grams, coverage
    how = f"; sketch of {problem.sketch.size}" + (f" ({why})" if why else "")
    whole = {name for name, p in problem.parameters.items() if problem.sketch.keeps_whole(p.shape)}
    return grams, {name: c if name in whole or c == "unused" else c + how for name, c in coverage.items()}


def _checked_grams(
    problem: Problem, check: Check, engines: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Gram matrices by group and coverage, by the first engine whose whole result agrees with plain autograd."""
    reason = ""
    for engine in engines:
        try:
            grams, coverage = _grams_by(engine, problem, check)
        except (torch.OutOfMemoryError, NtkdiagError):
            raise
        except RuntimeError as error:  # as a traced or an exported module raises in all engines but autograd
            if engine == engines[-1]:
                raise
            reason = f"{engine}: {first_line(error)}"
            continue
        wrong = check.compare_groups(grams)
        if not wrong:
            why = f" ({reason})" if reason else ""
            return grams, {name: how + why for name, how in coverage.items()}
        reason = f"{engine}: the sum over parameters {next(iter(wrong.values()))}"
    raise MeasurementError(f"kernel: expected what plain autograd finds for two samples; got {reason}.")


def _grams_by(engine: str, problem: Problem, check: Check) -> tuple[dict[str, Tensor], dict[str, str]]:
    processes = None if problem.share is None else problem.share.processes
    with in_step(processes):
        if engine == "streaming":
            grams, coverage = _streamed(problem, check)
        else:
            grams, coverage = slow_grams(problem, _guarded_directions(problem, check), check, engine)
    if processes is None:
        return grams, coverage
    coverage = processes.each_says("coverage", coverage)[0]
    return {label: processes.of_first("kernel", grams[label]) for label in sorted(grams)}, coverage


def _streamed(problem: Problem, check: Check) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Gram matrices by group and coverage; a sharded network that cannot run a unit at a time is gathered whole."""
    gathering = gathering_of(problem.module)
    if gathering is None or gathering.whole:
        found = gram_streaming(problem, check)
        return found.groups, found.coverage
    try:
        with gathering.processes.in_step():
            found = gram_streaming(problem, check)
    except NtkdiagError:
        raise
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        with gathering.all_gathered():
            found = gram_streaming(problem, check)
        why = f"{GATHERED}: {first_line(error)}"
        coverage = {n: how if GATHERED in how else noted(how, why) for n, how in found.coverage.items()}
        return found.groups, coverage
    return found.groups, found.coverage


def _engines_of(coverage: dict[str, str], sketched: bool) -> str:
    """The engines that the coverage speaks of."""
    slow = {
        engine for engine in ("exact", "autograd") for how in coverage.values() if how.split(" ")[0] == engine
    }
    fast = any(how.split(" ")[0] not in ("exact", "autograd") for how in coverage.values())
    name = "sketch" if sketched else "streaming"
    return " + ".join([*([name] if fast or sketched else []), *sorted(slow, reverse=True)])


def require_batch(inputs: tuple[Tensor, ...]) -> int:
    """The number of samples in `inputs`.

    Raises:
        InputError: they are no tuple of tensors with one N of at least 1.
    """
    if not isinstance(inputs, (tuple, list)) or not all(isinstance(t, Tensor) for t in inputs) or not inputs:
        raise InputError("inputs", expected="a tuple of tensors [N, ...]", got=type(inputs).__name__)
    counts = [tensor.shape[0] if tensor.ndim else None for tensor in inputs]
    if counts[0] in (0, None) or len(set(counts)) > 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise InputError(
            "inputs", expected="tensors [N, ...] with one N of at least 1", got=f"shapes {shapes}"
        )
    return inputs[0].shape[0]


def _guarded_directions(problem: Problem, check: Check) -> Tensor:
    """Cotangents of all samples; the outputs of the first and the last sample must not depend on their batch."""
    module, samples, share = problem.module, problem.samples, problem.share
    output = guarded_output(module, problem.of_this_process().inputs)
    if share is not None:
        output = share.of_every(output)
    check.require_same_output(output)
    if not check.active:
        own = samples if share is None else share.ran.stop - share.ran.start
        few = few_samples(samples, besides={own}, at_least=2) if samples > 1 else torch.tensor([0])
        alone = guarded_output(module, problem.at(few))
        require_same(output[few.to(output.device)], alone, "in the output")
    return problem.directions(output, torch.arange(samples))
