"""The exact engine: per-sample Jacobian contractions by torch.func, tile by tile; slow, and true for any network.

Every row gradient J_iᵀ v is formed in full (vmap over samples of a vjp, vmap over cotangents). Networks that torch.func
cannot take (recurrent cells, gradients inside the forward) go through autograd one sample at a time. Memory is bounded by
tiles of samples: two tiles of row gradients exist at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

# Row gradients of one tile: parameter name → [n, k, numel]
Rows = dict[str, Tensor]

DEFAULT_MEMORY = 2 * 1024**3  # bytes for row gradients; tuned here so that a 24 GiB machine is never at risk


def row_gradients(
    module: nn.Module, parameters: dict[str, nn.Parameter], inputs: tuple[Tensor, ...], cotangents: Tensor
) -> Rows:
    """J_iᵀ v for every sample i and cotangent v.

    Args:
        module: Called as module(*inputs).
        parameters: Name → parameter to differentiate by.
        inputs: Tensors [n, ...].
        cotangents: [k, n, *out], k directions for each sample.

    Returns:
        Name → [n, k, numel].
    """
    try:
        return _vectorised_gradients(module, parameters, inputs, cotangents)
    except torch.OutOfMemoryError:
        raise
    except (
        RuntimeError,
        ValueError,
    ):  # what torch.func raises at operations it cannot vectorise, among others
        return _looped_gradients(module, parameters, inputs, cotangents)


def _vectorised_gradients(
    module: nn.Module, parameters: dict[str, nn.Parameter], inputs: tuple[Tensor, ...], cotangents: Tensor
) -> Rows:
    theta = {name: parameter.detach() for name, parameter in parameters.items()}

    def one_sample(sample: tuple[Tensor, ...], directions: Tensor) -> dict[str, Tensor]:
        pull_back = vjp(lambda values: _call_one(module, values, sample), theta)[1]
        gradients: dict[str, Tensor] = vmap(lambda direction: pull_back(direction)[0])(directions)
        return gradients

    # no_grad: no graph towards the parameters that are not asked for
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        gradients = vmap(one_sample, in_dims=(0, 1), randomness="error")(inputs, cotangents)
    return {name: gradient.flatten(2) for name, gradient in gradients.items()}


def _looped_gradients(
    module: nn.Module, parameters: dict[str, nn.Parameter], inputs: tuple[Tensor, ...], cotangents: Tensor
) -> Rows:
    theta = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    rows: dict[str, list[Tensor]] = {name: [] for name in theta}
    for i in range(cotangents.shape[1]):
        with torch.enable_grad():
            out = _call_one(module, theta, tuple(tensor[i] for tensor in inputs))
        for direction in cotangents[:, i]:
            found = (
                (None,) * len(theta)
                if out.grad_fn is None
                else torch.autograd.grad(
                    out, list(theta.values()), direction, retain_graph=True, allow_unused=True
                )
            )
            for (name, value), gradient in zip(theta.items(), found, strict=True):
                rows[name].append((torch.zeros_like(value) if gradient is None else gradient).flatten())
    directions, samples = cotangents.shape[:2]
    return {name: torch.stack(each).reshape(samples, directions, -1) for name, each in rows.items()}


def gram_exact(
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    memory: int | None = None,
    inverse_preconditioner: dict[str, Tensor] | None = None,
) -> Tensor:
    """Gram matrices of row gradients, one for each cotangent.

    Args:
        module, parameters, inputs: see `row_gradients`.
        cotangents: [R, N, *out].
        memory: Bytes that row gradients may take; smaller means more recomputation, the same result.
        inverse_preconditioner: Parameter name → 1/p for a diagonal preconditioner p; entries become Σ g_i g_j / p.

    Returns:
        [R, N, N] float64 on the CPU, entry (r, i, j) = (J_iᵀ v_ri) · (J_jᵀ v_rj).
    """
    grams = [
        _tiled_gram(module, parameters, inputs, cotangents[r : r + 1], memory, inverse_preconditioner)[
            :, 0, :, 0
        ]
        for r in range(cotangents.shape[0])
    ]
    return torch.stack(grams)


def grouped_grams(
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    group: Callable[[str], str],
    memory: int | None = None,
    inverse_preconditioner: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """`gram_exact` for each group of parameters: group label → [R, N, N]."""
    members: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in parameters.items():
        members.setdefault(group(name), {})[name] = parameter
    return {
        label: gram_exact(module, some, inputs, cotangents, memory, inverse_preconditioner)
        for label, some in members.items()
    }


def _tiled_gram(
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    memory: int | None,
    inverse_preconditioner: dict[str, Tensor] | None = None,
) -> Tensor:
    """[N, k, N, k] for cotangents [k, N, *out]; tiles (a, b) with b ≥ a, the rest by symmetry."""
    directions, samples = cotangents.shape[:2]
    tile = _tile_size(parameters, directions, samples, DEFAULT_MEMORY if memory is None else memory)
    gram = torch.zeros(samples, directions, samples, directions, dtype=torch.float64)

    def rows(part: slice) -> Rows:
        return row_gradients(module, parameters, tuple(t[part] for t in inputs), cotangents[:, part])

    for a in _slices(samples, tile):
        rows_a = rows(a)
        for b in _slices(samples, tile):
            if b.start < a.start:
                continue
            rows_b = rows_a if b == a else rows(b)
            block = _product(rows_a, rows_b, inverse_preconditioner or {})
            gram[a, :, b, :] = block
            gram[b, :, a, :] = block.permute(2, 3, 0, 1)
    return gram


def _product(rows_a: Rows, rows_b: Rows, scales: dict[str, Tensor]) -> Tensor:
    """Σ over parameters of rows_a rows_bᵀ, [n_a, k, n_b, k] in float64; a parameter at a time keeps sums short."""
    total: Tensor | None = None
    for name, left in rows_a.items():
        right = rows_b[name]
        if name in scales:
            left = left * scales[name].flatten()
        part = left.flatten(0, 1) @ right.flatten(0, 1).T
        total = part.double() if total is None else total + part.double()
    assert total is not None  # select_parameters never returns an empty set
    n_a, k = next(iter(rows_a.values())).shape[:2]
    n_b = next(iter(rows_b.values())).shape[0]
    return total.reshape(n_a, k, n_b, k).cpu()


def _tile_size(parameters: dict[str, nn.Parameter], directions: int, samples: int, memory: int) -> int:
    """Samples whose row gradients fit half of the memory: two tiles exist at a time."""
    bytes_per_sample = directions * sum(p.numel() * p.element_size() for p in parameters.values())
    return max(1, min(samples, memory // max(1, 2 * bytes_per_sample)))


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _call_one(module: nn.Module, values: dict[str, Tensor], sample: tuple[Tensor, ...]) -> Tensor:
    """The module on one sample [*shape] with `values` as parameters."""
    # copies: a network may write into its inputs
    batch = tuple(part.detach().clone().unsqueeze(0) for part in sample)
    output: Tensor = functional_call(module, values, batch, tie_weights=True).squeeze(0)
    return output
