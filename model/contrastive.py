"""Learns levels 0 and 1 (`model/encoding/levels.py`) from links.

Of the entities of a batch, those that are linked are to be nearest to each other.

The loss is InfoNCE (van den Oord et al., 2018) over cosines s_xy = <e_x, e_y> of linked x and y, with all
other right entities of a batch, and some drawn ones, as negatives:

    loss = -log(exp(t s_xy) / sum_y' exp(t s_xy'))          and half as much the other way

once over level 0, once over level 1, and once over both joined, so that each is good by itself and together.
Level 1 forgets the names of three in ten neighbours: it is to learn from relations, too.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from model.encoding.items import TextTokens
from model.encoding.levels import TOKEN_UNIT, Levels
from model.scoring.network import dgl
from model.shapes import LEVEL

if TYPE_CHECKING:
    pass

I64 = npt.NDArray[np.int64]


class Catalogue(NamedTuple):
    """What levels are learned from: n entities with their texts and sampled neighbours."""

    texts: TextTokens
    neighbours: npt.NDArray[np.int32]  # (n, SAMPLE) which of these are sampled, negative for none
    exists: npt.NDArray[np.bool_]  # (n,)
    space: npt.NDArray[np.int32]  # (n,) number of type and source
    name_hash: I64  # (n,)
    degree: I64  # (n,)
    keys: npt.NDArray[np.int16]  # (n, SAMPLE) of the relations

    def rarity(self) -> npt.NDArray[np.float32]:
        """(n, RARITY_FEATURES) as level 1 sees it: the degree, the name's rarity, how much it says."""
        exponent = np.minimum(np.frexp(self.degree)[1] - 1, 15)
        of_name = self.name_hash >> 4 & 15, self.name_hash & 15
        return np.stack([exponent, *of_name], axis=1).astype(np.float32) / np.float32(15)


@dataclass(frozen=True)
class ContrastiveOptions:
    """How to learn."""

    seed: int = 0
    fewest: int = 200  # links from which levels are learned; from fewer they would know these and no others
    steps: int = 150
    batch: int = 384  # links of a step
    drawn: int = 384  # right entities beside those of the links
    forgotten: float = 0.3  # share of neighbours whose names level 1 does not see
    learning_rate: float = 1e-2


def learn_levels(catalogue: Catalogue, links: I64, start: Levels, options: ContrastiveOptions) -> Levels:
    """Levels from links (L, 2) of the catalogue's entities, beginning with unlearned ones."""
    left, right = links.T
    others = np.flatnonzero(np.isin(catalogue.space, np.unique(catalogue.space[right])))
    torch.manual_seed(options.seed)
    chance = np.random.default_rng(options.seed)
    net = _Net(start, catalogue)
    optimiser = torch.optim.Adam(net.parameters(), lr=options.learning_rate, fused=True)
    size, drawn = min(options.batch, len(left)), min(options.drawn, len(others))
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * _schedule(step / options.steps)
        links = chance.choice(len(left), size, replace=False)
        rights = right[links]
        ids = np.concatenate([left[links], rights, others[chance.choice(len(others), drawn, replace=False)]])
        e0, e1 = net(ids, options.forgotten)
        # another link of the same right entity is no negative
        same = torch.from_numpy(ids[None, size:] == rights[:, None])
        same.fill_diagonal_(False)
        loss = sum(
            _loss(e, net.sharpness[place], size, same)
            for place, e in enumerate((e0, e1, torch.cat([e0, e1], dim=1)))
        )
        assert isinstance(loss, torch.Tensor)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net.levels()


def _loss(e: torch.Tensor, sharpness: torch.Tensor, size: int, same: torch.Tensor) -> torch.Tensor:
    cosine = (e[:size] @ e[size:].T) * torch.exp(sharpness.clamp(max=4))
    target = torch.arange(size)
    forth = functional.cross_entropy(cosine.masked_fill(same, -1e4), target)
    return forth + functional.cross_entropy(cosine[:, :size].T, target) / 2


def _schedule(done: float) -> float:
    """The factor of the learning rate: a short rise, then a cosine down to nothing."""
    return min(1.0, done / 0.12 + 0.05) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)


