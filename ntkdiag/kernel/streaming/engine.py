"""The streaming engine: Gram matrices for the price of a training step, whatever the network is made of.

It plans tiles of samples within a memory budget, runs one sweep for each pair of tiles (for each tile, where gradients are
sketched), leaves parameters that no rule serves, or that the check finds wrong, to the slow engines, and reports for each
parameter how its gradients were obtained.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ntkdiag.distributed import OutOfStep, in_step
from ntkdiag.kernel.check import Check
from ntkdiag.kernel.eager import plain_eager
from ntkdiag.kernel.fallback import add_grams, slow_grams
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.streaming.memory import is_out_of_memory, memory_budget, samples_at_once, samples_that_fit
from ntkdiag.kernel.streaming.recording.forward import Network
from ntkdiag.kernel.streaming.recording.rehearsal import Rehearsal, rehearse, rehearsed_samples
from ntkdiag.kernel.streaming.refusal import Refused, SeveralSweeps
from ntkdiag.kernel.streaming.shared import added_up, agreed
from ntkdiag.kernel.streaming.shared_sweeps import shared_pairs
from ntkdiag.kernel.streaming.sketched_sweeps import each_once
from ntkdiag.kernel.streaming.sweep import AllSamples, Task, in_order, sweep

ENGINE = "streaming"

# Why parameters are refused that the processes do not use at the same places.
_ELSEWHERE = "the network takes other operations for the samples of another process"
# A parameter with a smaller share of the kernel does not matter to it.
_SHARE = 1e-6

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Streamed:
    """Result of the streaming engine.

    Attributes:
        groups: Group label → [R, N, N] float64 on the CPU.
        coverage: Parameter name → families of rules, "unused", "exact (why)" or "autograd (why)".
    """

    groups: dict[str, Tensor]
    coverage: dict[str, str]


def gram_streaming(problem: Problem, check: Check) -> Streamed:
    """Gram matrices of J_iᵀ v, without ever holding a sample's whole gradient.

    Args:
        problem: What is measured.
        check: Compares the result with plain autograd.

    Returns:
        `Streamed`.

    Raises:
        MeasurementError: two forwards disagree, or a sample's activations depend on its batch.
    """
    refused = {name: reason for name, reason in check.known(ENGINE).items() if name in problem.parameters}
    network = Network(problem.module, problem.parameters).without(set(refused))
    own = _of_this_process(problem)
    task = Task(network, own.directions, problem.group, problem.inverse_preconditioner)
    with plain_eager():
        while True:
            try:
                found = _streamed(task, own, check)
            except OutOfStep:  # the network takes other operations for the samples of another process
                if not task.network.parameters:
                    raise
                refused.update(dict.fromkeys(task.network.parameters, _ELSEWHERE))
            except Refused as refusal:
                if not refusal.reasons.keys() - refused.keys():  # it would be refused for ever
                    raise RuntimeError(f"no progress: {refusal}") from refusal
                refused.update(refusal.reasons)
            else:
                names = list(task.network.parameters)
                with _in_step(problem):
                    wrong = _faint(found.corners) or check.compare(ENGINE, found.corners, names, found.output)
                if problem.share is not None:
                    wrong = agreed(wrong, found.output, problem)
                if not wrong:
                    break
                refused.update(wrong)
            task = replace(task, network=task.network.without(set(refused)))
    groups, coverage = found.grams, found.coverage
    if refused:
        rest = problem.only(refused)
        cotangents = problem.directions(found.output, torch.arange(problem.samples))
        others, how = slow_grams(rest, cotangents, check)
        add_grams(groups, others)
        coverage |= {name: _because(how[name], refused[name]) for name in how}
    return Streamed(groups, {name: coverage.get(name, "unused") for name in problem.parameters})


def _of_this_process(problem: Problem) -> Problem:
    """The samples of this process; where several run on one machine, they divide its main memory."""
    share, device = problem.share, problem.inputs[0].device
    if share is None:
        return problem
    memory = problem.memory
    if memory is None and device.type == "cpu":
        memory = max(1, int(memory_budget(None, device) / share.processes.on_this_machine))
    return replace(problem.of_this_process(), memory=memory)


def _faint(corners: dict[str, Tensor]) -> dict[str, str]:
    """Parameters that matter, and whose products are so small that float32 loses digits; all, if their sum is."""
    if not corners:
        return {}
    sizes = torch.stack([corner.diagonal().amax().double() for corner in corners.values()]).tolist()
    limits, whole = torch.finfo(torch.float32), sum(sizes)
    least = limits.tiny / limits.eps
    return {
        name: "its products underflow in float32"
        for (name, corner), size in zip(corners.items(), sizes, strict=True)
        if corner.dtype != torch.float64 and (0 < whole < least or _SHARE * whole < size < least)
    }


def _because(how: str, reason: str) -> str:
    """ "exact" or "autograd (exact differs …)" with the reason why streaming was not possible."""
    engine, found, rest = how.partition(" (")
    return f"{engine} ({reason}; {rest}" if found else f"{engine} ({reason})"


def _streamed(task: Task, problem: Problem, check: Check) -> AllSamples:
    """Gram matrices of all samples, by what an earlier call found out about the same forward, where there was one.

    Raises:
        SeveralSweeps: they do not fit into one sweep, and the problem asks for that.
    """
    forward = frozenset(task.network.parameters)
    if _least(problem, forward in check.forwards):
        try:
            return _swept(task, problem, check.forwards[forward], check.active)
        except Refused:  # the network takes other operations this time, perhaps
            del check.forwards[forward]
    with _in_step(problem):
        chosen = rehearsed_samples(problem.samples, {problem.samples}, check.active)
        rehearsal = rehearse(task.network, problem.inputs, chosen)
    found = _swept(task, problem, rehearsal, check.active)
    remembered = rehearsal.remembered()
    if remembered is not None:
        check.forwards[forward] = remembered
    return found


def _swept(task: Task, problem: Problem, rehearsal: Rehearsal, checked: bool) -> AllSamples:
    """Gram matrices of all samples; tiles are made smaller when memory runs out."""
    share, inputs = problem.share, problem.inputs
    samples = problem.samples if share is None else share.largest
    fit = _least(problem, samples_that_fit(rehearsal.bytes_per_sample, problem.memory, inputs[0].device))
    if fit < samples and problem.in_one_sweep:
        raise SeveralSweeps(fit if share is None else fit * share.processes.count)
    run, tile = _all_pairs if share is None else shared_pairs, samples if fit >= samples else max(1, fit // 2)
    if problem.sketch is not None:
        run, tile = each_once, min(tile, samples_at_once(rehearsal.bytes_per_sample, inputs[0].device))
    while True:
        try:
            with _in_step(problem):
                found = run(task, problem, tile, rehearsal, checked)
                return found if share is None else added_up(found, share)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or tile == 1:
                raise
        # one tile of all samples is a sweep as large as two tiles of half of them
        tile = max(1, min(tile, samples // 2) // 2)
        if inputs[0].is_cuda:
            torch.cuda.empty_cache()


def _in_step(problem: Problem) -> AbstractContextManager[None]:
    """What is done inside succeeds or fails in all processes."""
    return in_step(None if problem.share is None else problem.share.processes)


def _least(problem: Problem, number: int) -> int:
    """The least of the numbers of all processes."""
    if problem.share is None:
        return number
    return min(each[0] for each in problem.share.processes.meet("least", number))


def _all_pairs(task: Task, problem: Problem, tile: int, rehearsal: Rehearsal, checked: bool) -> AllSamples:
    """Gram matrices by one sweep for each pair of tiles, or by a single sweep if one tile holds all samples."""
    samples = problem.samples
    sweeps = _plan(samples, tile)
    if len(sweeps) > 1 and not rehearsal.known:
        sizes = {len(picked) for picked in sweeps}
        rehearsal = rehearse(
            task.network, problem.at(sweeps[0]), rehearsed_samples(len(sweeps[0]), sizes, checked)
        )
    coverage: dict[str, str] = {}
    grams: dict[str, Tensor] = {}
    corners: dict[str, Tensor] = {}
    outputs: list[Tensor] = []
    for picked in sweeps:
        some = problem.inputs if len(sweeps) == 1 else problem.at(picked)
        found = sweep(task, some, picked, rehearsal, coverage)
        outputs.append(found.output)
        if picked[0] == 0 and picked[-1] == samples - 1:
            corners = found.corners
        if len(sweeps) == 1:
            grams = {key: block.cpu() for key, block in found.grams.items()}
            break
        for key, block in found.grams.items():
            if key not in grams:
                grams[key] = torch.zeros(block.shape[0], samples, samples, dtype=torch.float64)
            grams[key][:, picked[:, None], picked[None, :]] = block.cpu()
    return AllSamples(grams, corners, in_order(sweeps, outputs), coverage)


def _plan(samples: int, tile: int) -> list[Tensor]:
    """Unions of two tiles; every pair of samples is in one of them."""
    tiles = list(torch.arange(samples).split(tile))
    if len(tiles) == 1:
        return tiles
    return [torch.cat([a, b]) for i, a in enumerate(tiles) for b in tiles[i + 1 :]]
