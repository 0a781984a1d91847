"""Sizes and units of arrays that the encoder, the network and the compiled path agree on."""

from typing import Final

import numpy as np
import numpy.typing as npt

from index.graph import HEAD_EDGES

OWN = 8  # values of one entity that the model compares

# The lowest bits of an item's hash do not identify the value. From the lowest: 4 for how much it says, 4 for
# how rare it is, 4 that stay 0 here and take a neighbour's degree (`model/encoding/levels.py`).
RARITY_BITS = 12

DIM = 128
NORM = 256  # of every vector that is not zero, before rounding
UNIT = NORM * NORM  # the inner product of two equal vectors

# Of the learned vectors of an entity, one for each of two levels: joined they have the norm of any other.
LEVEL = 32
LEVEL_NORM = NORM / 2**0.5

I8 = npt.NDArray[np.int8]

SAMPLE: Final = HEAD_EDGES  # a head holds what any draw can take

UNKNOWN, FIRST = 1, 2  # 0 stands where there is no key

NEIGHBOURS = SAMPLE
SLOTS = OWN + NEIGHBOURS
RARITY_FEATURES = 3
