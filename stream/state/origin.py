"""Whether the broker's topics are those that a state was made of.

A state holds what it has applied of its input topics. From another topic it would skip the first messages,
as applied already, and it would never know what only the former one had said.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from index.errors import StateError

REBUILD: Final = "take another state.dir, or delete this one to rebuild it"


def check_topic_ids(
    state: str, known: Mapping[str, str], found: Mapping[str, str | None], topics: Iterable[str], remedy: str
) -> None:
    """These topics have to be the ones that the state knows.

    Args:
        state: what it is called.
        known: the ids of topics, as the state has them.
        found: the ids as the broker says them now; a topic is missing when there is none with that name, and
            its id is None when the broker gives topics no ids.
        remedy: what to do otherwise.

    Raises:
        StateError: a topic is gone, or another one has its name.
    """
    for topic in topics:
        if topic not in found:
            raise StateError(
                f"topic {topic}, which {state} was made with, does not exist any more; if it was deleted on "
                f"purpose, {remedy}"
            )
        if is_another(topic, known, found):
            raise StateError(
                f"topic {topic} is not the one that {state} was made with: it was deleted and created again "
                f"(its id is {found[topic]}, not {known[topic]}), or this is another broker; {remedy}"
            )


def is_another(topic: str, known: Mapping[str, str], found: Mapping[str, str | None]) -> bool:
    """Whether another topic has this name now, as far as ids are known."""
    return None not in (known.get(topic), found.get(topic)) and known[topic] != found[topic]
