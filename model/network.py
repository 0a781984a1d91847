"""The alignment network: cross-graph attention and self-attention over two entities' values and neighbours.

After CG-MuAlign (Zhu et al., "Collective Multi-type Entity Alignment Between Knowledge Graphs", WWW 2020),
with what its two attentions are for: *cross-graph attention* weights a neighbour by how well it matches some
neighbour of the other side, *self-attention* by how much neighbours of its kind tell entities apart. Here
values are attended to exactly like neighbours, so that keys need not have the same names on both sides.

For slots i of one side and j of the other (levels 0, 1, 2: own values; neighbours; what surrounds those):

    logit_ij = w_b s_ij + v n_ij + e_b [h_i = h_j] + <k_i, D k_j>      b: value or neighbour on either side
    alpha_ij = exp(logit_ij) / (exp(null_i) + sum_j' exp(logit_ij'))  cross-graph attention, null: no partner
    a_i      = sum_j alpha_ij (s_ij, n_ij, [h_i = h_j], 1)             agreement of i with its partner
    o_i      = W2 relu((W1 [a_i, rarity_i]) * (1 + G_key) + U_key)     what that means for this key
    beta_i   = softmax_i(g o_i)                                        self-attention, each block apart
    z        = [sum_i beta_i o_i, sum_i o_i]                           for each of the two, from either side
    score    = MLP([z + z', |z - z'|, context])

s is the similarity of values or names, n of neighbours' neighbourhoods (`model/pairs.py`); k are learned
embeddings of keys. Both directions share all parameters. This module trains on ragged graphs with DGL;
`model/dense.py` computes the same with fixed shapes.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import dgl
import dgl.ops
import numpy as np
import torch
from torch import nn

from model.encoder import OWN
from model.pairs import RARITY_FEATURES, SLOTS, PairInputs, Side, Similarities, similarities

MAX_LOGIT = 30.0
AGREEMENT = 4  # own, neighbourhood, equal, matched
BLOCKS = 2  # values, neighbours


@dataclass(frozen=True)
class NetworkOptions:
    """Sizes. They are part of a checkpoint."""

    keys: int  # ids of keys, 0 and 1 included
    context: int  # features of a pair from retrieval
    attention_dim: int = 16
    hidden: int = 32
    item_dim: int = 24
    head: int = 64
    bins: int = 8  # of each context feature

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
        self.key_attention = nn.Embedding(o.keys, o.attention_dim)
        self.key_signs = nn.Parameter(torch.ones(o.attention_dim))
        self.key_null = nn.Embedding(o.keys, 1)
        self.key_scale = nn.Embedding(o.keys, o.hidden)
        self.key_bias = nn.Embedding(o.keys, o.hidden)
        features = AGREEMENT + RARITY_FEATURES
        self.item_in = nn.ModuleList(nn.Linear(features, o.hidden) for _ in range(BLOCKS))
        self.item_out = nn.ModuleList(nn.Linear(o.hidden, o.item_dim) for _ in range(BLOCKS))
        self.gate = nn.ModuleList(nn.Linear(o.item_dim, 1) for _ in range(BLOCKS))
        self.register_buffer("bin_low", torch.zeros(o.context, o.bins))
        self.register_buffer("bin_width", torch.ones(o.context, o.bins))
        pooled = BLOCKS * 2 * o.item_dim
        self.head_in = nn.Linear(2 * pooled + o.context * o.bins, o.head)
        self.head_out = nn.Linear(o.head, 1)
        self.dropout = nn.Dropout(0.1)
        for table in (self.key_attention, self.key_null, self.key_scale, self.key_bias):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, graph: "PairGraph") -> torch.Tensor:
        """Uncalibrated logits (P,)."""
        edge = graph.edges
        query = self.key_attention(graph.left.key) * self.key_signs
        logits = (
            self.own[edge.block] * edge.own
            + self.neighbourhood * edge.neighbourhood
            + self.equal[edge.block] * edge.equal
            + dgl.ops.u_dot_v(graph.to_left, self.key_attention(graph.right.key), query).squeeze(-1)
        ).clamp(max=MAX_LOGIT)
        agreement = torch.stack([edge.own, edge.neighbourhood, edge.equal, torch.ones_like(edge.own)], dim=1)
        left = self._side(graph.to_left_null, graph.left, logits, agreement)
        right = self._side(graph.to_right_null, graph.right, logits, agreement)
        return self.classify(left, right, graph.context)

    def _side(
        self, graph: dgl.DGLGraph, items: "GraphItems", logits: torch.Tensor, agreement: torch.Tensor
    ) -> torch.Tensor:
        """Attends, weights, pools: (P, BLOCKS * 2 * item_dim). The last edges are from 'no partner'."""
        null = self.null_logits(items.key, self.null[items.block])
        alpha = dgl.ops.edge_softmax(graph, torch.cat([logits, null]))
        padded = torch.cat([agreement, agreement.new_zeros(len(null), AGREEMENT)])
        agreed = dgl.ops.copy_e_sum(graph, padded * alpha[:, None])
        features = torch.cat([agreed, items.rarity], dim=1)
        out = features.new_zeros(len(features), self.options.item_dim)
        gate = features.new_zeros(len(features), 1)
        for block, rows in enumerate(items.rows_of_block):
            out_b, gate_b = self.item(block, features[rows], items.key[rows])
            out, gate = out.index_copy(0, rows, out_b), gate.index_copy(0, rows, gate_b)
        beta = dgl.ops.edge_softmax(items.pool, gate)
        attended = dgl.ops.u_mul_e_sum(items.pool, out, beta)
        summed = dgl.ops.copy_u_sum(items.pool, out)
        pooled = torch.cat([attended, summed * SUM_SCALE], dim=1)
        return pooled.reshape(-1, BLOCKS * pooled.shape[1])

    def null_logits(self, key: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
        """The logit of 'no partner' for slots with these keys."""
        logits: torch.Tensor = null + self.key_null(key).squeeze(-1)
        return logits.clamp(-MAX_LOGIT, MAX_LOGIT)

    def item(
        self, block: int, features: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """o_i (..., item_dim) and the logit of beta_i (..., 1) for slots of one block."""
        hidden = self.item_in[block](features) * (1 + self.key_scale(key)) + self.key_bias(key)
        out = self.item_out[block](torch.relu(hidden))
        return out, self.gate[block](out).clamp(-MAX_LOGIT, MAX_LOGIT)

    def classify(self, left: torch.Tensor, right: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Both sides' pooled slots and the context to logits (P,)."""
        inputs = torch.cat([left + right, (left - right).abs(), self.bins(context)], dim=1)
        hidden = self.dropout(torch.relu(self.head_in(inputs)))
        logits: torch.Tensor = self.head_out(hidden).squeeze(-1)
        return logits

    def bins(self, context: torch.Tensor) -> torch.Tensor:
        """Piecewise linear encoding of each feature (Gorishniy et al. 2022): (P, C) to (P, C * bins)."""
        low, width = self.get_buffer("bin_low"), self.get_buffer("bin_width")
        return ((context[:, :, None] - low) / width).clamp(0, 1).flatten(1)

    def fit_bins(self, context: torch.Tensor) -> None:
        """Sets the bins' edges to quantiles of these pairs' context (P, C)."""
        if not context.shape[1]:
            return
        quantiles = torch.linspace(0, 1, self.options.bins + 1)
        edges = torch.from_numpy(np.quantile(context.numpy(), quantiles.numpy(), axis=0).T.astype(np.float32))
        self.get_buffer("bin_low").copy_(edges[:, :-1])
        self.get_buffer("bin_width").copy_((edges[:, 1:] - edges[:, :-1]).clamp(min=1e-4))


