"""Level 2 of the network: cross-graph attention and self-attention over two entities' values and neighbours.

After CG-MuAlign (Zhu et al., "Collective Multi-type Entity Alignment Between Knowledge Graphs", WWW 2020),
with what its two attentions are for: *cross-graph attention* weights a neighbour by how well it matches some
neighbour of the other side, *self-attention* by how much neighbours of its kind tell entities apart. Here
values are attended to exactly like neighbours, so that keys need not have the same names on both sides.

For slots i of one side and j of the other (own values and neighbours), what is compared is

    f_ij     = [s_ij, n_ij, [h_i = h_j], e0_i e0_j, e1_i e1_j]

s is the similarity of values or names, n that of what surrounds two neighbours, h identifies a value, e0
and e1 are levels 0 and 1 (`model/encoding/levels.py`); of values there are s and h alone. Twice (l = 0, 1),
so that one may go by what slots are called and the other by what is around them:

    L_ij     = w_lb f_ij + <k_i, D k_j>                            b: value or neighbour on either side
    A_ij     = softmax_j(L_ij, null_i) * softmax_i(L_ij, null_j)   cross-graph attention, null: no partner
    a_i      = sum_j A_ij [f_ij, 1]                                agreement of i with its partner
    o_i      = W2 relu((W1 [a_i0, a_i1, rarity_i]) * G_key + U_key)   what that means for this key
    beta_i   = softmax_i(g o_i)                                    self-attention, each block apart
    z        = [sum_i beta_i o_i, sum_i o_i]                       for each of the two, from either side
    logit    = MLP([z + z', |z - z'|, context])

k are learned embeddings of keys. Both directions share all parameters. The attention is mutual: it is large
where each of two slots is the other's choice.

In the paper's terms A is the cross-graph attention, beta the relation-aware self-attention, and both
make its collective aggregation. The numbers of its equations could not be looked up where this was written,
so they are given by name, after the authors' code (github.com/GentleZhu/CG-MuAlign, models/module.py); i is
a neighbour of x, j one of the other side:

    m_i     = W_r h_i                                              transform of the relation r of (x, i)
    alpha_i = sum_j exp(-|m_i - m_j|) / sum_i' sum_j exp(-|m_i' - m_j|)             cross-graph attention
    beta_i  = softmax_i(leaky_relu(v [m_i, W_0 h_x]))                       relation-aware self-attention
    h'_x    = relu([W_0 h_x, sum_i alpha_i beta_i m_i / sum_i' alpha_i' beta_i'])             aggregation
    loss    = sum_n relu(d(x, y) - d(x, y_n) + 1) + relu(d(x, y) - 1)

d is the distance of h', the y_n are no partners of x. In their code both attentions act in the last layer
alone, and the first is a mean. What differs here:

- what does not depend on a pair is made once for an entity: levels 0 and 1 are learned by themselves, from
  links, with the self-attention of level 1 (`model/contrastive.py`). The cross-graph attention compares
  them, so the sums over neighbours are weighted by a comparison with the other graph at both levels;
- exact similarities of what entities hold stand beside the learned ones;
- G and U, a scale and a shift for each key, take the place of W_r, and <k_i, D k_j> lets keys of two
  schemas attend to each other;
- A weights pairs of slots, and `null` lets a slot have no partner; what the paper's alpha does, to
  count neighbours with a counterpart for more, is left to beta, which is computed of a_i;
- what is summed is the agreement with partners, and not embeddings;
- a classifier with the context of the retrieval, and cross-entropy, take the place of the distance and its
  loss; and boosted trees come before it (`model/scoring/trees.py`).

This module trains on ragged graphs with DGL; `model/scoring/kernel.py` computes the same, one pair after the
other.
"""

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

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
CHANNELS = 5  # own, neighbourhood, equal, level 0, level 1
AGREEMENT = CHANNELS + 1  # matched
LEVELS = 2  # of attention
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
    attention: Literal["mutual", "one way", "uniform"] = "mutual"  # across the two graphs
    self_attention: bool = True  # False: all slots of a block count the same
    features: bool = True  # False: the classifier does not see the context, and there are no trees

    def to_json(self) -> dict[str, int | str]:
        """As JSON-ready values."""
        return asdict(self)


