"""What a generation is made with: the model, the threshold, the rule and the search."""

from typing import Annotated

import msgspec

from stream.engine.interface import EvidenceDetail, Search

# It is the name of a directory, too: one that says something else would lead out of the state.
ModelId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]


class Recipe(msgspec.Struct, frozen=True):
    """What a generation is a function of, besides the graph and the links."""

    model: ModelId
    threshold: float
    one_to_one: bool
    search: Search = "exact"
    evidence: EvidenceDetail = "full"

    @property
    def settings(self) -> str:
        """The same as a state directory keeps it."""
        settings = f"model {self.model}, threshold {self.threshold!r}, one_to_one {self.one_to_one}"
        settings += "" if self.search == "exact" else f", search {self.search}"
        return settings + ("" if self.evidence == "full" else f", evidence {self.evidence}")

    def __str__(self) -> str:
        rule = "one to one" if self.one_to_one else "not one to one"
        search = "" if self.search == "exact" else f", search in {self.search}"
        evidence = "" if self.evidence == "full" else f", evidence {self.evidence}"
        return f"model {self.model}, threshold {self.threshold:.4f}, {rule}{search}{evidence}"
