"""The alignment network: cross-graph attention and self-attention over two entities' values and neighbours.

After CG-MuAlign (Zhu et al., "Collective Multi-type Entity Alignment Between Knowledge Graphs", WWW 2020),
with what its two attentions are for: *cross-graph attention* weights a neighbour by how well it matches some
neighbour of the other side, *self-attention* by how much neighbours of its kind tell entities apart. Here
values are attended to exactly like neighbours, so that keys need not have the same names on both sides.

For slots i of one side and j of the other (levels 0, 1, 2: own values; neighbours; what surrounds those):

    logit_ij = w_b s_ij + v n_ij + e_b [h_i = h_j] + <k_i, D k_j>      b: value or neighbour on either side
    alpha_ij = exp(logit_ij) / (exp(null_i) + sum_j' exp(logit_ij'))  cross-graph attention, null: no partner
    a_i      = sum_j alpha_ij (s_ij, n_ij, [h_i = h_j], 1)             agreement of i with its partner
    o_i      = W2 relu((W1 [a_i, rarity_i]) * G_key + U_key)           what that means for this key
    beta_i   = softmax_i(g o_i)                                        self-attention, each block apart
    z        = [sum_i beta_i o_i, sum_i o_i]                           for each of the two, from either side
    score    = MLP([z + z', |z - z'|, context])

s is the similarity of values or names, n of neighbours' neighbourhoods (`model/scoring/pairs.py`); k are
learned embeddings of keys. Both directions share all parameters.

In the paper's terms alpha is the cross-graph attention, beta the relation-aware self-attention, and both
make its collective aggregation. The numbers of its equations could not be looked up where this was written,
so they are given by name, after the authors' code (github.com/GentleZhu/CG-MuAlign, models/module.py); i is
a neighbour of x, j one of the other side:

    m_i     = W_r h_i                                              transform of the relation r of (x, i)
    alpha_i = sum_j exp(-|m_i - m_j|) / sum_i' sum_j exp(-|m_i' - m_j|)             cross-graph attention
    beta_i  = softmax_i(leaky_relu(v [m_i, W_0 h_x]))                       relation-aware self-attention
    h'_x    = relu([W_0 h_x, sum_i alpha_i beta_i m_i / sum_i' alpha_i' beta_i'])             aggregation
    loss    = sum_n relu(d(x, y) - d(x, y_n) + 1) + relu(d(x, y) - 1)

d is the distance of h', the y_n are no partners of x. What differs here:

- s_ij and n_ij, exact similarities of what entities hold, take the place of the distance of learned
  embeddings, so that a score can be maintained in a stream;
- G and U, a scale and a shift for each key, take the place of W_r, and <k_i, D k_j> lets keys of two
  schemas attend to each other;
- alpha weights the partners of one slot, and `null` lets a slot have none; what the paper's alpha does, to
  count neighbours with a counterpart for more, is left to beta, which is computed of a_i;
- level 2 enters as one vector for each neighbour, weighted as samples are
  (`model/encoding/neighbourhood.py`), without an attention of its own;
- a classifier with the context of the retrieval, and cross-entropy, take the place of the distance and its
  loss.

This module trains on ragged graphs with DGL; `model/scoring/kernel.py` computes the same, one pair after the
other, and adds what the boosted trees of `model/scoring/trees.py` say.
"""

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch import nn

from model.encoding.keys import MAX_KEYS
from model.scoring.pairs import Similarities
from model.shapes import FIRST, OWN, RARITY_FEATURES, UNKNOWN

if TYPE_CHECKING:
    from dgl import DGLGraph

MAX_LOGIT = 30.0
AGREEMENT = 4  # own, neighbourhood, equal, matched
BLOCKS = 2  # values, neighbours
# Sizes of layers. Fixed, since `model/scoring/kernel.py` is compiled for them.
ATTENTION = 16
HIDDEN = 32
ITEM = 24
POOLED = BLOCKS * 2 * ITEM  # of one side
HEAD = 64
BINS = 8  # of each context feature
LEAST_WIDTH = 1e-4  # of a bin
# What a checkpoint may have, at most.
MAX_CONTEXT, MAX_TREES = 1_000, 1_000


@dataclass(frozen=True)
class NetworkOptions:
    """What differs from network to network. Part of a checkpoint."""

    keys: Annotated[int, msgspec.Meta(ge=FIRST, le=FIRST + MAX_KEYS)]  # ids of keys, 0 and 1 included
    context: Annotated[int, msgspec.Meta(ge=0, le=MAX_CONTEXT)]  # features of a pair from retrieval
    # beside the network, at most (`model/scoring/trees.py`)
    trees: Annotated[int, msgspec.Meta(ge=0, le=MAX_TREES)] = 200
    cross_attention: bool = True  # False: a slot is compared with the mean of the other side's
    self_attention: bool = True  # False: all slots of a block count the same
    features: bool = True  # False: the classifier does not see the context, and there are no trees

    def to_json(self) -> dict[str, int]:
        """As JSON-ready values."""
        return asdict(self)


