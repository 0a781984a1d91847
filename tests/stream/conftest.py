"""Settings for tests with a broker."""

from pathlib import Path

import pytest
from workers import own_settings

from stream.config import Settings


@pytest.fixture
def settings(bootstrap: str, tmp_path: Path) -> Settings:
    """Settings with a group, topics and a state directory of this test's own."""
    return own_settings(bootstrap, tmp_path)


@pytest.fixture
def embedded_settings(embedded_kafka: str, tmp_path: Path) -> Settings:
    """The same, for what does not depend on the broker."""
    return own_settings(embedded_kafka, tmp_path)
