"""Networks of others in small configurations with random weights: diffusers' U-Nets and DiT, and a U-ViT.

They are kept out of `cases`, because importing diffusers takes seconds.
"""

from __future__ import annotations

import torch
from diffusers import DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel, UVit2DModel
from torch import Tensor, nn
from torch.nn import functional

from networks.case import Inputs, Net, normal


def sample_of(network: nn.Module, *names: str) -> nn.Module:
    """The network called with its inputs under these names, and its output taken out of its wrapper."""
    return Net(lambda m, *inputs: m.network(**dict(zip(names, inputs, strict=True))).sample, network=network)


def unet(n: int) -> tuple[nn.Module, Inputs]:
    """UNet2DModel with attention, down- and upsampling."""
    network = UNet2DModel(
        sample_size=8, in_channels=2, out_channels=2, layers_per_block=1, block_out_channels=(4, 8), norm_num_groups=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    return sample_of(network, "sample", "timestep"), (normal(n, 2, 8, 8), torch.randint(0, 1000, (n,)))


def unet_with_class_labels(n: int) -> tuple[nn.Module, Inputs]:
    """UNet2DModel that scales and shifts by a learned time embedding and has labels, with resnet up- and downsampling."""
    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4, 4), norm_num_groups=2,
        down_block_types=("ResnetDownsampleBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "ResnetUpsampleBlock2D"), num_class_embeds=5, add_attention=False,
        resnet_time_scale_shift="scale_shift", time_embedding_type="fourier",
    )  # fmt: skip
    inputs = (normal(n, 1, 8, 8), torch.rand(n) + 0.5, torch.randint(0, 5, (n,)))
    return sample_of(network, "sample", "timestep", "class_labels"), inputs


def conditional_unet(n: int) -> tuple[nn.Module, Inputs]:
    """UNet2DConditionModel with cross-attention to a text."""
    network = UNet2DConditionModel(
        sample_size=4, in_channels=2, out_channels=2, layers_per_block=1, block_out_channels=(4, 8), norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2, cross_attention_dim=6,
    )  # fmt: skip
    inputs = (normal(n, 2, 4, 4), torch.randint(0, 1000, (n,)), normal(n, 3, 6))
    return sample_of(network, "sample", "timestep", "encoder_hidden_states"), inputs


def dit(n: int) -> tuple[nn.Module, Inputs]:
    """DiTTransformer2DModel: adaLN-zero blocks, labels and timesteps."""
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=2, out_channels=2, num_layers=2, sample_size=4,
        patch_size=2, num_embeds_ada_norm=10,
    )  # fmt: skip
    inputs = (normal(n, 2, 4, 4), torch.randint(0, 1000, (n,)), torch.randint(0, 10, (n,)))
    return sample_of(network, "hidden_states", "timestep", "class_labels"), inputs


def masked_token_uvit(n: int) -> tuple[nn.Module, Inputs]:
    """UVit2DModel: token ids in, logits out, with convolutions around a transformer and RMS norms."""
    network = UVit2DModel(
        hidden_size=8, cond_embed_dim=4, micro_cond_encode_dim=4, micro_cond_embed_dim=8, encoder_hidden_size=6,
        vocab_size=12, codebook_size=9, in_channels=4, block_out_channels=4, num_res_blocks=1, block_num_heads=2,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, sample_size=4,
    )  # fmt: skip

    def forward(m: Net, ids: Tensor, text: Tensor, pooled: Tensor, sizes: Tensor) -> Tensor:
        return m.network(ids, text, pooled, sizes)

    inputs = (torch.randint(0, 9, (n, 4, 4)), normal(n, 3, 6), normal(n, 4), normal(n, 2))
    return Net(forward, network=network), inputs


class UViTBlock(nn.Module):
    """A transformer block; behind the middle it also takes what the block at the same depth before it gave."""

    def __init__(self, width: int, heads: int, skip: bool) -> None:
        super().__init__()
        self.join = nn.Linear(2 * width, width) if skip else None
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.heads = heads

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.join is not None and skip is not None:
            x = self.join(torch.cat([x, skip], -1))
        q, k, v = self.qkv(self.before_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.before_mlp(x))


class UViT(nn.Module):
    """A U-ViT (Bao et al. 2023): time, label and patches are tokens alike, with long skips and a final convolution."""

    def __init__(
        self, side: int = 4, patch: int = 2, width: int = 8, heads: int = 2, classes: int = 5
    ) -> None:
        super().__init__()
        self.grid, self.patch = side // patch, patch
        self.embed = nn.Conv2d(2, width, patch, stride=patch)
        self.time = nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes, width)
        self.positions = nn.Parameter(torch.randn(1, 2 + self.grid**2, width))
        self.first = UViTBlock(width, heads, skip=False)
        self.middle = UViTBlock(width, heads, skip=False)
        self.last = UViTBlock(width, heads, skip=True)
        self.norm = nn.LayerNorm(width)
        self.decode = nn.Linear(width, 2 * patch**2)
        self.smooth = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        angles = t[:, None] * torch.tensor([1.0, 0.1]).to(x)
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1)).unsqueeze(1)
        tokens = torch.cat([time, self.label(label).unsqueeze(1), tokens], 1) + self.positions
        early = self.first(tokens)
        tokens = self.last(self.middle(early), early)
        pixels = self.decode(self.norm(tokens))[:, 2:].unflatten(1, (self.grid, self.grid))
        pixels = pixels.unflatten(3, (2, self.patch, self.patch)).permute(0, 3, 1, 4, 2, 5)
        return self.smooth(pixels.reshape(x.shape))


def uvit(n: int) -> tuple[nn.Module, Inputs]:
    return UViT(), (normal(n, 2, 4, 4), torch.rand(n), torch.randint(0, 5, (n,)))


PUBLISHED = [unet, unet_with_class_labels, conditional_unet, dit, masked_token_uvit, uvit]
