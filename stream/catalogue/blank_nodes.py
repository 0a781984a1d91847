"""Ids of blank nodes, whose labels are only good within one file and often others each time it is written.

A blank node is known by its place: the subject and the predicate that point at it. Several in one place are
told apart by what they say, and so are those that nothing points at. Those that say the same are numbered in
their order. So an unchanged file gives the same ids, whatever its labels, and a change gives other ids only
to nodes whose place it changes or, where that counts, whose content.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import xxhash

DEPTH: Final = 4  # how far the content of a node goes: to the blank nodes that it points at, and to theirs
ID_DIGITS: Final = 20  # of 4 bits: no two of billions of nodes get one id


class Blank(NamedTuple):
    """A blank node, by its label in one file."""

    file: int
    label: str


Subject = str | Blank
Columns = dict[str, dict[Subject, None]]  # the values of each predicate


class Pointer(NamedTuple):
    """What a triple with a blank node as its object says."""

    predicate: str
    target: Blank


def blank_ids(
    nodes: Sequence[Blank], rows: Mapping[Subject, Columns], pointers: Mapping[Subject, Collection[Pointer]]
) -> dict[Blank, str]:
    """An id such as `_:5e0c1d...` for each node.

    Args:
        nodes: in the order of first mention.
        rows: what each subject says.
        pointers: of each subject that points at blank nodes.
    """
    return _Naming(nodes, rows, pointers).ids()


class _Naming:
    def __init__(
        self,
        nodes: Sequence[Blank],
        rows: Mapping[Subject, Columns],
        pointers: Mapping[Subject, Collection[Pointer]],
    ) -> None:
        self._numbers = {node: number for number, node in enumerate(nodes)}
        self._rows = rows
        self._pointers = pointers
        self._contents: dict[tuple[Blank, int], str] = {}
        self._ids: dict[Blank, str] = {}
        self._used: Counter[str] = Counter()

    def ids(self) -> dict[Blank, str]:
        """What can be reached from IRIs, then what nothing points at, then what goes round in circles."""
        self._follow([subject for subject in self._pointers if not isinstance(subject, Blank)])
        left = [node for node in self._numbers if node not in self._ids]
        targets = {pointer.target for node in left for pointer in self._pointers.get(node, ())}
        roots = [node for node in left if node not in targets]
        self._name(roots, "")
        self._follow(roots)
        for node in sorted((node for node in left if node not in self._ids), key=self._order):
            if node not in self._ids:
                self._name([node], "")
                self._follow([node])
        return self._ids

    def _follow(self, wave: Sequence[Subject]) -> None:
        """Names what these subjects point at, each by the first of its places, and what that points at."""
        while wave:
            found: dict[Blank, tuple[str, str]] = {}
            for subject in wave:
                known = self._ids[subject] if isinstance(subject, Blank) else subject
                for predicate, target in self._pointers.get(subject, ()):
                    if target not in self._ids:
                        place = known, predicate
                        found[target] = min(found.get(target, place), place)
            places: dict[tuple[str, str], list[Blank]] = {}
            for target, place in found.items():
                places.setdefault(place, []).append(target)
            for place, targets in places.items():
                self._name(targets, _digest(place))
            wave = list(found)

    def _name(self, nodes: Sequence[Blank], place: str) -> None:
        """Names all nodes of a place; those in none, which is "", by their content."""
        for node in nodes if place and len(nodes) == 1 else sorted(nodes, key=self._order):
            made_of = [place] if place and len(nodes) == 1 else [place, self._content(node)]
            key = _digest(made_of)
            self._used[key] += 1
            again = self._used[key]
            self._ids[node] = "_:" + (_digest([*made_of, again]) if again > 1 else key)

    def _order(self, node: Blank) -> tuple[str, int]:
        return self._content(node), self._numbers[node]

    def _content(self, node: Blank, depth: int = DEPTH) -> str:
        """A digest of what the node says, and of what the blank nodes say that it points at."""
        pointers = self._pointers.get(node, ())
        key = node, depth if pointers else 0
        known = self._contents.get(key)
        if known is None:
            columns = self._rows.get(node, {})
            said = {name: sorted(v for v in values if isinstance(v, str)) for name, values in columns.items()}
            inner = sorted(
                (predicate, self._content(target, depth - 1) if depth else "")
                for predicate, target in pointers
            )
            known = self._contents[key] = _digest([sorted(said.items()), inner])
        return known


def _digest(value: object) -> str:
    return xxhash.xxh3_128_hexdigest(repr(value).encode(errors="surrogatepass"))[:ID_DIGITS]
