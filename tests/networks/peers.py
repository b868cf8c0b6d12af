"""Kinds of layers that the tests of other gradient libraries have, one network a kind, written from their descriptions.

Opacus (recurrent layers of every form, padded sequences, an attention with learned keys, bilinear layers), BackPACK
(pooling, padding, slices, branches that are summed), nngeometry (cosine layers), neural-tangents (rare activations, locally
connected and graph layers, products of branches, resized pictures), and layers of newer networks (state spaces, Fourier
layers, rotary positions, shared key heads, pictures sampled at learned places, hypernetworks).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import rnn

from networks.case import Inputs, Net, case, normal


@case(exact=("forth.*", "gated.*", "plain.*"))
def recurrent_in_layers_and_directions(n: int) -> tuple[nn.Module, Inputs]:
    """Two layers, both directions, projected states, and a plain recurrence with ReLU."""

    def forward(m: Net, x: Tensor) -> Tensor:
        forth, _ = m.forth(x)
        gated, last = m.gated(forth)
        plain, _ = m.plain(gated)
        return m.out(torch.cat([plain[:, -1], last[0]], 1))

    net = Net(
        forward, forth=nn.LSTM(2, 3, num_layers=2, bidirectional=True, proj_size=2, batch_first=True),
        gated=nn.GRU(4, 2, bidirectional=True, batch_first=True, bias=False),
        plain=nn.RNN(4, 3, nonlinearity="relu", batch_first=True), out=nn.Linear(5, 2),
    )  # fmt: skip
    return net, (normal(n, 3, 2),)


@case(exact=("lstm.*", "out.*"))
def padded_sequences(n: int) -> tuple[nn.Module, Inputs]:
    """Words of different number: embedded, packed for a recurrent layer, and averaged over what is there."""

    def forward(m: Net, words: Tensor) -> Tensor:
        present = (words != 0).sum(1)
        packed = rnn.pack_padded_sequence(
            m.table(words), present.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = rnn.pad_packed_sequence(m.lstm(packed)[0], batch_first=True, total_length=words.shape[1])
        return m.out(states.sum(1) / present[:, None])

    net = Net(
        forward, table=nn.Embedding(6, 3, padding_idx=0), lstm=nn.LSTM(3, 3, batch_first=True), out=nn.Linear(3, 2)
    )  # fmt: skip
    words = torch.randint(1, 6, (n, 4))
    words[:, 2:] *= torch.randint(0, 2, (n, 1))
    return net, (words,)


@case()
def attention_with_learned_keys(n: int) -> tuple[nn.Module, Inputs]:
    """One more key and value, learned, and one of zeros; queries, keys and values of different widths."""

    def forward(m: Net, x: Tensor, y: Tensor) -> Tensor:
        return m.attention(x, y, y[..., :3], need_weights=False)[0]

    attention = nn.MultiheadAttention(
        4, 2, add_bias_kv=True, add_zero_attn=True, kdim=5, vdim=3, batch_first=True
    )
    return Net(forward, attention=attention), (normal(n, 3, 4), normal(n, 2, 5))


@case(exact=("pair.*",))
def bilinear_layer(n: int) -> tuple[nn.Module, Inputs]:
    net = Net(lambda m, x, y: m.out(m.pair(x, y).sin()), pair=nn.Bilinear(3, 2, 4), out=nn.Linear(4, 2))
    return net, (normal(n, 3), normal(n, 2))


@case()
def pooling_of_every_kind(n: int) -> tuple[nn.Module, Inputs]:
    """Maxima with their places and the way back, averages, powers, adaptive and fractional sizes."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x = m.first(x)
        small, places = functional.max_pool2d(x, 2, return_indices=True)
        back = functional.max_unpool2d(m.second(small), places, 2)
        mean = functional.avg_pool2d(m.third(back + x), 3, stride=1, padding=1, count_include_pad=False)
        power = functional.lp_pool2d(mean, 2.0, 2)
        adaptive = functional.adaptive_avg_pool2d(m.fourth(power), (2, 1))
        return adaptive.flatten(1) + functional.adaptive_max_pool2d(mean, 1).flatten(1).repeat(1, 2)

    layers = {
        name: nn.Conv2d(2, 2, 3, padding=1, bias=bias)
        for name, bias in (("first", True), ("second", False), ("third", True), ("fourth", True))
    }
    return Net(forward, **layers), (normal(n, 2, 6, 6),)


