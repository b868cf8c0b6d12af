"""A small convolutional U-Net with group norm and self-attention: the second network of the study."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Two 3×3 convolutions, each after group norm and SiLU; the condition shifts between them."""

    def __init__(self, inside: int, outside: int, condition: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.shift = nn.Linear(condition, outside)
        self.norm2 = nn.GroupNorm(groups, outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [N, inside, H, W], condition [N, condition] → [N, outside, H, W]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = hidden + self.shift(condition)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(hidden)))


class Attention(nn.Module):
    """Self-attention over the pixels, one head."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same."""
        query, key, value = self.qkv(self.norm(x)).flatten(2).mT.chunk(3, dim=2)  # each [N, H·W, C]
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(attended.mT.reshape(x.shape))


class UNet(nn.Module):
    """Three levels, halving the sides twice, attention at the lowest, skips concatenated on the way up.

    Args:
        channels: Of the image.
        width: Channels of the first level; the next have twice and four times as many.
        groups: Groups of each group norm; divides `width`.
    """

    def __init__(self, channels: int = 3, width: int = 64, groups: int = 8) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width)
        self.condition1 = nn.Linear(1, sizes[2])
        self.condition2 = nn.Linear(sizes[2], sizes[2])
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down1 = Residual(width, sizes[0], sizes[2], groups)
        self.pool1 = nn.Conv2d(sizes[0], sizes[0], 3, stride=2, padding=1)
        self.down2 = Residual(sizes[0], sizes[1], sizes[2], groups)
        self.pool2 = nn.Conv2d(sizes[1], sizes[1], 3, stride=2, padding=1)
        self.middle1 = Residual(sizes[1], sizes[2], sizes[2], groups)
        self.attention = Attention(sizes[2], groups)
        self.middle2 = Residual(sizes[2], sizes[1], sizes[2], groups)
        self.up2 = Residual(2 * sizes[1], sizes[0], sizes[2], groups)
        self.up1 = Residual(2 * sizes[0], width, sizes[2], groups)
        self.norm = nn.GroupNorm(groups, width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """x [N, channels, H, W] with H, W multiples of 4, log_snr [N] → the shape of x."""
        condition = self.condition2(F.silu(self.condition1(torch.tanh(log_snr / 8)[:, None])))
        high = self.down1(self.first(x), condition)
        half = self.down2(self.pool1(high), condition)
        low = self.middle1(self.pool2(half), condition)
        low = self.middle2(self.attention(low), condition)
        half = self.up2(torch.cat([F.interpolate(low, scale_factor=2.0), half], dim=1), condition)
        high = self.up1(torch.cat([F.interpolate(half, scale_factor=2.0), high], dim=1), condition)
        return self.last(F.silu(self.norm(high)))
