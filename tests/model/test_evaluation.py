"""Metrics against examples computed by hand."""

import numpy as np
import pytest

from model.evaluation import (
    ScoredPairs,
    best_threshold,
    calibration_error,
    calibration_table,
    decide,
    evaluate,
    hits_at_1,
    lasting_threshold,
    one_to_one,
    prauc,
    recall_at_precision,
    retrieval_recall,
)

# Five links, of which retrieval proposed three: (0, 0), (1, 1), (2, 2).
PAIRS = ScoredPairs(
    score=np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
    label=np.array([True, False, True, False, True, False]),
    left=np.array([0, 0, 1, 2, 2, 3]),
    right=np.array([0, 1, 1, 0, 2, 3]),
    links=5,
)
NOTHING = ScoredPairs(np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64), np.zeros(0, np.int64), 0)


def test_missed_links_are_lost_recall() -> None:
    assert retrieval_recall(PAIRS) == 3 / 5
    assert prauc(PAIRS) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 5)
    assert recall_at_precision(PAIRS, 0.95) == 1 / 5
    assert recall_at_precision(PAIRS, 0.6) == 3 / 5


def test_equal_scores_are_one_step() -> None:
    tied = PAIRS._replace(score=np.full(6, 0.5))
    assert prauc(tied) == pytest.approx(3 / 6 * 3 / 5)


def test_hits_at_1_wants_a_strict_winner() -> None:
    assert hits_at_1(PAIRS) == 2 / 5  # (2, 0) beats (2, 2)
    assert hits_at_1(PAIRS._replace(score=np.full(6, 0.5))) == 1 / 5  # only left 1 has no rival


def test_one_to_one_lets_the_best_go_first() -> None:
    assert one_to_one(PAIRS).tolist() == [True, False, True, False, True, True]
    tied = PAIRS._replace(score=np.full(6, 0.5))
    assert one_to_one(tied).tolist() == [True, False, True, False, True, True]


def test_decisions() -> None:
    many = decide(PAIRS, 0.6, one_to_one=False)
    assert (many.precision, many.recall, many.accepted) == (2 / 4, 2 / 5, 4)
    assert many.f1 == pytest.approx(2 * 2 / (4 + 5))
    single = decide(PAIRS, 0.6)
    assert (single.precision, single.recall) == (1.0, 2 / 5)
    assert decide(PAIRS, 2.0).precision == 1.0


def test_the_best_threshold_lies_half_way_to_the_next_score() -> None:
    assert best_threshold(PAIRS) == pytest.approx((0.5 + 0.4) / 2)
    assert decide(PAIRS, best_threshold(PAIRS)).f1 == pytest.approx(6 / 8)


def test_a_lasting_threshold_is_half_of_the_best_f1() -> None:
    assert lasting_threshold(PAIRS) == pytest.approx(6 / 8 / 2)
    assert lasting_threshold(PAIRS._replace(label=np.zeros(6, bool))) == 0.5


def test_it_is_where_f1_is_largest_when_scores_are_probabilities() -> None:
    rng = np.random.default_rng(0)
    score = rng.beta(0.3, 0.6, 200_000)
    numbers = np.arange(len(score))
    label = rng.random(len(score)) < score
    pairs = ScoredPairs(score, label, numbers, numbers, int(label.sum()))
    assert lasting_threshold(pairs) == pytest.approx(best_threshold(pairs), abs=0.02)


def test_the_calibration_error_is_that_of_the_best_pairs() -> None:
    # lefts 0, 1, 2, 3: best scores .9 (a link), .7 (a link), .6 (none), .4 (none), each alone in its bin
    assert calibration_error(PAIRS) == pytest.approx((0.1 + 0.3 + 0.6 + 0.4) / 4)
    assert calibration_error(NOTHING) == 0.0


def test_calibration_table() -> None:
    low, high = calibration_table(PAIRS, bins=2)
    assert (low.pairs, low.links, low.score) == (1, 0.0, 0.4)
    assert (high.pairs, high.links) == (5, 3 / 5)
    assert high.score == pytest.approx(0.7)


def test_nothing_to_evaluate() -> None:
    quality = evaluate(NOTHING, 0.5)
    assert (quality.prauc, quality.recall, quality.f1, quality.hits_at_1) == (0, 0, 0, 0)
    assert best_threshold(NOTHING) == 0.5
    assert quality.to_json()["calibration"] == []
