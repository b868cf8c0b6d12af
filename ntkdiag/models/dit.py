"""A diffusion transformer for images: patches become tokens, the log-SNR modulates every layer norm.

After Peebles & Xie 2023 (arXiv 2212.09748), adaLN-zero variant, written from the paper. The defaults are
sized for 8×8 digits; `patch=2, width=1152, depth=28, heads=16` on 4×32×32 latents is the size of DiT-XL/2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.models.embedding import Condition, check_input

# Standard deviation of the modulation weights, times √width, when they do not start at zero: shifts, scales
# and gates then have an RMS near 0.25 at initialisation (tuned here).
_LIVE_MODULATION = 0.5


def grid_positions(height: int, width: int, channels: int) -> Tensor:
    """Fixed sine/cosine positions of a grid of tokens, as in Vaswani et al. 2017 along each axis.

    Args:
        height: Tokens per column of the grid.
        width: Tokens per row of the grid.
        channels: Length of each position vector, a multiple of 4; half of it for each axis.

    Returns:
        [height·width, channels], rows of the grid one after another.
    """
    quarter = channels // 4
    waves = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [axis.reshape(-1, 1) * waves for axis in (rows, columns)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """tokens·(1 + scale) + shift; tokens [N, T, width], shift and scale [N, width]."""
    return torch.addcmul(shift[:, None], tokens, 1 + scale[:, None])


class Block(nn.Module):
    """Self-attention and a GELU MLP; the input of each is modulated, and its output is multiplied by a gate and added."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.expand = nn.Linear(width, mlp_ratio * width)
        self.contract = nn.Linear(mlp_ratio * width, width)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens [N, T, width], condition [N, width] → [N, T, width]."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition).chunk(6, dim=1)
        attended = self._attend(modulate(self.norm(tokens), shift_a, scale_a))
        tokens = torch.addcmul(tokens, gate_a[:, None], attended)
        hidden = self.expand(modulate(self.norm(tokens), shift_m, scale_m))
        hidden = self.contract(nn.functional.gelu(hidden))
        return torch.addcmul(tokens, gate_m[:, None], hidden)

    def _attend(self, tokens: Tensor) -> Tensor:
        count, length, width = tokens.shape
        qkv = self.qkv(tokens).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [N, heads, T, width/heads]
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.attended(attended.transpose(1, 2).reshape(count, length, width))
        return output


class DiT(nn.Module):
    """Denoising transformer on images.

    Args:
        shape: (channels, height, width) of one image.
        patch: Side of the square patch that becomes one token; divides height and width.
        width: Channels of a token; a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden units of a block's MLP, in units of `width`.
        frequencies: Number of sine/cosine pairs in which the log-SNR is expanded.
        classes: Number of class labels; None for none.
        zero_init: Start all modulations, gates and the output layer at exactly zero, as the paper does for
            training. Such a network predicts 0 for every input and only its output layer has a gradient,
            so its kernel says nothing about the architecture. By default they start at small random values,
            so that the untrained network is a fair control.

    Raises:
        InputError: the sizes do not fit together.

    Example:
        >>> network = DiT((1, 8, 8), width=32, depth=2, classes=10)
        >>> network(torch.zeros(3, 1, 8, 8), torch.zeros(3), torch.tensor([0, 5, 9])).shape
        torch.Size([3, 1, 8, 8])
    """

    positions: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        patch: int = 2,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: int = 4,
        frequencies: int = 128,
        classes: int | None = None,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.patch = patch
        _check_sizes(self.shape, patch, width, depth, heads, mlp_ratio)
        channels, *sides = self.shape
        self.grid = (sides[0] // patch, sides[1] // patch)
        pixels = channels * patch * patch
        self.register_buffer("positions", grid_positions(*self.grid, width), persistent=False)
        self.embed = nn.Linear(pixels, width)
        self.condition = Condition(width, frequencies, classes)
        self.conditions, self.null_conditions = self.condition.conditions, self.condition.null_conditions
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, pixels)
        self._initialise(zero_init)

    def _initialise(self, zero_init: bool) -> None:
        """Xavier-uniform weights and zero biases; modulations and output zero or small (see the class)."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        if self.condition.label is not None:
            nn.init.normal_(self.condition.label.weight, std=0.02)
        live = 0.0 if zero_init else 1 / math.sqrt(self.out.in_features)
        for name, weight in self.named_parameters():
            if name.endswith("modulation.weight"):
                nn.init.normal_(weight, std=_LIVE_MODULATION * live)
        nn.init.normal_(self.out.weight, std=live)

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        """Predict the target.

        Args:
            x: Noised images [N, channels, height, width].
            log_snr: Natural log of the signal-to-noise ratio, [N]; ±inf is allowed.
            cond: Class labels [N] in [0, classes]; `classes` or None for "no label".

        Returns:
            The prediction, shaped like `x`.
        """
        check_input(x, log_snr, self.shape)
        condition = nn.functional.silu(self.condition(log_snr, cond))  # [N, width]
        tokens = self.embed(self._patches(x)) + self.positions  # [N, T, width]
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=1)
        return self._image(self.out(modulate(self.norm(tokens), shift, scale)))

    def _patches(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, T, C·patch²]."""
        (rows, columns), side = self.grid, self.patch
        cut = x.reshape(x.shape[0], self.shape[0], rows, side, columns, side)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(x.shape[0], rows * columns, self.embed.in_features)

    def _image(self, patches: Tensor) -> Tensor:
        """[N, T, C·patch²] → [N, C, H, W], the inverse of `_patches`."""
        (rows, columns), side = self.grid, self.patch
        cut = patches.reshape(patches.shape[0], rows, columns, self.shape[0], side, side)
        return cut.permute(0, 3, 1, 4, 2, 5).reshape(patches.shape[0], *self.shape)


def _check_sizes(
    shape: tuple[int, ...], patch: int, width: int, depth: int, heads: int, mlp_ratio: int
) -> None:
    sizes = {"patch": patch, "width": width, "depth": depth, "heads": heads, "mlp_ratio": mlp_ratio}
    for name, size in sizes.items():
        require_positive_int(name, size)
    if len(shape) != 3:
        raise InputError("shape of a DiT's samples", expected="(channels, height, width)", got=shape)
    if shape[1] % patch or shape[2] % patch:
        raise InputError(
            "patch", expected="a divisor of the image's sides", got=f"{patch} for {shape[1]}×{shape[2]}"
        )
    if width % heads or width % 4:
        raise InputError(
            "width",
            expected=f"a multiple of 4 and of heads={heads}",
            got=width,
            fix="Change width or heads.",
        )
