"""The made-up Diagnosis and its makers, as fixtures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import report_cases


@pytest.fixture
def diagnosis() -> SimpleNamespace:
    return report_cases.make_diagnosis()


@pytest.fixture
def cases() -> SimpleNamespace:
    """The makers, for tests that need a variant."""
    return SimpleNamespace(
        diagnosis=report_cases.make_diagnosis,
        verdicts=report_cases.make_verdicts,
        runs=report_cases.make_runs,
        quality=report_cases.make_quality,
        trust=report_cases.make_trust,
        images=report_cases.make_images,
        points=report_cases.make_points,
    )