@case()
def padding_and_slices(n: int) -> tuple[nn.Module, Inputs]:
    """Zeros, mirrors and constants around a picture, negative padding, steps, flips, rolls and shuffled channels."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x = m.a(functional.pad(x, (1, 2, 0, 1), value=0.5))
        x = functional.pad(functional.pad(x, (1, 1, 1, 1), mode="reflect"), (-1, 0, 0, -2))
        x = m.b(x[:, :, ::2, 1:].flip(3).roll(1, 2))
        return functional.channel_shuffle(functional.pixel_unshuffle(functional.pixel_shuffle(x, 2), 2), 2)

    return Net(forward, a=nn.Conv2d(2, 3, 2), b=nn.Conv2d(3, 4, 2)), (normal(n, 2, 5, 5),)


@case()
def branches_summed_and_multiplied(n: int) -> tuple[nn.Module, Inputs]:
    """Two branches of one input: their sum, product, quotient and concatenation, and a sum over many layers."""

    def forward(m: Net, x: Tensor) -> Tensor:
        a, b = m.a(x).tanh(), m.b(x).sigmoid()
        joined = torch.cat([a + b, a * b, a / (1 + b)], 1)
        return torch.stack([layer(joined) for layer in m.many]).sum(0)

    many = nn.ModuleList(nn.Linear(9, 2, bias=i > 0) for i in range(3))
    return Net(forward, a=nn.Linear(4, 3), b=nn.Linear(4, 3), many=many), (normal(n, 4),)


@case()
def rare_activations(n: int) -> tuple[nn.Module, Inputs]:
    """Every activation that another library has a kernel of: error function, sine, Hermite, absolute, sign, radial."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x = m.a(x)
        x = torch.cat([x.erf(), x.sin() + x.cos(), x**3 - 3 * x, x.abs(), (-(x**2)).exp()], 1)
        x = functional.gelu(m.b(x), approximate="tanh") + x.sign().sum(1, keepdim=True)
        gated = functional.glu(m.c(functional.mish(functional.hardswish(functional.selu(x)))), 1)
        return functional.softsign(functional.logsigmoid(gated)) + functional.softplus(functional.celu(gated))

    return Net(forward, a=nn.Linear(3, 2), b=nn.Linear(10, 4), c=nn.Linear(4, 6)), (normal(n, 3),)


@case()
def cosine_layer(n: int) -> tuple[nn.Module, Inputs]:
    """Input and weight rows of length one, and a learned temperature."""

    def forward(m: Net, x: Tensor) -> Tensor:
        angles = functional.linear(functional.normalize(x, dim=1), functional.normalize(m.w, dim=1))
        return (angles * m.temperature.exp()).softmax(1)

    return Net(forward, w=normal(4, 3), temperature=normal(1)), (normal(n, 3),)


@case()
def locally_connected(n: int) -> tuple[nn.Module, Inputs]:
    """A convolution whose weights are another at each place: patches unfolded, and folded back."""

    def forward(m: Net, x: Tensor) -> Tensor:
        patches = functional.unfold(x, 2)  # [N, 8, 9]
        local = torch.einsum("npl,opl->nol", patches, m.w) + m.b
        return functional.fold(m.out(local.transpose(1, 2)).transpose(1, 2), (4, 4), 2)

    return Net(forward, w=normal(3, 8, 9), b=normal(3, 9), out=nn.Linear(3, 4)), (normal(n, 2, 4, 4),)


@case()
def graph_layers(n: int) -> tuple[nn.Module, Inputs]:
    """Nodes that gather from their neighbours, by each sample's own adjacency, with normalised degrees."""

    def forward(m: Net, nodes: Tensor, edges: Tensor) -> Tensor:
        degree = edges.sum(2, keepdim=True) + 1
        for layer in m.layers:
            nodes = (edges @ layer(nodes) / degree + m.own(nodes)).relu()
        weight = m.score(nodes).softmax(1)
        return (weight * nodes).sum(1)

    net = Net(
        forward, layers=nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]), own=nn.Linear(3, 3), score=nn.Linear(3, 1)
    )  # fmt: skip
    return net, (normal(n, 4, 3), torch.rand(n, 4, 4))


@case()
def messages_scattered(n: int) -> tuple[nn.Module, Inputs]:
    """Messages along the same edges for all samples, added where they arrive."""

    def forward(m: Net, nodes: Tensor) -> Tensor:
        source, target = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 3, 0, 1]], device=nodes.device)
        message = m.message(torch.cat([nodes[:, source], nodes[:, target]], 2)).tanh()
        arrived = torch.zeros_like(nodes).index_add(1, target, message)
        place = target[None, :, None].expand_as(message)
        return m.update(arrived + torch.zeros_like(nodes).scatter_add(1, place, message.sin()))

    return Net(forward, message=nn.Linear(6, 3), update=nn.Linear(3, 2)), (normal(n, 4, 3),)


