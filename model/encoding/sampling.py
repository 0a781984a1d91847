"""Which neighbours an entity is seen with: a capped draw with weights inverse to how many share a relation.

A weighted draw without replacement is an exponential race (Efraimidis and Spirakis, 2006): edge e gets the
time -log(u_e) / w_e and the smallest times win. With u_e a hash of the edge instead of a random number the
draw is a function of the graph, the same in every run, and stable while the graph grows: a new neighbour
of a node with n of them enters its sample of c with probability about c/n and changes nothing otherwise.

The weight of an edge is 1 / count(relation), after CG-MuAlign (Zhu et al., WWW 2020, section 4.3): a film's
one director is drawn far sooner than any of its actors. Counts enter rounded up to powers of two, so
that n arrivals reorder a sample log n times and not n times.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.graph import Nodes, edge_hash
from model.shapes import SAMPLE


class Sample(NamedTuple):
    """The drawn neighbours of B nodes; unused places are zero and stand at the end."""

    neighbours: Nodes  # (B, SAMPLE)
    relations: Nodes  # (B, SAMPLE)
    counts: npt.NDArray[np.int64]  # (B, SAMPLE) neighbours that share the relation, rounded up to 2^i
    drawn: npt.NDArray[np.int64]  # (B,)
    degrees: npt.NDArray[np.int64]  # (B,) of the whole neighbourhood, rounded up to 2^i


def power_of_two(count: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The smallest 2^i that is not below each count; 1 for counts of 0."""
    power: npt.NDArray[np.int64] = np.int64(1) << np.frexp(np.maximum(count, 1) - 1)[1].astype(np.int64)
    return power


def draw(nodes: Nodes, edges: npt.NDArray[np.void], lengths: npt.NDArray[np.int64]) -> Sample:
    """Draws up to SAMPLE neighbours for each node.

    Args:
        nodes: (B,) the nodes.
        edges: (E,) their edges, dtype `index.graph.EDGE`, one node's after the other.
        lengths: (B,) the number of edges of each node.
    """
    owner = np.repeat(np.arange(len(nodes)), lengths)
    node = nodes[owner]
    not_self = edges["neighbour"] != node
    owner, node, edges = owner[not_self], node[not_self], edges[not_self]
    count = edges["count"].astype(np.int64)
    shared = power_of_two(count)
    place = edge_hash(node, edges["relation"], edges["neighbour"])
    # u in (0, 1]; the hash decides ties, which the rounding to 53 bits could make
    u = 1.0 - (place >> np.uint64(11)).astype(np.float64) * 2.0**-53
    order = np.lexsort((place, -np.log(u) * shared, owner))

    owner, edges, shared, count = owner[order], edges[order], shared[order], count[order]
    starts = np.searchsorted(owner, np.arange(len(nodes) + 1))
    rank = np.arange(len(owner)) - starts[owner]
    kept = rank < SAMPLE
    row, column = owner[kept], rank[kept]

    sample = Sample(
        neighbours=np.zeros((len(nodes), SAMPLE), np.uint64),
        relations=np.zeros((len(nodes), SAMPLE), np.uint64),
        counts=np.ones((len(nodes), SAMPLE), np.int64),
        drawn=np.bincount(row, minlength=len(nodes)),
        degrees=np.ones(len(nodes), np.int64),
    )
    sample.neighbours[row, column] = edges["neighbour"][kept]
    sample.relations[row, column] = edges["relation"][kept]
    sample.counts[row, column] = shared[kept]

    first_of_relation = np.ones(len(owner), bool)
    by_relation = np.lexsort((edges["relation"], owner))
    same = (owner[by_relation][1:] == owner[by_relation][:-1]) & (
        edges["relation"][by_relation][1:] == edges["relation"][by_relation][:-1]
    )
    first_of_relation[by_relation[1:]] = ~same
    degree = np.bincount(owner, count * first_of_relation, len(nodes)).astype(np.int64)
    sample.degrees[:] = power_of_two(degree)
    return sample
