"""What should be in force, and how far its building is."""

import msgspec

from stream.engine.recipe import ModelId, Recipe


class Promotion(msgspec.Struct, frozen=True):
    """`sameas model promote`: this model counts instead of the settings' one, while that stays the same."""

    model: ModelId
    asked: float = 0.0  # when, so that the same command is another wish
    configured: str | None = None  # the settings' model when a worker first saw the promotion
    max_withdrawn: float | None = None  # instead of the settings' one


class Wish(msgspec.Struct, frozen=True):
    """What should be in force, when that was asked for, and which share of all alignments it may withdraw."""

    recipe: Recipe
    asked: float = 0.0
    max_withdrawn: float = 1.0


class BuildProgress(msgspec.Struct, frozen=True):
    """How far the next generation is."""

    wish: Wish
    stage: str  # "building", "catching up", "switching", "in force", "failed"
    waiting: int = 0  # entities
    pairs: int = 0  # that wait for their score
    error: str = ""
    is_lasting: bool = False  # failed, and not to be tried again before somebody asks for it again
    attempts: int = 0  # to build it, those apart that ended in order
