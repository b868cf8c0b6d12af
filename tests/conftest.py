"""What every test runs under: one thread, so that sums come out in one order on every machine, and no display."""

from __future__ import annotations

import os

import torch

os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(1)
