"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from renderers.browsers import find_browser

# How long an example takes says something about the machine alone.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("GRISTMILL_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture
def shared_data():
    """Return a function: path inside the folder of real test data -> Path; the test is skipped where it is missing."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"real test data not found: {path} (set GRISTMILL_TEST_DATA to its folder)")
        return path

    return find


@pytest.fixture(scope="session")
def browser() -> str:
    """Return the browser's path; the test is skipped where there is none."""
    try:
        return find_browser()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