@case()
def pictures_resized(n: int) -> tuple[nn.Module, Inputs]:
    """Nearest, bilinear with corners, bicubic and by area, between layers."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x = functional.interpolate(m.a(x), scale_factor=2, mode="nearest")
        x = functional.interpolate(m.b(x), size=(5, 3), mode="bilinear", align_corners=True)
        x = functional.interpolate(m.a(x), size=(4, 4), mode="bicubic", antialias=True)
        return functional.interpolate(m.b(x), size=2, mode="area")

    return Net(forward, a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(3, 2, 3, padding=1)), (normal(n, 2, 3, 3),)


@case()
def sampled_at_learned_places(n: int) -> tuple[nn.Module, Inputs]:
    """A spatial transformer: the picture decides where it is looked at."""

    def forward(m: Net, x: Tensor) -> Tensor:
        theta = m.where(x.flatten(1)).unflatten(1, (2, 3)) * 0.2
        theta = theta + torch.eye(2, 3).to(x)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
        return m.conv(functional.grid_sample(m.conv(x), grid, align_corners=False, padding_mode="border"))

    return Net(forward, where=nn.Linear(32, 6), conv=nn.Conv2d(2, 2, 3, padding=1)), (normal(n, 2, 4, 4),)


@case(exact=("spectrum",))
def fourier_layer(n: int) -> tuple[nn.Module, Inputs]:
    """Low frequencies multiplied by learned complex numbers that are stored as pairs."""

    def forward(m: Net, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(m.lift(x), dim=1)
        mixed = torch.einsum("nkc,kcd->nkd", spectrum[:, :3], torch.view_as_complex(m.spectrum))
        return m.out(torch.fft.irfft(mixed, n=x.shape[1], dim=1))

    return Net(forward, lift=nn.Linear(2, 3), spectrum=normal(3, 3, 3, 2), out=nn.Linear(3, 1)), (
        normal(n, 6, 2),
    )


@case()
def state_space_scan(n: int) -> tuple[nn.Module, Inputs]:
    """A selective state space: step sizes from the input, a decay that is learned, and a loop over time."""

    def forward(m: Net, x: Tensor) -> Tensor:
        step = functional.softplus(m.step(x))  # [N, T, 3]
        write, read = m.write(x), m.read(x)  # [N, T, 2]
        state, outputs = x.new_zeros(x.shape[0], 3, 2), []
        for t in range(x.shape[1]):
            decay = (-step[:, t, :, None] * m.rate.exp()).exp()
            state = decay * state + (step[:, t] * x[:, t])[..., None] * write[:, t, None]
            outputs.append((state * read[:, t, None]).sum(2) + m.skip * x[:, t])
        return torch.stack(outputs, 1)

    net = Net(
        forward, step=nn.Linear(3, 3), write=nn.Linear(3, 2), read=nn.Linear(3, 2), rate=normal(3, 2), skip=normal(3)
    )  # fmt: skip
    return net, (normal(n, 4, 3),)


@case()
def rotary_positions_and_shared_heads(n: int) -> tuple[nn.Module, Inputs]:
    """Queries of four heads, keys and values of two, turned by their position, normalised, behind a causal mask."""

    def turned(x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[2]).to(x)[:, None] * torch.tensor([1.0, 0.1]).to(x)
        a, b = x[..., :2], x[..., 2:]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    def forward(m: Net, x: Tensor) -> Tensor:
        q = m.norm(m.query(x).unflatten(2, (4, 4))).transpose(1, 2)
        k, v = (layer(x).unflatten(2, (2, 4)).transpose(1, 2) for layer in (m.key, m.value))
        k, v = m.norm(k).repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        read = functional.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        return m.out(read.transpose(1, 2).flatten(2))

    net = Net(
        forward, query=nn.Linear(6, 16, bias=False), key=nn.Linear(6, 8, bias=False), value=nn.Linear(6, 8, bias=False),
        norm=nn.RMSNorm(4), out=nn.Linear(16, 2),
    )  # fmt: skip
    return net, (normal(n, 3, 6),)


@case()
def hypernetwork(n: int) -> tuple[nn.Module, Inputs]:
    """A layer whose weights another layer makes from a condition, for each sample its own."""

    def forward(m: Net, x: Tensor, condition: Tensor) -> Tensor:
        weight = m.make(condition).unflatten(1, (3, 4))
        return torch.bmm(weight, x.unsqueeze(2)).squeeze(2).tanh()

    return Net(forward, make=nn.Linear(2, 12)), (normal(n, 4), normal(n, 2))


@case()
def lists_and_dicts_of_parameters(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, x: Tensor) -> Tensor:
        for weight in m.listed:
            x = (x @ weight).tanh()
        return x * m.named["scale"] + m.named["shift"]

    named = nn.ParameterDict({"scale": nn.Parameter(normal(3)), "shift": nn.Parameter(normal(3))})
    listed = nn.ParameterList([nn.Parameter(normal(4, 3)), nn.Parameter(normal(3, 3))])
    return Net(forward, listed=listed, named=named), (normal(n, 4),)
