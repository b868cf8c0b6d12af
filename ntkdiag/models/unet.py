"""A convolutional U-Net for images: residual blocks with group norms, attention on the small maps, skips across.

After the ADM network of Dhariwal & Nichol 2021 (arXiv 2105.05233, section 3 and appendix), written from the paper: the
residual blocks also halve and double the map, and the log-SNR scales and shifts the second norm of each. The defaults are
sized for 8×8 digits; `channels=192, multipliers=(1, 2, 3, 4), blocks=3, attention=32` on 3×64×64 is that of ImageNet 64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError, kind_of, require_int, require_positive_int
from ntkdiag.models.embedding import Condition, check_input

Resample = Literal["half", "double"]

# A norm has 32 groups (Wu & He 2018) where that leaves at least four channels in each.
_GROUPS, _CHANNELS_IN_GROUP = 32, 4


class Attention(nn.Module):
    """Self-attention between the places of a map, added to it."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = _largest_divisor(width, max(1, width // head_width))
        self.norm = _group_norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, width, H, W] → the same shape."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # [N, H·W, width]
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # [N, H·W, 3, heads, width/heads]
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each [N, heads, H·W, width/heads]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        added = self.attended(mixed.transpose(1, 2).flatten(2))
        output: Tensor = x + added.transpose(1, 2).unflatten(2, x.shape[2:])
        return output