class _Texts:
    """Texts by entity, to be looked up many at a time."""

    def __init__(self, catalogue: Catalogue) -> None:
        texts = self._texts = catalogue.texts
        entities = len(catalogue.exists)
        self._first = np.searchsorted(texts.entity, np.arange(entities + 1))
        self._ends = np.append(texts.starts, len(texts.token))

    def of(self, entities: I64) -> tuple[torch.Tensor, ...]:
        """The tokens of these entities' texts, their rarities, where each text starts, and of which of the
        entities it is; and the texts' weights."""
        texts = self._texts
        text, owner = _ranges(self._first, entities)
        token, of_text = _ranges(self._ends, text)
        starts = np.searchsorted(of_text, np.arange(len(text)))
        return (
            torch.from_numpy(texts.token[token]),
            torch.from_numpy(texts.rarity[token].astype(np.float32)),
            torch.from_numpy(starts),
            torch.from_numpy(owner),
            torch.from_numpy(texts.weight[text].astype(np.float32)),
        )


def _ranges(ends: I64, chosen: I64) -> tuple[I64, I64]:
    """What lies in the ranges [ends[c], ends[c + 1]), one after the other, and in which range each lies."""
    starts, lengths = ends[chosen], ends[chosen + 1] - ends[chosen]
    owner = np.repeat(np.arange(len(chosen)), lengths)
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths), owner


class _Net(nn.Module):
    """The parameters of `Levels` as floats, and the forward pass on graphs."""

    def __init__(self, start: Levels, catalogue: Catalogue) -> None:
        super().__init__()
        self._catalogue, self._texts = catalogue, _Texts(catalogue)
        self._rarity = torch.from_numpy(catalogue.rarity())

        def parameter(array: npt.NDArray[np.floating]) -> nn.Parameter:
            return nn.Parameter(torch.from_numpy(array.astype(np.float32)))

        self.tokens = parameter(start.tokens / np.float32(TOKEN_UNIT))
        self.transform, self.scale, self.shift = map(parameter, (start.transform, start.scale, start.shift))
        self.attention, self.key, self.about = map(parameter, (start.attention, start.key, start.about))
        self.sharpness = nn.Parameter(torch.full((3,), 2.5))
        with torch.no_grad():  # so that keys are not all alike
            self.scale.add_(0.1 * torch.randn_like(self.scale))
            self.shift.add_(0.05 * torch.randn_like(self.shift))

    def forward(self, ids: I64, forgotten: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Levels 0 and 1 of entities (B,): (B, LEVEL) each."""
        ops, catalogue = dgl().ops, self._catalogue
        around = catalogue.neighbours[ids]
        is_there = (around >= 0) & catalogue.exists[around]
        centre, _ = np.nonzero(is_there)
        used, inverse = np.unique(np.concatenate([ids, around[is_there]]), return_inverse=True)
        every = self._level0(self._texts.of(used), len(used))
        source = torch.from_numpy(inverse[len(ids) :])
        key = torch.from_numpy(catalogue.keys[ids][is_there].astype(np.int64))
        seen = every * (torch.rand(len(used), 1) >= forgotten)
        message = functional.embedding(source, seen @ self.transform)
        message = message * functional.embedding(key, self.scale) + functional.embedding(key, self.shift)
        logit = (
            torch.tanh(message) @ self.attention
            + self.key[key]
            + self._rarity[torch.from_numpy(around[is_there])] @ self.about
        )
        graph = dgl().create_block(
            (source, torch.from_numpy(centre)), num_src_nodes=len(used), num_dst_nodes=len(ids)
        )
        beta = ops.edge_softmax(graph, logit[:, None])
        level1 = ops.copy_e_sum(graph, message * beta)
        return every[torch.from_numpy(inverse[: len(ids)])], _unit(level1)

    def _level0(self, texts: tuple[torch.Tensor, ...], entities: int) -> torch.Tensor:
        token, rarity, starts, owner, weight = texts
        sums = functional.embedding_bag(token, self.tokens, starts, mode="sum", per_sample_weights=rarity)
        said = torch.zeros(entities, LEVEL).index_add(0, owner, _unit(sums) * weight[:, None])
        return _unit(said)

    def levels(self) -> Levels:
        """What was learned."""

        def array(parameter: nn.Parameter) -> npt.NDArray[np.float32]:
            return np.array(parameter.detach().numpy(), np.float32, order="C")

        tokens = np.clip(np.rint(array(self.tokens) * TOKEN_UNIT), -127, 127).astype(np.int8)
        parts = (self.transform, self.scale, self.shift, self.attention, self.key, self.about)
        return Levels(tokens, *map(array, parts))


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Of length 1, but for those that are about 0."""
    return vectors * torch.rsqrt((vectors**2).sum(dim=1, keepdim=True) + 1e-4)
