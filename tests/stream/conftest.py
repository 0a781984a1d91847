"""Settings for tests with a broker."""

from pathlib import Path

import pytest
from workers import own_settings

from stream.config import Settings


@pytest.fixture
def settings(bootstrap: str, tmp_path: Path) -> Settings:
    """Settings with a group, topics and a state directory of this test's own."""
    return own_settings(bootstrap, tmp_path)
