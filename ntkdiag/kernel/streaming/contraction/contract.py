"""From per-sample gradients to the Gram matrix: materialise in tiles, or contract through tokens, by counted operations.

Materialising costs 2NTpq + 2N²pq operations, contracting through tokens 2N²T²(p+q). Tiles of gradient rows stay in
cache: what limits whole per-sample gradients is memory traffic, not arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.gradients import Compressed, Outer, PerSampleGradient, Unformed

# Bytes of one tile of per-sample gradients; tuned here: small enough for the last-level cache, enough work for a GPU.
TILE_BYTES = {"cpu": 8 * 1024**2, "cuda": 256 * 1024**2}
# Bytes of one block of the token-by-token product.
TOKEN_BLOCK_BYTES = 64 * 1024**2
# Least rows of one of its blocks, and into how many at most: those below the diagonal are not formed. Tuned here.
LEAST_ROWS, BLOCKS = 128, 8
# Rows times themselves are formed in blocks on and above the diagonal: a quarter of the samples each, within these bounds
# (tuned here). A card has larger ones, which are fewer launches.
GRAM_BLOCK = {"cpu": (32, 128), "cuda": (512, 512)}


@dataclass(frozen=True)
class Block:
    """A part of a Gram matrix that is on its diagonal or above.

    Attributes:
        row, column: Where it begins.
        values: [n, m].
    """

    row: int
    column: int
    values: Tensor

    def transposed(self) -> Block:
        """The part on the other side of the diagonal."""
        return Block(self.column, self.row, self.values.T)

    def add_to(self, gram: Tensor) -> None:
        """Add it to a Gram matrix [N, N]; see `mirror`."""
        rows, columns = self.values.shape
        gram[self.row : self.row + rows, self.column : self.column + columns] += self.values

    def at(self, row: int, column: int) -> Tensor | None:
        """One entry of the matrix, if it is in here."""
        rows, columns = self.values.shape
        if self.row <= row < self.row + rows and self.column <= column < self.column + columns:
            return self.values[row - self.row, column - self.column]
        return None


def mirror(gram: Tensor) -> None:
    """Copy what is above the diagonal of [N, N] to below it."""
    for start, stop in _steps(gram):
        corner = gram[start:stop, start:stop].triu()
        gram[start:stop, start:stop] = corner + corner.triu(1).T
    fill_below(gram)


def blocks(gradient: PerSampleGradient, scale: Tensor | None = None) -> Iterator[Block]:
    """Σ over the elements of a parameter of G_i · scale · G_j, in blocks that cover the diagonal and what is above it.

    Args:
        gradient: Per-sample gradients of the parameter.
        scale: Positive factors of the parameter's shape (an inverse preconditioner), or None.
    """
    if isinstance(gradient, Outer) and scale is None:
        left, right = full_precision(gradient.left), full_precision(gradient.right)
        samples, tokens, p = left.shape
        if through_tokens_is_cheaper(samples, tokens, p, right.shape[2]):
            yield from through_tokens(left, right)
            return
    yield Block(0, 0, contract(gradient, scale))


def contract(gradient: PerSampleGradient, scale: Tensor | None = None) -> Tensor:
    """The same as one matrix, by forming the gradients.

    Args:
        gradient: Per-sample gradients of the parameter.
        scale: Positive factors of the parameter's shape (an inverse preconditioner), or None.

    Returns:
        [N, N], in the gradients' dtype, float32 at least.
    """
    if isinstance(gradient, Outer):
        return _materialised(full_precision(gradient.left), full_precision(gradient.right), scale)
    if isinstance(gradient, Unformed):
        gradient = gradient.dense()
    rows = full_precision(gradient.rows.reshape(len(gradient.rows), -1))  # a scalar parameter has rows [N]
    gram = rows.new_zeros(len(rows), len(rows))
    if scale is None:
        add_products(gram, rows)
    else:
        flat = scale.flatten()
        add_products(gram, rows, rows * (flat[gradient.index] if isinstance(gradient, Compressed) else flat))
    fill_below(gram)
    return gram


def add_products(gram: Tensor, rows: Tensor, others: Tensor | None = None) -> None:
    """Add rows · rowsᵀ to a Gram matrix [N, N], to the blocks on and above its diagonal; see `fill_below`.

    Args:
        gram: In the dtype of the rows, or float64.
        rows: [N, length].
        others: In place of the second factor, where the product is symmetric all the same.
    """
    others = rows if others is None else others
    for start, stop in _steps(rows):
        if gram.dtype == rows.dtype:
            gram[start:stop, start:].addmm_(rows[start:stop], others[start:].T)
        else:
            gram[start:stop, start:] += rows[start:stop] @ others[start:].T


def fill_below(gram: Tensor) -> None:
    """Copy the blocks above the diagonal to below it; in place, for matrices that take much of the memory."""
    for start, stop in _steps(gram):
        gram[stop:, start:stop] = gram[start:stop, stop:].T


def _steps(rows: Tensor) -> Iterator[tuple[int, int]]:
    """Where blocks of rows begin and end."""
    least, most = GRAM_BLOCK.get(rows.device.type, GRAM_BLOCK["cuda"])
    block = min(most, max(least, -(-len(rows) // 4)))
    yield from ((start, start + block) for start in range(0, len(rows), block))


def through_tokens_is_cheaper(samples: int, tokens: int, left: int, right: int) -> bool:
    """Whether contracting through tokens takes fewer operations than materialising."""
    ghost = samples * tokens**2 * (left + right)
    materialised = (tokens + samples) * left * right
    return ghost < materialised


def _materialised(left: Tensor, right: Tensor, scale: Tensor | None) -> Tensor:
    """Σ over tiles of gradient rows; left [N, T, p], right [N, T, q]."""
    p, q = left.shape[2], right.shape[2]
    scale = None if scale is None else scale.reshape(p, q)
    if q > p:  # tiles run over the longer side: each is then a large matrix product
        left, right, p, q = right, left, q, p
        scale = None if scale is None else scale.T
    samples = left.shape[0]
    rows = max(1, min(p, TILE_BYTES[left.device.type] // (samples * q * left.element_size())))
    gram = left.new_zeros(samples, samples)
    buffer = left.new_empty(samples, rows, q)
    columns = left.mT  # [N, p, T]
    for start in range(0, p, rows):
        part = columns[:, start : start + rows]
        tile = buffer if part.shape[1] == rows else left.new_empty(samples, part.shape[1], q)
        torch.bmm(part, right, out=tile)
        flat = tile.reshape(samples, -1)
        add_products(gram, flat, None if scale is None else flat * scale[start : start + rows].reshape(1, -1))
    fill_below(gram)
    return gram


def through_tokens(left: Tensor, right: Tensor) -> Iterator[Block]:
    """Σ_ts (left_it · left_js)(right_it · right_js), in blocks of samples on and above the diagonal."""
    samples, tokens, _ = left.shape
    block = min(_token_block(left, samples), sample_block(samples, tokens))
    for start in range(0, samples, block):
        some = slice(start, start + block)
        yield Block(start, start, between(left[some], right[some], left[start:], right[start:]))


def between(left: Tensor, right: Tensor, other_left: Tensor, other_right: Tensor) -> Tensor:
    """The same of some samples [n, T, p], [n, T, q] with others [m, T, p], [m, T, q]; [n, m]."""
    tokens, others = left.shape[1], len(other_left)
    all_left, all_right = other_left.flatten(0, 1).T, other_right.flatten(0, 1).T
    block = _token_block(left, others)
    parts = []
    for one, two in zip(left.split(block), right.split(block), strict=True):
        product = (one.flatten(0, 1) @ all_left).mul_(two.flatten(0, 1) @ all_right)
        parts.append(product.reshape(len(one), tokens, others, tokens).sum((1, 3)) if tokens > 1 else product)
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def sample_block(samples: int, tokens: int) -> int:
    """Samples of one block of those products."""
    return max(-(-LEAST_ROWS // tokens), -(-samples // BLOCKS))


def _token_block(left: Tensor, others: int) -> int:
    """Samples whose products with the tokens of others are formed at a time."""
    tokens = left.shape[1]
    return max(1, TOKEN_BLOCK_BYTES // max(1, others * tokens**2 * left.element_size()))


def full_precision(tensor: Tensor) -> Tensor:
    """Half precision is widened: products of rounded gradients are summed in float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