SUM_SCALE = 0.25  # keeps sums over up to 12 slots at the size of the attended ones


class GraphEdges(NamedTuple):
    """All (slot, slot) combinations of all pairs of a batch, E edges."""

    own: torch.Tensor
    neighbourhood: torch.Tensor
    equal: torch.Tensor
    block: torch.Tensor  # 2 * block of the left slot + block of the right slot


class GraphItems(NamedTuple):
    """One side's filled slots of all pairs of a batch."""

    key: torch.Tensor
    rarity: torch.Tensor
    block: torch.Tensor
    rows_of_block: tuple[torch.Tensor, ...]
    pool: dgl.DGLGraph  # slots to (pair, block)


class PairGraph(NamedTuple):
    """P pairs without their empty slots, as DGL graphs."""

    left: GraphItems
    right: GraphItems
    edges: GraphEdges
    to_left: dgl.DGLGraph  # right slots to left slots
    to_left_null: dgl.DGLGraph  # the same edges, then one from 'no partner' to each
    to_right_null: dgl.DGLGraph
    context: torch.Tensor


def pair_graph(pairs: Similarities) -> PairGraph:
    """Ragged graphs of these pairs."""
    left_at, right_at = pairs.left_key != 0, pairs.right_key != 0
    pair, i, j = torch.nonzero(left_at[:, :, None] & right_at[:, None, :], as_tuple=True)
    left_id = _numbered(left_at)[pair, i]
    right_id = _numbered(right_at)[pair, j]
    n = pairs.neighbourhood.shape[1]
    both = (i >= OWN) & (j >= OWN)
    neighbourhood = torch.zeros(len(pair))
    neighbourhood[both] = pairs.neighbourhood[pair[both], i[both] - (SLOTS - n), j[both] - (SLOTS - n)]
    left_count, right_count = int(left_at.sum()), int(right_at.sum())
    return PairGraph(
        left=_items(pairs.left_key, pairs.left_rarity, left_at),
        right=_items(pairs.right_key, pairs.right_rarity, right_at),
        edges=GraphEdges(
            own=pairs.own[pair, i, j],
            neighbourhood=neighbourhood,
            equal=pairs.equal[pair, i, j],
            block=2 * (i >= OWN).long() + (j >= OWN).long(),
        ),
        to_left=_bipartite(right_id, left_id, right_count, left_count),
        to_left_null=_with_null(right_id, left_id, right_count, left_count),
        to_right_null=_with_null(left_id, right_id, left_count, right_count),
        context=pairs.context,
    )


