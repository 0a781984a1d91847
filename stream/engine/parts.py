"""The parts of an aligner, and where its snapshot lies."""

from index.candidates import CandidateOptions
from model.checkpoint import Model
from model.errors import ModelError
from stream.engine.views import VIEWS

SNAPSHOT = "snapshot"  # directory in the state


def candidate_options(model: Model) -> CandidateOptions:
    """How candidates were made when the model was trained.

    Raises:
        ModelError: trained with other views than this version has.
    """
    if model.options.get("views") != list(VIEWS):
        raise ModelError(
            f"the model was trained with views {model.options.get('views')}, this version has {list(VIEWS)}; "
            "train it again with `sameas train`"
        )
    return CandidateOptions(int(model.options["k"]), tuple(model.options["floors"]))
