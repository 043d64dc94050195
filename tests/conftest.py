"""What every test shares: one seed, one profile for hypothesis. No medkit is imported here."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from hypothesis import settings

settings.register_profile("medkit", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("medkit")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Start each test from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def unhooked() -> Iterator[None]:
    """Turn the shape hook off, so that a wrong argument meets the library's own check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