class AlignmentNetwork(nn.Module):
    """Parameters, and the forward pass on ragged pair graphs."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        o = self.options = options
        first = torch.tensor(((6.0, 0.0, 1.0, 3.0, 1.0), (1.0, 3.0, 1.0, 1.0, 3.0)))
        self.attend = nn.Parameter(first[:, None].repeat(1, BLOCKS * BLOCKS, 1))
        self.null = nn.Parameter(torch.full((LEVELS, BLOCKS), 3.0))
        self.key_attention = nn.Embedding(o.keys, ATTENTION)
        self.key_signs = nn.Parameter(torch.ones(ATTENTION))
        self.key_null = nn.Embedding(o.keys, 1)
        self.key_scale = nn.Embedding(o.keys, HIDDEN)
        self.key_bias = nn.Embedding(o.keys, HIDDEN)
        features = LEVELS * AGREEMENT + RARITY_FEATURES
        self.item_in = nn.ModuleList(nn.Linear(features, HIDDEN) for _ in range(BLOCKS))
        self.item_out = nn.ModuleList(nn.Linear(HIDDEN, ITEM) for _ in range(BLOCKS))
        self.gate = nn.ModuleList(nn.Linear(ITEM, 1) for _ in range(BLOCKS))
        self.register_buffer("bin_low", torch.zeros(o.context, BINS))
        self.register_buffer("bin_width", torch.ones(o.context, BINS))
        self.head_in = nn.Linear(2 * POOLED + o.context * BINS, HEAD)
        self.alone = nn.Parameter(torch.zeros(HEAD))
        self.head_out = nn.Linear(HEAD, 1)
        self.dropout = nn.Dropout(0.2)
        for table in (self.key_attention, self.key_null, self.key_bias):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.normal_(self.key_scale.weight, mean=1.0, std=0.1)

    def forward(self, graph: "PairGraph", *, alone: bool) -> torch.Tensor:
        """Uncalibrated logits (P,): what is to be added to those of trees, or without trees."""
        ops, key = dgl().ops, self._forget(graph.key)
        similar = graph.similar
        logits, null = self._logits(graph, key), self._null_logits(graph, key)
        alpha = ops.edge_softmax(graph.attends_null, torch.cat([logits, null]))[: len(logits)]
        if self.options.attention == "mutual":
            alpha = alpha * alpha.roll(len(alpha) // 2, 0)  # of the same slots in the other direction
        agreement = torch.cat([similar, torch.ones_like(similar[:, :1])], dim=1).repeat(2, 1)
        agreed = ops.copy_e_sum(graph.attends, (alpha[:, :, None] * agreement[:, None]).flatten(1))
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
        return self.classify(left, right, graph.context, alone=alone)

    def _forget(self, key: torch.Tensor) -> torch.Tensor:
        """In training some keys pass for unknown, so that unknown ones are learned, too."""
        if not self.training:
            return key
        forgotten = torch.rand(key.shape) < KEY_DROPOUT
        return torch.where(forgotten, torch.tensor(UNKNOWN), key)

    def _logits(self, graph: "PairGraph", key: torch.Tensor) -> torch.Tensor:
        """L_ij of all edges of `attends`, (2E, LEVELS)."""
        if self.options.attention == "uniform":
            return torch.zeros(2 * len(graph.similar), LEVELS)
        of_block = (graph.similar @ self.attend.flatten(0, 1).T).reshape(-1, LEVELS, BLOCKS * BLOCKS)
        compared = of_block.gather(2, graph.blocks[:, None, None].expand(-1, LEVELS, 1)).squeeze(2)
        embedded = self.key_attention(key)
        by_key = dgl().ops.u_dot_v(graph.attends, embedded * self.key_signs, embedded)
        logits: torch.Tensor = (compared.repeat(2, 1) + by_key).clamp(max=MAX_LOGIT)
        return logits

    def _null_logits(self, graph: "PairGraph", key: torch.Tensor) -> torch.Tensor:
        """The logits of 'no partner' for all slots, (slots, LEVELS)."""
        if self.options.attention == "uniform":
            return torch.full((len(key), LEVELS), -MAX_LOGIT)
        logits: torch.Tensor = self.null.T[graph.block] + self.key_null(key)
        return logits.clamp(-MAX_LOGIT, MAX_LOGIT)

    def item(
        self, block: int, features: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """o_i (..., ITEM) and the logit of beta_i (..., 1) for slots of one block."""
        hidden = torch.addcmul(self.key_bias(key), self.item_in[block](features), self.key_scale(key))
        out = self.item_out[block](torch.relu(hidden))
        gate = self.gate[block](out).clamp(-MAX_LOGIT, MAX_LOGIT)
        return out, gate if self.options.self_attention else torch.zeros_like(gate)

    def classify(
        self, left: torch.Tensor, right: torch.Tensor, context: torch.Tensor, *, alone: bool
    ) -> torch.Tensor:
        """Both sides' pooled slots and the context to logits (P,)."""
        inputs = torch.cat([left + right, (left - right).abs(), self.bins(context)], dim=1)
        hidden = self.head_in(inputs)
        hidden = self.dropout(torch.relu(hidden + self.alone if alone else hidden))
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


class PairGraph(NamedTuple):
    """P pairs without their empty slots, as DGL graphs. Items are all left slots, then all right ones."""

    key: torch.Tensor
    rarity: torch.Tensor
    block: torch.Tensor
    rows_of_block: tuple[torch.Tensor, ...]
    similar: torch.Tensor  # (E, CHANNELS) of all left slots with all right ones of their pairs
    blocks: torch.Tensor  # (E,) 2 * block of the left slot + block of the right slot
    attends: "DGLGraph"  # these edges, from the right slot to the left one, then the same turned around
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
    at = pair[both], i[both] - OWN, j[both] - OWN
    similar = torch.zeros(len(pair), CHANNELS)
    similar[:, 0], similar[:, 2] = pairs.own[pair, i, j], pairs.equal[pair, i, j]
    for channel, of_neighbours in ((1, pairs.neighbourhood), (3, pairs.level0), (4, pairs.level1)):
        similar[both, channel] = of_neighbours[at]
    blocks = 2 * (i >= OWN) + (j >= OWN).long()
    count = len(slot)
    every = torch.arange(count)
    return PairGraph(
        key=torch.cat([pairs.left_key[left_at], pairs.right_key[right_at]]),
        rarity=torch.cat([pairs.left_rarity[left_at], pairs.right_rarity[right_at]]),
        block=block,
        rows_of_block=tuple(torch.nonzero(block == b).squeeze(-1) for b in range(BLOCKS)),
        similar=similar,
        blocks=blocks,
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
