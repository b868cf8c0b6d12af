"""The activations of a network's modules on given inputs, by name pattern."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, listed
from ntkdiag.kernel.parameters import pattern_list
from ntkdiag.modes import evaluating


def chosen_modules(network: nn.Module, patterns: str | Sequence[str] | None) -> dict[str, nn.Module]:
    """Modules by name.

    Args:
        network: Any module.
        patterns: Shell-style patterns of module names ("blocks.*"); of a module and its parts that both match, the module
            is taken. None takes the parts of the network, and of its lists and sequences the items.

    Raises:
        InputError: a pattern that matches no module.
    """
    names = {name: part for name, part in network.named_modules() if name}
    if patterns is None:
        return _parts(network)
    found: dict[str, nn.Module] = {}
    for pattern in pattern_list(patterns):
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise InputError(
                "patterns", expected=f"names of modules, such as {listed(names, 4)}", got=repr(pattern)
            )
        found |= {name: names[name] for name in matched}
    return {name: part for name, part in found.items() if not _inside(name, found)}


def _inside(name: str, found: dict[str, nn.Module]) -> bool:
    parents = name.split(".")[:-1]
    return any(".".join(parents[: k + 1]) in found for k in range(len(parents)))


def _parts(network: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for name, part in network.named_children():
        items = part.named_children() if isinstance(part, nn.ModuleList | nn.Sequential) else [("", part)]
        found |= {f"{name}.{item}".rstrip("."): each for item, each in items}
    return found


def activations(
    denoiser: Denoiser, modules: dict[str, nn.Module], inputs: tuple[Tensor, ...], batch: int = 256
) -> dict[str, Tensor]:
    """Outputs of modules, flattened, [N, F] float64 on the CPU by name; of a module that is called more than once, the last.

    Modules are left out that are not called, or whose output is no tensor with a row a sample.

    Args:
        denoiser: Called in eval mode.
        modules: Those of its network.
        inputs: As `Denoiser.inputs` gives them.
        batch: Samples in one forward.
    """
    kept: dict[str, list[Tensor]] = {name: [] for name in modules}
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> object:
        def hook(part: nn.Module, given: object, out: object) -> None:
            first = out[0] if isinstance(out, tuple) and out else out
            if isinstance(first, Tensor):
                seen[name] = first.detach()

        return modules[name].register_forward_hook(hook)

    with evaluating(denoiser):
        handles = [watch(name) for name in modules]
        try:
            for part in zip(*(tensor.split(batch) for tensor in inputs), strict=True):
                seen.clear()
                denoiser(*part)
                for name, values in seen.items():
                    if values.ndim > 1 and len(values) == len(part[0]):
                        kept[name].append(values.flatten(1).double().cpu())
        finally:
            for handle in handles:
                handle.remove()  # type: ignore[attr-defined]
    whole = {name: torch.cat(parts) for name, parts in kept.items() if parts}
    return {name: values for name, values in whole.items() if len(values) == len(inputs[0])}
