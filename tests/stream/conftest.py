"""Settings for tests with a broker, and a model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.catalogues import catalogues
from model.checkpoint import load_model, save_model
from model.scoring.trees import NO_TREES
from stream.config import Settings
from stream.learning.evaluation import evaluate_model
from tests.stream.workers import own_settings


@pytest.fixture(scope="session")
def worse(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model without trees, with so much noise on its weights that it is worse, not useless."""
    directory = tmp_path_factory.mktemp("worse")
    links = [(f"left:f{n}", f"right:f{n}") for n in range(60, 120)]
    good = evaluate_model(catalogues(), links, checkpoint).quality
    for seed in range(40):
        _, model = load_model(checkpoint)
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in model.network.parameters():
                scale = (1 + seed % 4) * weights.std(correction=0)
                weights.add_(scale * torch.randn(weights.shape, generator=noise))
        alone = replace(model, trees=NO_TREES, calibration=model.alone)
        save_model(directory, replace(alone, threshold=0.1))  # the scores are lower by the noise
        found = evaluate_model(catalogues(), links, directory).quality
        if 0.3 < found.f1 < good.f1 - 0.1 and found.prauc < good.prauc - 0.05:
            return directory
    raise AssertionError("no noise makes the model clearly worse, and not useless")


@pytest.fixture
def settings(bootstrap: str, tmp_path: Path) -> Settings:
    """Settings with a group, topics and a state directory of this test's own."""
    return own_settings(bootstrap, tmp_path)


@pytest.fixture
def embedded_settings(embedded_kafka: str, tmp_path: Path) -> Settings:
    """The same, for what does not depend on the broker."""
    return own_settings(embedded_kafka, tmp_path)


@pytest.fixture
def apache_settings(apache_kafka: dict[str, str], tmp_path: Path) -> Settings:
    """The same, for what the embedded broker does not do."""
    return own_settings(apache_kafka["plaintext"], tmp_path)
