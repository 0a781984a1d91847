"""The best k of what was compared, in compiled loops."""

from typing import Any, Final

import numpy as np

from index.compiled import compiled
from index.search.arrays import MISSING, UNREACHABLE

_GLANCE: Final = 64  # similarities that are looked at together


@compiled
def select_near(
    sims: Any, bounds: Any, keys: Any, order: Any, floor: Any, near_keys: Any, near_sims: Any
) -> tuple[Any, Any]:
    """The k nearest of each query among (Q, n) similarities, and where a bound is reached.

    Returns:
        query, row: of the reached bounds.
    """
    k = near_keys.shape[1]
    query, row = np.empty(1024, np.int64), np.empty(1024, np.int64)
    glances = (sims.shape[1] + _GLANCE - 1) // _GLANCE
    best, reach, top = np.empty(glances, np.int32), np.empty(glances, np.int32), np.empty(k, np.int32)
    seen = np.empty(_GLANCE + 1, np.int64)
    count = 0
    for q in range(len(sims)):
        near_key, near_sim = near_keys[q], near_sims[q]
        filled = 0
        while filled < k and near_key[filled] != MISSING:
            filled += 1
        least = near_sim[k - 1] if filled == k else np.int32(floor)
        # most rows are neither: loops that the compiler turns into a few wide comparisons
        for g in range(glances):
            some = sims[q, g * _GLANCE : (g + 1) * _GLANCE]
            some_bounds = bounds[g * _GLANCE : (g + 1) * _GLANCE]
            most, past = np.int32(-UNREACHABLE), np.int32(-UNREACHABLE)
            for r in range(len(some)):
                most = max(most, some[r])
                past = max(past, np.int32(some[r] - some_bounds[r]))
            best[g], reach[g] = most, past
        # k rows are at least as near as the k-th best glance: a row further away is none of the nearest
        least = _last_of_best(best, least, top)
        for g in range(glances):
            if best[g] < least and reach[g] < 0:
                continue
            start = g * _GLANCE
            some, some_bounds = sims[q, start : start + _GLANCE], bounds[start : start + _GLANCE]
            found = 0
            for r in range(len(some)):  # without branches, which no processor could predict
                seen[found] = r
                found += some[r] >= min(some_bounds[r], least)
            for n in range(found):
                r = seen[n]
                sim = some[r]
                if sim >= some_bounds[r]:
                    if count == len(query):
                        query, row = np.concatenate((query, query)), np.concatenate((row, row))
                    query[count], row[count] = q, start + r
                    count += 1
                if sim < least:
                    continue
                key = keys[start + r]
                at = filled
                while at > 0 and (
                    sim > near_sim[at - 1]
                    or (sim == near_sim[at - 1] and order[key] < order[near_key[at - 1]])
                ):
                    at -= 1
                if at == k:
                    continue
                filled = min(filled + 1, k)
                for place in range(filled - 1, at, -1):
                    near_key[place] = near_key[place - 1]
                    near_sim[place] = near_sim[place - 1]
                near_key[at], near_sim[at] = key, sim
                if filled == k:
                    least = max(least, near_sim[k - 1])
    return query[:count], row[:count]


@compiled
def select_met(
    query: Any,
    keys: Any,
    sims: Any,
    bounds: Any,
    order: Any,
    floor: Any,
    near_keys: Any,
    near_sims: Any,
    hits: Any,
    used: Any,
) -> Any:
    """`select_near` for one query among the (n,) rows that it meets.

    Returns:
        The columns of `Hits`, with what it reaches after the `used` first, and how many are used now.
    """
    near = near_keys[query : query + 1], near_sims[query : query + 1]
    _, places = select_near(sims.reshape(1, len(sims)), bounds, keys, order, floor, *near)
    queries, hit_keys, hit_sims = hits
    while used + len(places) > len(queries):
        queries = np.concatenate((queries, queries))
        hit_keys, hit_sims = np.concatenate((hit_keys, hit_keys)), np.concatenate((hit_sims, hit_sims))
    for place in places:
        queries[used], hit_keys[used], hit_sims[used] = query, keys[place], sims[place]
        used += 1
    return (queries, hit_keys, hit_sims), used


@compiled
def _last_of_best(numbers: Any, least: Any, top: Any) -> Any:
    """The k-th largest of numbers, or `least` if fewer are above that; `top` (k,) is written to."""
    top[:] = least
    for number in numbers:
        if number > top[-1]:
            at = len(top) - 1
            while at > 0 and number > top[at - 1]:
                top[at] = top[at - 1]
                at -= 1
            top[at] = number
    return top[-1]
