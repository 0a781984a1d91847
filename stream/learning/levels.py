"""Levels that are learned from links, and candidates of the same links to learn scores from.

Levels make the links that they learn from more alike than any others, and scores that are learned from the
same links would rely on that. So the links are parted in two halves, and the candidates of each are those
that levels find which were learned from the other half (cross-fitting).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from index.candidates import CandidateOptions
from model.contrastive import ContrastiveOptions, learn_levels
from model.encoding.encoder import Encoder
from model.training import LabelledPairs
from stream.learning.known_links import LinkPair, uniform
from stream.learning.workspace import Workspace


class Prepared(NamedTuple):
    """All that scores rest on, and pairs to learn them from."""

    encoder: Encoder
    candidates: CandidateOptions
    training: LabelledPairs


def prepare(
    workspace: Workspace,
    encoder: Encoder,
    links: Sequence[LinkPair],
    retrieve: Callable[[Encoder, Sequence[LinkPair]], CandidateOptions],
    options: ContrastiveOptions,
) -> Prepared:
    """Learns levels if there are enough links; the workspace has their candidates afterwards.

    Args:
        encoder: with unlearned levels.
        links: to learn from, whose entities exist.
        retrieve: makes rows and candidate lists; gets the links from which the encoder has learned nothing.
    """
    if len(links) < options.fewest:
        candidates = retrieve(encoder, links)
        return Prepared(encoder, candidates, workspace.labelled(links, contrasted=True))
    catalogue = workspace.catalogue(encoder)
    numbers = workspace.numbers(links)
    is_first = np.array([uniform("half", left) < 0.5 for left, _ in links])

    def learned(used: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Encoder:
        steps = math.ceil(options.steps * used.mean())  # so that each link is seen as often as among all
        some = replace(options, steps=steps)
        return encoder.with_levels(learn_levels(catalogue, numbers[used], encoder.levels, some))

    def halves() -> Iterator[tuple[Encoder, list[LinkPair]]]:
        for half in (is_first, ~is_first):
            if half.any():
                yield learned(~half), [link for link, inside in zip(links, half, strict=True) if inside]

    whole = learned(np.ones(len(links), bool))
    candidates = retrieve(whole, [])
    return Prepared(whole, candidates, workspace.cross_fitted(halves(), candidates))
