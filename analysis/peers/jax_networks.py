"""The study's networks as JAX functions of exported torch weights; their output is compared with torch's before timing.

`apply(network, options)` returns f(weights, buffers, inputs) for weights named as in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Arrays = dict[str, Any]
Apply = Callable[[Arrays, Arrays, tuple[Any, ...]], Any]


def apply(network: str, options: dict[str, Any]) -> Apply:
    """The forward function of a network of config.json."""
    if network == "mlp":
        return lambda weights, buffers, inputs: mlp(weights, *inputs)
    if network == "unet":
        return lambda weights, buffers, inputs: unet(weights, options["groups"], *inputs)
    patch, heads, depth = options["patch"], options["heads"], options["depth"]
    return lambda weights, buffers, inputs: dit(weights, buffers, patch, heads, depth, *inputs)


def linear(weights: Arrays, name: str, x: Any) -> Any:
    """[..., in] → [..., out]."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def mlp(weights: Arrays, x: Any) -> Any:
    """Linear layers at the even places of an nn.Sequential, ReLU between."""
    for index in (0, 2, 4):
        x = jax.nn.relu(linear(weights, str(index), x))
    return linear(weights, "6", x)


def attention(query: Any, key: Any, value: Any) -> Any:
    """[..., T, d] three times → [..., T, d]."""
    scores = query @ jnp.swapaxes(key, -1, -2) / jnp.sqrt(query.shape[-1])
    return jax.nn.softmax(scores, axis=-1) @ value


# --- U-Net ---------------------------------------------------------------------------------------------------


def convolution(weights: Arrays, name: str, x: Any, stride: int = 1) -> Any:
    """[N, in, H, W] → [N, out, H/stride, W/stride], sides padded by half the kernel."""
    kernel = weights[f"{name}.weight"]
    edge = kernel.shape[-1] // 2
    layout = ("NCHW", "OIHW", "NCHW")
    out = lax.conv_general_dilated(x, kernel, (stride, stride), [(edge, edge)] * 2, dimension_numbers=layout)
    return out + weights[f"{name}.bias"][:, None, None]


def group_norm(weights: Arrays, name: str, groups: int, x: Any) -> Any:
    """As torch's, eps 1e-5."""
    split = x.reshape(x.shape[0], groups, -1)
    split = split - split.mean(-1, keepdims=True)
    split = split / jnp.sqrt((split**2).mean(-1, keepdims=True) + 1e-5)
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return split.reshape(x.shape) * scale[:, None, None] + shift[:, None, None]


def residual(weights: Arrays, name: str, groups: int, x: Any, condition: Any) -> Any:
    """`Residual` of unet.py."""
    hidden = convolution(
        weights, f"{name}.conv1", jax.nn.silu(group_norm(weights, f"{name}.norm1", groups, x))
    )
    hidden = hidden + linear(weights, f"{name}.shift", condition)[:, :, None, None]
    hidden = jax.nn.silu(group_norm(weights, f"{name}.norm2", groups, hidden))
    return convolution(weights, f"{name}.skip", x) + convolution(weights, f"{name}.conv2", hidden)


def pixel_attention(weights: Arrays, name: str, groups: int, x: Any) -> Any:
    """`Attention` of unet.py."""
    qkv = convolution(weights, f"{name}.qkv", group_norm(weights, f"{name}.norm", groups, x))
    pixels = jnp.swapaxes(qkv.reshape(*qkv.shape[:2], -1), 1, 2)
    attended = attention(*jnp.split(pixels, 3, axis=2))
    return x + convolution(weights, f"{name}.out", jnp.swapaxes(attended, 1, 2).reshape(x.shape))


def unet(weights: Arrays, groups: int, x: Any, log_snr: Any) -> Any:
    """`UNet` of unet.py."""

    def block(name: str, x: Any) -> Any:
        return residual(weights, name, groups, x, condition)

    def joined(low: Any, skip: Any) -> Any:
        return jnp.concatenate([low.repeat(2, axis=2).repeat(2, axis=3), skip], axis=1)

    condition = linear(weights, "condition1", jnp.tanh(log_snr / 8)[:, None])
    condition = linear(weights, "condition2", jax.nn.silu(condition))
    high = block("down1", convolution(weights, "first", x))
    half = block("down2", convolution(weights, "pool1", high, stride=2))
    low = block("middle1", convolution(weights, "pool2", half, stride=2))
    low = block("middle2", pixel_attention(weights, "attention", groups, low))
    half = block("up2", joined(low, half))
    high = block("up1", joined(half, high))
    return convolution(weights, "last", jax.nn.silu(group_norm(weights, "norm", groups, high)))


# --- DiT -----------------------------------------------------------------------------------------------------


def layer_norm(tokens: Any) -> Any:
    """Without weights, eps 1e-6."""
    centred = tokens - tokens.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def modulate(tokens: Any, shift: Any, scale: Any) -> Any:
    """tokens [N, T, d], shift and scale [N, d]."""
    return layer_norm(tokens) * (1 + scale[:, None]) + shift[:, None]


def dit(weights: Arrays, buffers: Arrays, patch: int, heads: int, depth: int, x: Any, log_snr: Any) -> Any:
    """`ntkdiag.models.DiT` without labels."""
    samples, channels, height, wide = x.shape
    rows, columns = height // patch, wide // patch
    angles = jnp.tanh(log_snr / 8)[:, None] * buffers["condition.waves"]
    features = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)
    condition = linear(weights, "condition.out", jax.nn.silu(linear(weights, "condition.hidden", features)))
    condition = jax.nn.silu(condition)
    cut = x.reshape(samples, channels, rows, patch, columns, patch).transpose(0, 2, 4, 1, 3, 5)
    tokens = linear(weights, "embed", cut.reshape(samples, rows * columns, -1)) + buffers["positions"]
    for index in range(depth):
        tokens = dit_block(weights, f"blocks.{index}", heads, tokens, condition)
    shift, scale = jnp.split(linear(weights, "modulation", condition), 2, axis=1)
    patches = linear(weights, "out", modulate(tokens, shift, scale))
    image = patches.reshape(samples, rows, columns, channels, patch, patch).transpose(0, 3, 1, 4, 2, 5)
    return image.reshape(x.shape)


def dit_block(weights: Arrays, name: str, heads: int, tokens: Any, condition: Any) -> Any:
    """`ntkdiag.models.dit.Block`."""
    parts = jnp.split(linear(weights, f"{name}.modulation", condition), 6, axis=1)
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
    samples, length, width = tokens.shape
    qkv = linear(weights, f"{name}.qkv", modulate(tokens, shift_a, scale_a))
    qkv = qkv.reshape(samples, length, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
    attended = attention(qkv[0], qkv[1], qkv[2]).transpose(0, 2, 1, 3).reshape(tokens.shape)
    tokens = tokens + gate_a[:, None] * linear(weights, f"{name}.attended", attended)
    hidden = linear(weights, f"{name}.expand", modulate(tokens, shift_m, scale_m))
    hidden = linear(weights, f"{name}.contract", jax.nn.gelu(hidden, approximate=False))
    return tokens + gate_m[:, None] * hidden
