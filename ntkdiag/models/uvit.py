"""A transformer for images with long skips: the time, the label and the patches are tokens alike.

After the U-ViT of Bao et al. 2023 (arXiv 2209.12152), written from the paper; the log-SNR takes the place of the time. Each
block behind the middle also takes what the block at the same distance before the middle returned. The defaults are sized for
8×8 digits; `patch=2, width=1152, depth=29, heads=16` on 4×32×32 latents is the size of U-ViT-H/2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.models.embedding import Condition, check_input


class Block(nn.Module):
    """Self-attention and a GELU MLP, each behind a norm and added; behind the middle, a skip is joined first."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, joins: bool) -> None:
        super().__init__()
        self.heads = heads
        self.join = nn.Linear(2 * width, width) if joins else None
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, mlp_ratio * width)
        self.contract = nn.Linear(mlp_ratio * width, width)

    def forward(self, tokens: Tensor, skip: Tensor | None = None) -> Tensor:
        """Tokens and skip [N, T, width] → [N, T, width]."""
        if self.join is not None and skip is not None:
            tokens = self.join(torch.cat([tokens, skip], dim=2))
        tokens = tokens + self._attend(self.norm_attention(tokens))
        hidden: Tensor = self.contract(nn.functional.gelu(self.expand(self.norm_mlp(tokens))))
        return tokens + hidden

    def _attend(self, tokens: Tensor) -> Tensor:
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # [N, T, 3, heads, width/heads]
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each [N, heads, T, width/heads]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.attended(mixed.transpose(1, 2).flatten(2))
        return output


class UViT(nn.Module):
    """Denoising transformer on images, with long skips.

    Args:
        shape: (channels, height, width) of one image.
        patch: Side of the square patch that becomes one token; divides height and width.
        width: Channels of a token; a multiple of `heads`.
        depth: Number of blocks, odd: as many before the middle one as behind it.
        heads: Attention heads.
        mlp_ratio: Hidden units of a block's MLP, in units of `width`.
        frequencies: Number of sine/cosine pairs in which the log-SNR is expanded, before an MLP makes a token of it.
        classes: Number of class labels; None for none.

    Raises:
        InputError: the sizes do not fit together.

    Example:
        >>> network = UViT((1, 8, 8), width=32, depth=3, classes=10)
        >>> network(torch.zeros(3, 1, 8, 8), torch.zeros(3), torch.tensor([0, 5, 9])).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        patch: int = 2,
        width: int = 64,
        depth: int = 5,
        heads: int = 4,
        mlp_ratio: int = 4,
        frequencies: int = 128,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.patch = patch
        _check_sizes(self.shape, patch, width, depth, heads, mlp_ratio)
        channels, height, across = self.shape
        self.grid = (height // patch, across // patch)
        self.condition = Condition(width, frequencies, classes)
        self.conditions, self.null_conditions = self.condition.conditions, self.condition.null_conditions
        self.extra = 1 if self.condition.label is None else 2  # tokens before those of the patches
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(self.extra + math.prod(self.grid), width))
        half = depth // 2
        self.before = nn.ModuleList(Block(width, heads, mlp_ratio, joins=False) for _ in range(half))
        self.middle = Block(width, heads, mlp_ratio, joins=False)
        self.behind = nn.ModuleList(Block(width, heads, mlp_ratio, joins=True) for _ in range(half))
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, channels * patch * patch)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier-uniform weights and zero biases, where the paper has std 0.02, so that narrow networks start alive too."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.positions, std=0.02)
        if self.condition.label is not None:
            nn.init.normal_(self.condition.label.weight, std=0.02)
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
        patches = self.embed(x).flatten(2).transpose(1, 2)  # [N, grid, width]
        extra = [self.condition.of_level(log_snr), self.condition.of_label(log_snr, cond)]
        first = [token[:, None] for token in extra if token is not None]
        tokens = torch.cat([*first, patches], dim=1) + self.positions  # [N, T, width]
        kept = []
        for block in self.before:
            tokens = block(tokens)
            kept.append(tokens)
        tokens = self.middle(tokens)
        for block in self.behind:
            tokens = block(tokens, kept.pop())
        pixels = self.pixels(self.norm(tokens[:, self.extra :])).transpose(1, 2)  # [N, C·patch², grid]
        prediction: Tensor = self.out(nn.functional.pixel_shuffle(pixels.unflatten(2, self.grid), self.patch))
        return prediction


def _check_sizes(
    shape: tuple[int, ...], patch: int, width: int, depth: int, heads: int, mlp_ratio: int
) -> None:
    sizes = {"patch": patch, "width": width, "depth": depth, "heads": heads, "mlp_ratio": mlp_ratio}
    for name, size in sizes.items():
        require_positive_int(name, size)
    if len(shape) != 3:
        raise InputError("shape of a U-ViT's samples", expected="(channels, height, width)", got=shape)
    if shape[1] % patch or shape[2] % patch:
        raise InputError(
            "patch", expected="a divisor of the image's sides", got=f"{patch} for {shape[1]}×{shape[2]}"
        )
    if width % heads:
        raise InputError(
            "width", expected=f"a multiple of heads={heads}", got=width, fix="Change width or heads."
        )
    if depth % 2 == 0:
        raise InputError("depth", expected="an odd number, for the long skips pair its blocks", got=depth)
