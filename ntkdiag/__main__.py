"""`python -m ntkdiag` and `torchrun -m ntkdiag`: the command line."""

from __future__ import annotations

import sys

from ntkdiag.cli import main

sys.exit(main())
