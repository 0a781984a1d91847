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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from index.compiled import compiled
from model.encoding.items import TextTokens
from model.encoding.levels import TOKEN_UNIT, Entities, Levels, add_tokens, level1
from model.encoding.tokens import BUCKETS
from model.encoding.vectors import to_int8
from model.scoring.network import dgl
from model.shapes import I8, LEVEL, LEVEL_NORM

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


def both_levels(catalogue: Catalogue, levels: Levels) -> tuple[I8, I8]:
    """(n, LEVEL) levels 0 and 1 of all entities, with the bits that they have where they are served."""
    texts = catalogue.texts
    rarity = np.zeros(BUCKETS, np.uint8)
    rarity[texts.token] = texts.rarity
    of_text = np.zeros((len(texts.entity), LEVEL), np.int32)
    bags = texts.token, texts.starts
    add_tokens(bags, np.arange(len(of_text)), rarity, levels.tokens, of_text)
    sums = np.zeros((len(catalogue.exists), LEVEL), np.int64)
    weighted = to_int8(of_text, LEVEL_NORM).astype(np.int64) * texts.weight[:, None]
    np.add.at(sums, texts.entity, weighted)
    level0 = to_int8(sums, LEVEL_NORM)
    entities = Entities(level0, catalogue.exists, catalogue.name_hash, catalogue.degree)
    return level0, level1(entities, catalogue.neighbours, catalogue.keys, levels)


@dataclass(frozen=True)
class ContrastiveOptions:
    """How to learn."""

    seed: int = 0
    fewest: int = 200  # links from which levels are learned; from fewer they would know these and no others
    steps: int = 150  # at most
    visits: int = 40  # of each link, at most
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
    steps = min(options.steps, math.ceil(options.visits * len(left) / size))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * _schedule(step / steps)
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
    """Texts by entity, to be looked up many at a time.

    Attributes:
        used: (V,) the buckets of all their tokens.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        texts = catalogue.texts
        self.used, place = np.unique(texts.token, return_inverse=True)
        entities = len(catalogue.exists)
        self._first = np.searchsorted(texts.entity, np.arange(entities + 1))
        self._weight = texts.weight.astype(np.float32)
        self._tokens = place, texts.rarity, np.append(texts.starts, len(texts.token))

    def of(self, entities: I64, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sums of the tokens' vectors, one for each text; of which of the entities it is; and its weight.

        Args:
            vectors: (V, LEVEL) of the tokens in `used`.
        """
        first, after = self._first[entities], self._first[entities + 1]
        owner = np.repeat(np.arange(len(entities)), after - first)
        text = np.arange(len(owner)) + (after - np.cumsum(after - first))[owner]
        sums: torch.Tensor = _SumOfTokens.apply(vectors, text, *self._tokens)  # type: ignore[no-untyped-call]
        return sums, torch.from_numpy(owner), torch.from_numpy(self._weight[text])


class _SumOfTokens(torch.autograd.Function):
    """As `functional.embedding_bag`, whose backward pass sorts all tokens."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, *texts: npt.NDArray[Any]) -> torch.Tensor:
        ctx.texts, ctx.shape = texts, vectors.shape
        sums = np.zeros((len(texts[0]), LEVEL), np.float32)
        _gather(vectors.detach().numpy(), sums, *texts)
        return torch.from_numpy(sums)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        vectors = np.zeros(ctx.shape, np.float32)
        _scatter(vectors, gradient.contiguous().numpy(), *ctx.texts)
        return torch.from_numpy(vectors), *(None for _ in ctx.texts)


@compiled
def _gather(vectors: Any, sums: Any, text: Any, token: Any, rarity: Any, ends: Any) -> None:
    """Adds vectors of tokens, times their rarities, to the sums (T,) of these texts."""
    for t in range(len(text)):
        for place in range(ends[text[t]], ends[text[t] + 1]):
            weight = np.float32(rarity[place])
            for d in range(LEVEL):
                sums[t, d] += weight * vectors[token[place], d]


@compiled
def _scatter(vectors: Any, sums: Any, text: Any, token: Any, rarity: Any, ends: Any) -> None:
    """The other way: adds sums to vectors."""
    for t in range(len(text)):
        for place in range(ends[text[t]], ends[text[t] + 1]):
            weight = np.float32(rarity[place])
            for d in range(LEVEL):
                vectors[token[place], d] += weight * sums[t, d]


class _Net(nn.Module):
    """The parameters of `Levels` as floats, and the forward pass on graphs.

    Of tokens that no text has there are none: they stay what they were.
    """

    def __init__(self, start: Levels, catalogue: Catalogue) -> None:
        super().__init__()
        self._catalogue, self._texts = catalogue, _Texts(catalogue)
        self._rarity = torch.from_numpy(catalogue.rarity())

        def parameter(array: npt.NDArray[np.floating]) -> nn.Parameter:
            return nn.Parameter(torch.from_numpy(array.astype(np.float32)))

        self._start = start.tokens
        self.tokens = parameter(start.tokens[self._texts.used] / np.float32(TOKEN_UNIT))
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
        every = self._level0(used)
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

    def _level0(self, ids: I64) -> torch.Tensor:
        sums, owner, weight = self._texts.of(ids, self.tokens)
        said = torch.zeros(len(ids), LEVEL).index_add(0, owner, _unit(sums) * weight[:, None])
        return _unit(said)

    def levels(self) -> Levels:
        """What was learned."""

        def array(parameter: nn.Parameter) -> npt.NDArray[np.float32]:
            return np.array(parameter.detach().numpy(), np.float32, order="C")

        tokens = self._start.copy()
        tokens[self._texts.used] = np.clip(np.rint(array(self.tokens) * TOKEN_UNIT), -127, 127)
        parts = (self.transform, self.scale, self.shift, self.attention, self.key, self.about)
        return Levels(tokens, *map(array, parts))


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Of length 1, but for those that are about 0."""
    return vectors * torch.rsqrt((vectors**2).sum(dim=1, keepdim=True) + 1e-4)
