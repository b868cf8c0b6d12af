"""Networks that `fully_shard` has sharded over processes: the kernel is that of the whole network, and training goes on."""

from __future__ import annotations

import pytest
import shared_jobs
import torch
from process_group import ProcessGroup

pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 7), reason="fully_shard does not run on a CPU before torch 2.7"
)


@pytest.mark.parametrize("engine", ["streaming", "sketch"])
@pytest.mark.parametrize("kind", ["blocks", "left gathered", "tied", "grouped"])
def test_the_kernel_is_that_of_the_whole_network(two_processes: ProcessGroup, kind: str, engine: str) -> None:
    found = two_processes.same(shared_jobs.fully_sharded, kind, engine=engine, sketch=2)
    whole = shared_jobs.fully_sharded(kind, shard=False, engine=engine, sketch=2)
    torch.testing.assert_close(found["kernel"], whole["kernel"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found["gradient"], whole["gradient"], rtol=1e-12, atol=1e-12)
    assert found["pieces"] == 6  # all parameters are sharded again
    assert found["heard"]  # hooks of the network's own run


def test_a_measurement(two_processes: ProcessGroup) -> None:
    found = two_processes.same(shared_jobs.sharded_measurement, True)
    alone = shared_jobs.sharded_measurement(False)
    for name, values in alone.items():
        torch.testing.assert_close(found[name], values, rtol=1e-8, atol=1e-12)