class Block(nn.Module):
    """Two convolutions added to their input, which may halve or double the map first; attention behind them if asked."""

    def __init__(
        self,
        width: int,
        out_width: int,
        condition_width: int,
        resample: Resample | None = None,
        head_width: int | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm = _group_norm(width)
        self.enter = nn.Conv2d(width, out_width, 3, padding=1)
        self.modulation = nn.Linear(condition_width, 2 * out_width)
        self.modulated = _group_norm(out_width)
        self.leave = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.pass_by = nn.Identity() if width == out_width else nn.Conv2d(width, out_width, 1)
        self.attention = nn.Identity() if head_width is None else Attention(out_width, head_width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [N, width, H, W], condition [N, condition_width] → [N, out_width, H, W], H and W resampled."""
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        hidden = self.enter(self._resampled(nn.functional.silu(self.norm(x))))
        hidden = torch.addcmul(shift, self.modulated(hidden), 1 + scale)
        hidden = self.leave(nn.functional.silu(hidden))
        output: Tensor = self.attention(self.pass_by(self._resampled(x)) + hidden)
        return output

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "half":
            return nn.functional.avg_pool2d(x, 2)
        if self.resample == "double":
            return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x


class UNet(nn.Module):
    """Denoising U-Net on images.

    Args:
        shape: (channels, height, width) of one image; height and width can be halved at every level but the last.
        channels: Channels of the first level; those of the condition are four times as many.
        multipliers: Channels of each level, in units of `channels`; there are as many levels.
        blocks: Residual blocks of each level on the way down; the way up has one more.
        attention: Attention follows each block of the levels whose longer side is at most this; 0 for the middle alone,
            which always has it.
        head_width: Channels of an attention head; maps with fewer have one head.
        frequencies: Number of sine/cosine pairs in which the log-SNR is expanded.
        classes: Number of class labels; None for none.
        zero_init: Start the last layer of each block and of the network at exactly zero, as the paper does for training.
            Such a network predicts 0 for every input and only its output layer has a gradient, so its kernel says nothing
            about the architecture. By default they start at small random values.

    Raises:
        InputError: the sizes do not fit together.

    Example:
        >>> network = UNet((1, 8, 8), channels=16, multipliers=(1, 2), classes=10)
        >>> network(torch.zeros(3, 1, 8, 8), torch.zeros(3), torch.tensor([0, 5, 9])).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: int = 8,
        head_width: int = 64,
        frequencies: int = 64,
        classes: int | None = None,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        _check_sizes(self.shape, channels, multipliers, blocks, attention, head_width)
        self.condition = Condition(4 * channels, frequencies, classes)
        self.conditions, self.null_conditions = self.condition.conditions, self.condition.null_conditions
        self.enter = nn.Conv2d(self.shape[0], channels, 3, padding=1)
        self._build([channels * factor for factor in multipliers], channels, blocks, attention, head_width)
        self.norm = _group_norm(channels * multipliers[0])
        self.out = nn.Conv2d(channels * multipliers[0], self.shape[0], 3, padding=1)
        self._initialise(zero_init)

    def _build(self, levels: list[int], channels: int, blocks: int, attention: int, head_width: int) -> None:
        """The blocks of the way down, of the middle and of the way up, from the widths of the levels."""
        width, side = channels, max(self.shape[1:])
        kept = [width]  # widths of the maps that the way up takes over

        def block(wider_by: int, out: int, resample: Resample | None = None, attends: bool = False) -> Block:
            nonlocal width
            made = Block(width + wider_by, out, 4 * channels, resample, head_width if attends else None)
            width = out
            return made

        self.down = nn.ModuleList()
        for index, level in enumerate(levels):
            for _ in range(blocks):
                self.down.append(block(0, level, attends=side <= attention))
                kept.append(width)
            if index < len(levels) - 1:
                self.down.append(block(0, level, "half"))
                kept.append(width)
                side //= 2
        self.middle = nn.ModuleList([block(0, width, attends=True), block(0, width)])
        self.up = nn.ModuleList()
        for index, level in reversed(list(enumerate(levels))):
            for _ in range(blocks + 1):
                self.up.append(block(kept.pop(), level, attends=side <= attention))
            if index > 0:
                self.up.append(block(0, level, "double"))
                side *= 2

    def _initialise(self, zero_init: bool) -> None:
        """torch's own initial values, but an output of unit scale, or zeros (see the class)."""
        if self.condition.label is not None:
            nn.init.normal_(self.condition.label.weight, std=0.02)
        last = [layer for name, layer in self.named_modules() if name.endswith((".leave", ".attended"))]
        if zero_init:
            for layer in [*last, self.out]:
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)
        else:
            nn.init.normal_(self.out.weight, std=1 / math.sqrt(9 * self.out.in_channels))

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
        condition = nn.functional.silu(self.condition(log_snr, cond))  # [N, 4·channels]
        hidden = self.enter(x)
        kept = [hidden]
        for block in self.down:
            hidden = block(hidden, condition)
            kept.append(hidden)
        for block in self.middle:
            hidden = block(hidden, condition)
        for block in self.up:
            joined = hidden if block.resample else torch.cat([hidden, kept.pop()], dim=1)
            hidden = block(joined, condition)
        prediction: Tensor = self.out(nn.functional.silu(self.norm(hidden)))
        return prediction


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_largest_divisor(width, max(1, min(_GROUPS, width // _CHANNELS_IN_GROUP))), width)


def _largest_divisor(number: int, at_most: int) -> int:
    return next(divisor for divisor in range(at_most, 0, -1) if number % divisor == 0)


def _check_sizes(
    shape: tuple[int, ...],
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    attention: int,
    head_width: int,
) -> None:
    for name, size in {"channels": channels, "blocks": blocks, "head_width": head_width}.items():
        require_positive_int(name, size)
    require_int("attention", attention, at_least=0)
    if not isinstance(multipliers, Sequence) or isinstance(multipliers, str) or not multipliers:
        raise InputError(
            "multipliers", expected="a factor for each level, such as (1, 2)", got=kind_of(multipliers)
        )
    for factor in multipliers:
        require_positive_int("multipliers", factor)
    if len(shape) != 3:
        raise InputError("shape of a U-Net's samples", expected="(channels, height, width)", got=shape)
    halved = 2 ** (len(multipliers) - 1)
    if shape[1] % halved or shape[2] % halved:
        raise InputError(
            "multipliers",
            expected=f"no more levels than an image of {shape[1]}×{shape[2]} can be halved for",
            got=f"{len(multipliers)} levels",
        )
