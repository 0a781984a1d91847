"""Mappings of films and of airports, and what their tests need."""

from collections.abc import Sequence

import msgspec

from stream.events import EntityEvent, Upsert
from stream.mapping.language import SourceMapping

FILMS = """
[sources.imdb]
file = "imdb.csv"
topic = "shop.public.film"
id = "id"
type = "film"
attributes = ["title", "year"]
[sources.imdb.relations.starring]
column = "actor"
separator = ";"
type = "person"
[sources.imdb.relations.sequel_of]
column = "prequel"
"""

AIRPORTS = """
[sources.airports]
file = "airports.tsv"
id = "row"
type = "airport"
attributes = {label = "name"}
[sources.airports.relations.city]
column = "city"
type = "city"
id = "{country}/{city}"
[sources.airports.relations.city.relations.country]
column = "country"
type = "country"
"""


def mapping(text: str) -> SourceMapping:
    """The one source of a TOML text."""
    return next(iter(msgspec.toml.decode(text, type=dict[str, dict[str, SourceMapping]])["sources"].values()))


def upserts(events: Sequence[EntityEvent]) -> dict[str, Upsert]:
    return {event.id: event for event in events if isinstance(event, Upsert)}


def film(**cells: object) -> dict[str, object]:
    return {"id": "1", "title": "", "year": "", "actor": "", "prequel": ""} | cells
