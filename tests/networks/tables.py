"""Tables looked up by indices that belong to samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.case import Inputs, Net, case, normal


def indices(n: int, length: int, rows: int) -> Tensor:
    return torch.randint(0, rows, (n, length))


@case()
def table_with_padding(n: int) -> tuple[nn.Module, Inputs]:
    net = Net(
        lambda m, i: m.out(m.table(i)).tanh(), table=nn.Embedding(5, 3, padding_idx=-1), out=nn.Linear(3, 2)
    )
    return net, (indices(n, 6, 5),)


@case()
def table_of_labels(n: int) -> tuple[nn.Module, Inputs]:
    """A label a sample, looked up thrice."""

    def forward(m: Net, x: Tensor, label: Tensor) -> Tensor:
        code = m.table[label] + torch.index_select(m.other, 0, label) + functional.embedding(label, m.table)
        return m.out(x + code)

    net = Net(forward, table=normal(5, 3), other=normal(4, 3), out=nn.Linear(3, 2))
    return net, (normal(n, 3), torch.randint(0, 4, (n,)))


@case()
def table_negative_index(n: int) -> tuple[nn.Module, Inputs]:
    return Net(lambda m, i: m.table[i - 5].tanh(), table=normal(5, 2, 3)), (indices(n, 4, 5),)


@case()
def table_derived(n: int) -> tuple[nn.Module, Inputs]:
    """A table that is scaled before it is looked up."""
    return Net(lambda m, i: (m.table * m.scale)[i].tanh(), table=normal(5, 3), scale=normal(3)), (
        indices(n, 4, 5),
    )


@case()
def table_bag(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, i: Tensor) -> Tensor:
        return torch.cat([m.total(i), m.mean(i).tanh()], 1)

    return Net(forward, total=nn.EmbeddingBag(5, 3, mode="sum"), mean=nn.EmbeddingBag(5, 2)), (
        indices(n, 4, 5),
    )


@case(exact=("largest.weight", "ragged.weight"))
def table_bag_refused(n: int) -> tuple[nn.Module, Inputs]:
    def forward(m: Net, i: Tensor) -> Tensor:
        starts = torch.arange(0, i.numel(), i.shape[1], device=i.device)
        ragged = functional.embedding_bag(i.flatten(), m.ragged.weight, starts, mode="sum")
        return m.out(torch.cat([m.largest(i), ragged], 1))

    net = Net(
        forward, largest=nn.EmbeddingBag(5, 3, mode="max"), ragged=nn.Embedding(5, 2), out=nn.Linear(5, 2)
    )  # fmt: skip
    return net, (indices(n, 4, 5),)


@case(exact=("columns",))
def table_indexed_along_columns(n: int) -> tuple[nn.Module, Inputs]:
    net = Net(lambda m, i: m.columns[:, i].movedim(0, -1) @ m.out, columns=normal(3, 5), out=normal(3, 2))
    return net, (indices(n, 4, 5),)
