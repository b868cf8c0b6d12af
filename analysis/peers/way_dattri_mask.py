"""dattri, `random_mask`: whole per-sample gradients by vmap(grad), of which m elements are kept: its cheapest on a CPU."""

from __future__ import annotations

from collections.abc import Callable

from dattri.func.projection import random_project
from dattri.task import AttributionTask
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.ways import Case


def columns(case: Case, size: int, seed: int = 0) -> Callable[[], Tensor]:
    """Rows [N, m] whose inner products are unbiased for those of the gradients; the mask is made anew at every call."""
    probe = case.probes[0]

    def output(weights: dict[str, Tensor], sample: tuple[Tensor, ...]) -> Tensor:
        batch = tuple(part.unsqueeze(0) for part in sample)
        return (functional_call(case.module, weights, batch).squeeze(0) * probe).sum()

    weights = {name: value.detach() for name, value in case.module.named_parameters()}
    task = AttributionTask(output, case.module, weights, checkpoints_load_func=lambda model, _: model)
    gradients_of = task.get_grad_loss_func(in_dims=(None, 0))
    flat, _ = task.get_param()
    flat = flat.detach()

    def rows() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            gradients = gradients_of(flat, case.inputs)
        project = random_project(
            gradients,
            case.samples,
            proj_dim=size,
            proj_max_batch_size=32,
            proj_seed=seed,
            proj_type="random_mask",
        )
        return project(gradients).detach() * (case.parameters / size) ** 0.5

    return rows
