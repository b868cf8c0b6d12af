"""The streaming engine on networks of others: diffusers' U-Nets, DiT and U-ViT, without a single fallback."""

from __future__ import annotations

import pytest
import torch
from networks.case import Build, Case
from references import brute_gram, relative_error
from streaming_truth import cotangents_for, state, streamed

pytest.importorskip("diffusers")
from networks.published import PUBLISHED


@pytest.mark.parametrize("build", PUBLISHED, ids=lambda build: build.__name__)
def test_networks_of_others_agree_and_are_covered(build: Build) -> None:
    module, inputs = Case(build.__name__, build)(seed=0)
    cotangents = cotangents_for(module, inputs, probes=1)
    before = state(module)
    found = streamed(module, inputs, cotangents, group=lambda name: name.partition(".")[0])
    assert state(module) == before
    assert relative_error(found.per_probe, brute_gram(module, inputs, cotangents)) < 1e-10
    assert not [how for how in found.coverage.values() if how.startswith("exact") or how == "unused"]
    assert relative_error(torch.stack(list(found.groups.values())).sum(0), found.per_probe) < 1e-12
    tiled = streamed(module, inputs, cotangents, memory=1).per_probe
    assert relative_error(tiled, found.per_probe) < 1e-10


@pytest.mark.parametrize("build", PUBLISHED, ids=lambda build: build.__name__)
def test_networks_of_others_agree_in_single_precision(build: Build) -> None:
    module, inputs = Case(build.__name__, build)(seed=1, dtype=torch.float32)
    cotangents = cotangents_for(module, inputs, probes=1)
    found = streamed(module, inputs, cotangents).per_probe
    wide = tuple(t.double() if t.is_floating_point() else t for t in inputs)
    assert relative_error(found, brute_gram(module.double(), wide, cotangents.double())) < 1e-5
