"""Programs that some tests need, and that a developer's machine may lack."""

import os

import pytest


def needs(is_there: object, otherwise: str) -> pytest.MarkDecorator:
    """Skip tests where their program is not there; in CI, which installs all, they run and fail."""
    return pytest.mark.skipif(not is_there and "CI" not in os.environ, reason=otherwise)