def _items(keys: torch.Tensor, rarity: torch.Tensor, at: torch.Tensor) -> GraphItems:
    pair, slot = torch.nonzero(at, as_tuple=True)
    block = (slot >= OWN).long()
    return GraphItems(
        key=keys[at],
        rarity=rarity[at],
        block=block,
        rows_of_block=tuple(torch.nonzero(block == b).squeeze(-1) for b in range(BLOCKS)),
        pool=_bipartite(torch.arange(len(pair)), BLOCKS * pair + block, len(pair), BLOCKS * len(keys)),
    )


def _numbered(at: torch.Tensor) -> torch.Tensor:
    return (at.flatten().cumsum(0) - 1).reshape(at.shape)


def _with_null(source: torch.Tensor, target: torch.Tensor, sources: int, targets: int) -> dgl.DGLGraph:
    source = torch.cat([source, torch.full((targets,), sources)])
    return _bipartite(source, torch.cat([target, torch.arange(targets)]), sources + 1, targets)


def _bipartite(source: torch.Tensor, target: torch.Tensor, sources: int, targets: int) -> dgl.DGLGraph:
    return dgl.create_block((source, target), num_src_nodes=sources, num_dst_nodes=targets)


__all__ = [
    "AlignmentNetwork",
    "NetworkOptions",
    "PairGraph",
    "PairInputs",
    "Side",
    "Similarities",
    "pair_graph",
    "similarities",
]
