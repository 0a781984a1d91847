"""Settings for tests with a broker, and a model."""

from pathlib import Path

import pytest
import torch
from workers import own_settings

from benchmarks.catalogues import train_small
from model.checkpoint import load_model, save_model
from stream.config import Settings


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the small catalogues."""
    directory = tmp_path_factory.mktemp("checkpoint")
    train_small(directory)
    return directory


@pytest.fixture(scope="session")
def worse(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with noise on all of its weights."""
    directory = tmp_path_factory.mktemp("worse")
    _, model = load_model(checkpoint)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weights in model.network.parameters():
            weights += 3.0 * weights.std(correction=0) * torch.randn(weights.shape, generator=noise)
    save_model(directory, model)
    return directory


@pytest.fixture
def settings(bootstrap: str, tmp_path: Path) -> Settings:
    """Settings with a group, topics and a state directory of this test's own."""
    return own_settings(bootstrap, tmp_path)


@pytest.fixture
def embedded_settings(embedded_kafka: str, tmp_path: Path) -> Settings:
    """The same, for what does not depend on the broker."""
    return own_settings(embedded_kafka, tmp_path)
