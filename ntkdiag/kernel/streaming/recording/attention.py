"""Attention decomposed into linear maps, matrix products and a softmax.

Under the recorder these operations are served by the ordinary rules.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ntkdiag.kernel.streaming.refusal import Unsupported


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`torch.nn.functional.multi_head_attention_forward` for [length, batch, channels] inputs, without static keys."""
    if query.ndim != 3 or static_k is not None or static_v is not None or dropout_p * training:
        raise Unsupported("without a batch, with static keys, or with dropout")
    weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    if not use_separate_proj_weight:
        weights = _thirds(in_proj_weight)
    q, k, v = (
        functional.linear(x, weight, bias)  # type: ignore[arg-type]  # torch's contract: one kind of weight is there
        for x, weight, bias in zip((query, key, value), weights, _thirds(in_proj_bias), strict=True)
    )
    batch = q.shape[1]
    if bias_k is not None and bias_v is not None:
        k = torch.cat([k, bias_k.expand(1, batch, -1)])
        v = torch.cat([v, bias_v.expand(1, batch, -1)])
    if add_zero_attn:
        zero = k.new_zeros(1, batch, k.shape[2])
        k, v = torch.cat([k, zero]), torch.cat([v, zero])
    mask = _mask(q, k, num_heads, key_padding_mask, attn_mask, is_causal)
    q, k, v = (_heads(x, num_heads) for x in (q, k, v))  # [batch, heads, length, channels/heads]
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    weights_ = (scores if mask is None else scores + mask).softmax(-1)
    attended = (weights_ @ v).permute(2, 0, 1, 3).flatten(2)
    out = functional.linear(attended, out_proj_weight, out_proj_bias)
    if not need_weights:
        return out, None
    return out, weights_.mean(1) if average_attn_weights else weights_


def _thirds(packed: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if packed is None:
        return None, None, None
    q, k, v = packed.chunk(3)
    return q, k, v


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)


def _mask(
    q: Tensor, k: Tensor, heads: int, padding: Tensor | None, mask: Tensor | None, causal: bool
) -> Tensor | None:
    """Both masks as numbers to add to the scores [batch, heads, queries, keys]."""
    total = None
    if mask is not None:
        mask = _additive(mask, q)
        total = mask.unflatten(0, (-1, heads)) if mask.ndim == 3 else mask
    elif causal:
        total = _additive(torch.ones(q.shape[0], k.shape[0], dtype=torch.bool, device=q.device).triu(1), q)
    if padding is not None:
        keys = _additive(padding, q)[:, None, None, :]
        total = keys if total is None else total + keys
    if total is not None and total.shape[-1] < k.shape[0]:  # appended keys are never masked
        total = functional.pad(total, (0, k.shape[0] - total.shape[-1]))
    return total


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -torch.inf)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` without dropout."""
    if dropout_p:
        raise Unsupported("with dropout")
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = (query @ key.mT) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        # a boolean mask marks what takes part here, but what is left out in multi-head attention
        scores = scores + (_additive(~attn_mask, scores) if attn_mask.dtype == torch.bool else attn_mask)
    return scores.softmax(-1) @ value
