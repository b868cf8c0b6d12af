"""From per-sample gradients to the Gram matrix: materialise in tiles, or contract through tokens, by counted operations.

Materialising costs 2NTpq + 2N²pq operations, contracting through tokens 2N²T²(p+q). Tiles of gradient rows stay in
cache: what limits whole per-sample gradients is memory traffic, not arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.gradients import Compressed, Outer, PerSampleGradient

# Bytes of one tile of per-sample gradients; tuned here: small enough for the last-level cache, enough work for a GPU.
TILE_BYTES = {"cpu": 8 * 1024**2, "cuda": 256 * 1024**2}
# Bytes of one block of the token-by-token product.
TOKEN_BLOCK_BYTES = 64 * 1024**2


def contract(form: PerSampleGradient, weight: Tensor | None = None) -> Tensor:
    """Σ over the elements of a parameter of G_i · weight · G_j.

    Args:
        form: Per-sample gradients of the parameter.
        weight: Positive weights of the parameter's shape (a diagonal preconditioner), or None.

    Returns:
        [N, N], in the gradients' dtype, float32 at least.
    """
    if isinstance(form, Outer):
        return _contract_outer(form, weight)
    rows = _full_precision(form.rows.reshape(len(form.rows), -1))  # a scalar parameter has rows [N]
    if weight is None:
        return rows @ rows.T
    flat = weight.flatten()
    if isinstance(form, Compressed):
        flat = flat[form.index]
    return (rows * flat) @ rows.T


def through_tokens_is_cheaper(samples: int, tokens: int, left: int, right: int) -> bool:
    """Whether contracting through tokens takes fewer operations than materialising."""
    ghost = samples * tokens**2 * (left + right)
    materialised = (tokens + samples) * left * right
    return ghost < materialised


def _contract_outer(form: Outer, weight: Tensor | None) -> Tensor:
    left, right = _full_precision(form.left), _full_precision(form.right)
    samples, tokens, p = left.shape
    q = right.shape[2]
    if weight is None and through_tokens_is_cheaper(samples, tokens, p, q):
        return _through_tokens(left, right)
    if q > p:  # tiles run over the longer side, so that each is a fat matrix product
        left, right = right, left
        weight = None if weight is None else weight.reshape(p, q).T
    return _materialised(left, right, None if weight is None else weight.reshape(max(p, q), min(p, q)))


def _materialised(left: Tensor, right: Tensor, weight: Tensor | None) -> Tensor:
    """Σ over tiles of gradient rows; left [N, T, p], right [N, T, q]."""
    samples, _, p = left.shape
    q = right.shape[2]
    rows = max(1, min(p, TILE_BYTES[left.device.type] // (samples * q * left.element_size())))
    gram = left.new_zeros(samples, samples)
    buffer = left.new_empty(samples, rows, q)
    columns = left.mT  # [N, p, T]
    for start in range(0, p, rows):
        part = columns[:, start : start + rows]
        tile = buffer if part.shape[1] == rows else left.new_empty(samples, part.shape[1], q)
        torch.bmm(part, right, out=tile)
        flat = tile.reshape(samples, -1)
        other = flat if weight is None else flat * weight[start : start + rows].reshape(1, -1)
        gram.addmm_(flat, other.T)
    return gram


def _through_tokens(left: Tensor, right: Tensor) -> Tensor:
    """Σ_ts (left_it · left_js)(right_it · right_js), in blocks of samples."""
    samples, tokens, _ = left.shape
    all_left, all_right = left.flatten(0, 1), right.flatten(0, 1)
    block = max(1, TOKEN_BLOCK_BYTES // (samples * tokens * tokens * left.element_size()))
    parts = []
    for start in range(0, samples, block):
        chosen = slice(start * tokens, (start + block) * tokens)
        product = (all_left[chosen] @ all_left.T) * (all_right[chosen] @ all_right.T)
        parts.append(product.reshape(-1, tokens, samples, tokens).sum((1, 3)) if tokens > 1 else product)
    return torch.cat(parts)


def _full_precision(tensor: Tensor) -> Tensor:
    """Half precision is widened: products of rounded gradients are summed in float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