class AlignmentNetwork(nn.Module):
    """Parameters, and the forward pass on ragged pair graphs."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        o = self.options = options
        self.own = nn.Parameter(torch.full((BLOCKS * BLOCKS,), 8.0))
        self.neighbourhood = nn.Parameter(torch.tensor(2.0))
        self.equal = nn.Parameter(torch.full((BLOCKS * BLOCKS,), 2.0))
        self.null = nn.Parameter(torch.full((BLOCKS,), 4.0))
        self.key_attention = nn.Embedding(o.keys, ATTENTION)
        self.key_signs = nn.Parameter(torch.ones(ATTENTION))
        self.key_null = nn.Embedding(o.keys, 1)
        self.key_scale = nn.Embedding(o.keys, HIDDEN)
        self.key_bias = nn.Embedding(o.keys, HIDDEN)
        features = AGREEMENT + RARITY_FEATURES
        self.item_in = nn.ModuleList(nn.Linear(features, HIDDEN) for _ in range(BLOCKS))
        self.item_out = nn.ModuleList(nn.Linear(HIDDEN, ITEM) for _ in range(BLOCKS))
        self.gate = nn.ModuleList(nn.Linear(ITEM, 1) for _ in range(BLOCKS))
        self.register_buffer("bin_low", torch.zeros(o.context, BINS))
        self.register_buffer("bin_width", torch.ones(o.context, BINS))
        self.head_in = nn.Linear(2 * POOLED + o.context * BINS, HEAD)
        self.head_out = nn.Linear(HEAD, 1)
        self.dropout = nn.Dropout(0.1)
        for table in (self.key_attention, self.key_null, self.key_bias):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.normal_(self.key_scale.weight, mean=1.0, std=0.1)

    def forward(self, graph: "PairGraph") -> torch.Tensor:
        """Uncalibrated logits (P,)."""
        ops = dgl().ops
        edge, key = graph.edges, self._forget(graph.key)
        if self.options.cross_attention:
            embedded = self.key_attention(key)
            logits = (
                self.own[edge.block] * edge.own
                + self.neighbourhood * edge.neighbourhood
                + self.equal[edge.block] * edge.equal
                + ops.u_dot_v(graph.attends, embedded * self.key_signs, embedded).squeeze(-1)
            ).clamp(max=MAX_LOGIT)
        else:
            logits = torch.zeros_like(edge.own)
        agreement = torch.stack([edge.own, edge.neighbourhood, edge.equal, torch.ones_like(edge.own)], dim=1)

        null = self.null_logits(key, self.null[graph.block])
        alpha = ops.edge_softmax(graph.attends_null, torch.cat([logits, null]))[: len(logits)]
        agreed = ops.copy_e_sum(graph.attends, agreement * alpha[:, None])
        features = torch.cat([agreed, graph.rarity], dim=1)
        out = features.new_zeros(len(features), ITEM)
        gate = features.new_zeros(len(features), 1)
        for block, rows in enumerate(graph.rows_of_block):
            out_b, gate_b = self.item(block, features[rows], key[rows])
            out, gate = out.index_copy(0, rows, out_b), gate.index_copy(0, rows, gate_b)
        beta = ops.edge_softmax(graph.pool, gate)
        attended = ops.u_mul_e_sum(graph.pool, out, beta)
        pooled = torch.cat([attended, ops.copy_u_sum(graph.pool, out) * SUM_SCALE], dim=1)
        left, right = pooled.reshape(2, -1, BLOCKS * pooled.shape[1])
        return self.classify(left, right, graph.context)

    def _forget(self, key: torch.Tensor) -> torch.Tensor:
        """In training some keys pass for unknown, so that unknown ones are learned, too."""
        if not self.training:
            return key
        forgotten = torch.rand(key.shape) < KEY_DROPOUT
        return torch.where(forgotten, torch.tensor(UNKNOWN), key)

    def null_logits(self, key: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
        """The logit of 'no partner' for slots with these keys."""
        if not self.options.cross_attention:
            return torch.full(key.shape, -MAX_LOGIT)
        logits: torch.Tensor = null + self.key_null(key).squeeze(-1)
        return logits.clamp(-MAX_LOGIT, MAX_LOGIT)

    def item(
        self, block: int, features: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """o_i (..., ITEM) and the logit of beta_i (..., 1) for slots of one block."""
        hidden = torch.addcmul(self.key_bias(key), self.item_in[block](features), self.key_scale(key))
        out = self.item_out[block](torch.relu(hidden))
        gate = self.gate[block](out).clamp(-MAX_LOGIT, MAX_LOGIT)
        return out, gate if self.options.self_attention else torch.zeros_like(gate)

    def classify(self, left: torch.Tensor, right: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Both sides' pooled slots and the context to logits (P,)."""
        inputs = torch.cat([left + right, (left - right).abs(), self.bins(context)], dim=1)
        hidden = self.dropout(torch.relu(self.head_in(inputs)))
        logits: torch.Tensor = self.head_out(hidden).squeeze(-1)
        return logits

    def bins(self, context: torch.Tensor) -> torch.Tensor:
        """Piecewise linear encoding of each feature (Gorishniy et al. 2022): (P, C) to (P, C * BINS)."""
        low, width = self.get_buffer("bin_low"), self.get_buffer("bin_width")
        encoded = ((context[:, :, None] - low) / width).clamp(0, 1).flatten(1)
        return encoded if self.options.features else torch.zeros_like(encoded)

    def fit_bins(self, context: torch.Tensor) -> None:
        """Sets the bins' edges to quantiles of these pairs' context (P, C)."""
        if not context.shape[1]:
            return
        quantiles = torch.linspace(0, 1, BINS + 1)
        edges = torch.from_numpy(np.quantile(context.numpy(), quantiles.numpy(), axis=0).T.astype(np.float32))
        self.get_buffer("bin_low").copy_(edges[:, :-1])
        self.get_buffer("bin_width").copy_((edges[:, 1:] - edges[:, :-1]).clamp(min=LEAST_WIDTH))


