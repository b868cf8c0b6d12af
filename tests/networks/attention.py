"""Attention: torch's own modules, and blocks that fold the batch with windows or heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks.case import Inputs, Net, case, normal


@case()
def attention_self(n: int) -> tuple[nn.Module, Inputs]:
    """With and without weights returned; the fused path of eval mode must not swallow it."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y, weights = m.first(x, x, x)
        z = m.second(y, y, y, need_weights=False)[0]
        return z + weights @ x

    net = Net(
        forward, first=nn.MultiheadAttention(4, 2, batch_first=True), second=nn.MultiheadAttention(4, 4, batch_first=True)
    )  # fmt: skip
    return net, (normal(n, 5, 4),)


@case()
def attention_sequence_first(n: int) -> tuple[nn.Module, Inputs]:
    """[length, batch, channels]; appended bias and zero tokens; no bias in the second."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        y, weights = m.first(x, x, x, average_attn_weights=False)
        y = m.second(y, y, y, need_weights=False)[0].transpose(0, 1)
        return y + weights.mean((1, 2))[:, :1, None]

    net = Net(
        forward,
        first=nn.MultiheadAttention(4, 2, add_bias_kv=True, add_zero_attn=True),
        second=nn.MultiheadAttention(4, 2, bias=False),
    )  # fmt: skip
    return net, (normal(n, 5, 4),)


@case()
def attention_cross(n: int) -> tuple[nn.Module, Inputs]:
    """Keys and values of other widths, and of other lengths."""
    net = Net(
        lambda m, x, y, z: m.attend(x, y, z)[0], attend=nn.MultiheadAttention(4, 2, kdim=3, vdim=6, batch_first=True)
    )  # fmt: skip
    return net, (normal(n, 2, 4), normal(n, 5, 3), normal(n, 5, 6))


@case()
def attention_cross_packed(n: int) -> tuple[nn.Module, Inputs]:
    """One packed projection, keys apart from queries."""
    net = Net(lambda m, x, y: m.attend(x, y, y)[0], attend=nn.MultiheadAttention(4, 2, batch_first=True))
    return net, (normal(n, 2, 4), normal(n, 5, 4))


@case()
def attention_masked(n: int) -> tuple[nn.Module, Inputs]:
    """Boolean and additive masks, one for each head, causal, and padded keys."""

    def forward(m: Net, x: Tensor, lengths: Tensor) -> Tensor:
        count, length = x.shape[:2]
        padded = torch.arange(length, device=x.device) >= lengths[:, None]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        x = m.a(x, x, x, attn_mask=causal, key_padding_mask=padded)[0]
        slope = torch.arange(length).to(x).expand(count * 2, length, length)
        x = m.b(x, x, x, attn_mask=-slope, need_weights=False)[0]
        return m.c(x, x, x, attn_mask=causal, is_causal=True, need_weights=False)[0]

    attends = {name: nn.MultiheadAttention(4, 2, batch_first=True) for name in "abc"}
    return Net(forward, **attends), (normal(n, 4, 4), torch.randint(1, 5, (n,)))


@case()
def attention_encoder_layers(n: int) -> tuple[nn.Module, Inputs]:
    options = {"nhead": 2, "dim_feedforward": 6, "batch_first": True}
    after = nn.TransformerEncoderLayer(4, **options)
    before = nn.TransformerEncoderLayer(4, norm_first=True, activation="gelu", **options)
    return nn.Sequential(after, before), (normal(n, 3, 4),)


@case()
def attention_decoder_layer(n: int) -> tuple[nn.Module, Inputs]:
    net = Net(lambda m, x, y: m.layer(x, y), layer=nn.TransformerDecoderLayer(4, 2, 6, batch_first=True))
    return net, (normal(n, 2, 4), normal(n, 3, 4))


@case()
def attention_written_out(n: int) -> tuple[nn.Module, Inputs]:
    """Heads folded into the batch, a learned temperature, and learned relative positions."""

    def forward(m: Net, x: Tensor) -> Tensor:
        count, length, _ = x.shape

        def fold(y: Tensor) -> Tensor:
            return y.unflatten(2, (2, -1)).transpose(1, 2).reshape(count * 2, length, -1)

        q, k, v = (fold(part) for part in m.qkv(x).chunk(3, -1))
        q = q * m.temperature.exp()
        scores = torch.bmm(q, k.mT).reshape(count, 2, length, length) + m.bias
        relative = q @ m.relative  # [2 N, T, T], the same for all heads
        weights = (scores + relative.reshape(count, 2, length, length)).softmax(-1)
        return m.out(
            (weights.flatten(0, 1) @ m.per_value(v)).reshape(count, 2, length, -1).transpose(1, 2).flatten(2)
        )

    net = Net(
        forward, qkv=nn.Linear(4, 12), out=nn.Linear(4, 4), temperature=normal(1), bias=normal(2, 3, 3),
        relative=normal(2, 3), per_value=nn.Linear(2, 2),
    )  # fmt: skip
    return net, (normal(n, 3, 4),)


@case()
def attention_in_windows(n: int) -> tuple[nn.Module, Inputs]:
    """Windows folded into the batch, shifted, with a table of relative positions indexed by a buffer."""
    side, heads = 2, 2

    def forward(m: Net, x: Tensor) -> Tensor:
        count, height, width, channels = x.shape
        x = x.roll((1, 1), (1, 2))
        grid = x.reshape(count, height // side, side, width // side, side, channels)
        windows = grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, channels)
        q, k, v = m.qkv(windows).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        bias = m.table[m.index.flatten()].reshape(side * side, side * side, heads).permute(2, 0, 1)
        scores = q @ k.mT + bias.unsqueeze(0)
        per_window = (
            scores.reshape(count, -1, heads, side * side, side * side) + m.each_window[None, :, None, None]
        )
        weights = per_window.softmax(-1).reshape(scores.shape)
        y = m.out((weights @ v).transpose(1, 2).flatten(2))
        return y.reshape(count, -1, side, side, channels).sum((2, 3)).tanh()

    net = Net(
        forward, qkv=nn.Linear(4, 12), out=nn.Linear(4, 4), table=normal(9, heads), each_window=normal(4, 4)
    )
    rows, columns = torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()])
    offset = place[:, :, None] - place[:, None, :] + 1
    net.register_buffer("index", offset[0] * 3 + offset[1])
    return net, (normal(n, 4, 4, 4),)


@case()
def folded_sample_minor(n: int) -> tuple[nn.Module, Inputs]:
    """Rows w·N + i: the batch is the inner part of the folded dimension."""

    def forward(m: Net, x: Tensor) -> Tensor:
        count = x.shape[0]
        rows = x.transpose(0, 1).reshape(3 * count, 4)
        rows = m.second(m.norm(m.first(rows)).tanh() + m.shift)
        return rows.reshape(3, count, 2).transpose(0, 1)

    net = Net(forward, first=nn.Linear(4, 5), norm=nn.LayerNorm(5), shift=normal(5), second=nn.Linear(5, 2))
    return net, (normal(n, 3, 4),)


@case()
def folded_on_both_sides(n: int) -> tuple[nn.Module, Inputs]:
    """Rows (w, i, h): windows outside, heads inside."""

    def forward(m: Net, x: Tensor) -> Tensor:
        count = x.shape[0]
        rows = m.layer(x.permute(1, 0, 2, 3).reshape(2 * count * 3, 4)).tanh()
        return rows.reshape(2, count, 3, 5).transpose(0, 1)

    return Net(forward, layer=nn.Linear(4, 5)), (normal(n, 2, 3, 4),)


@case()
def folded_where_activations_are_constant(n: int) -> tuple[nn.Module, Inputs]:
    """Behind a layer of zeros all rows are alike: only gradients tell whose they are."""

    def forward(m: Net, x: Tensor) -> Tensor:
        count = x.shape[0]
        rows = x.transpose(0, 1).reshape(3 * count, 4)
        gate = m.after(m.zero(rows * 0) + 1)
        return (gate * rows).tanh().reshape(3, count, 4).transpose(0, 1)

    net = Net(forward, zero=nn.Linear(4, 4), after=nn.Linear(4, 4))
    return net, (normal(n, 3, 4),)


@case()
def samples_in_the_last_dimension(n: int) -> tuple[nn.Module, Inputs]:
    """[heads, channels, N] all the way: 1×1 maps of columns, normalised over what stands before them."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = (m.w @ x.permute(1, 2, 0)).tanh() * m.scale + m.shift[:, None, None]
        return (m.v @ y).permute(2, 0, 1)

    net = Net(forward, w=normal(3, 5, 4), scale=normal(5, 1), shift=normal(3), v=normal(2, 5))
    return net, (normal(n, 3, 4),)
