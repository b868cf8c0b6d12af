"""Layers draw their initial weights from torch's global generator: every test starts it at the same place."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