KEY_DROPOUT = 0.1
SUM_SCALE = 0.25  # keeps sums over up to 12 slots at the size of the attended ones


class GraphEdges(NamedTuple):
    """All (slot, slot) combinations of all pairs of a batch, in one direction, then in the other."""

    own: torch.Tensor
    neighbourhood: torch.Tensor
    equal: torch.Tensor
    block: torch.Tensor  # 2 * block of the left slot + block of the right slot


class PairGraph(NamedTuple):
    """P pairs without their empty slots, as DGL graphs. Items are all left slots, then all right ones."""

    key: torch.Tensor
    rarity: torch.Tensor
    block: torch.Tensor
    rows_of_block: tuple[torch.Tensor, ...]
    edges: GraphEdges
    attends: "DGLGraph"  # items to the items of the other side that attend to them
    attends_null: "DGLGraph"  # the same edges, then one from 'no partner' to each
    pool: "DGLGraph"  # items to (side, pair, block)
    context: torch.Tensor


def pair_graph(pairs: Similarities) -> PairGraph:
    """Ragged graphs of these pairs."""
    left_at, right_at = pairs.left_key != 0, pairs.right_key != 0
    pair, i, j = torch.nonzero(left_at[:, :, None] & right_at[:, None, :], as_tuple=True)
    items = torch.stack([left_at, right_at])
    number = (items.flatten().cumsum(0) - 1).reshape(items.shape)
    left, right = number[0, pair, i], number[1, pair, j]
    source, target = torch.cat([right, left]), torch.cat([left, right])
    side, of_pair, slot = torch.nonzero(items, as_tuple=True)
    block = (slot >= OWN).long()
    both = (i >= OWN) & (j >= OWN)
    neighbourhood = torch.zeros(len(pair))
    neighbourhood[both] = pairs.neighbourhood[pair[both], i[both] - OWN, j[both] - OWN]
    edges = (
        pairs.own[pair, i, j],
        neighbourhood,
        pairs.equal[pair, i, j],
        2 * (i >= OWN) + (j >= OWN).long(),
    )
    count = len(slot)
    every = torch.arange(count)
    return PairGraph(
        key=torch.cat([pairs.left_key[left_at], pairs.right_key[right_at]]),
        rarity=torch.cat([pairs.left_rarity[left_at], pairs.right_rarity[right_at]]),
        block=block,
        rows_of_block=tuple(torch.nonzero(block == b).squeeze(-1) for b in range(BLOCKS)),
        edges=GraphEdges(*(torch.cat([edge, edge]) for edge in edges)),
        attends=_bipartite(source, target, count, count),
        attends_null=_bipartite(
            torch.cat([source, torch.full((count,), count)]), torch.cat([target, every]), count + 1, count
        ),
        pool=_bipartite(
            every, BLOCKS * (len(left_at) * side + of_pair) + block, count, 2 * BLOCKS * len(left_at)
        ),
        context=pairs.context,
    )


def _bipartite(source: torch.Tensor, target: torch.Tensor, sources: int, targets: int) -> "DGLGraph":
    return dgl().create_block((source, target), num_src_nodes=sources, num_dst_nodes=targets)


def dgl() -> Any:
    """DGL, which takes long to import and which only training needs."""
    os.environ["DGLBACKEND"] = "pytorch"  # else DGL says what it assumes, and notes it in the home directory
    import dgl
    import dgl.ops

    return dgl
