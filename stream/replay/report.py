"""The figures of a finished run, for `report.json` and the page."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from model.evaluation import ScoredPairs, evaluate
from stream.broker.topics import alignments_to_read, find_partitions
from stream.config import Settings
from stream.consuming.alignments import current_alignments
from stream.engine.aligner import Aligner
from stream.events import AlignmentRecord
from stream.learning.evaluation import score_links
from stream.learning.known_links import LinkPair
from stream.pages.curves import curve
from stream.replay.comparing import compare
from stream.replay.run import Plan, Run, digest

LARGEST = 50  # differences of each kind that the report shows


def make_report(
    run: Run,
    plan: Plan,
    aligner: Aligner,
    checkpoint: Path,
    links: Sequence[LinkPair],
    live: Settings,
    *,
    strict: bool,
) -> dict[str, Any]:
    """All figures, ready for JSON.

    Args:
        aligner: of the finished run, drained.
        links: without any there is no quality.
        live: settings of the worker with whose alignments the run's are compared.

    Raises:
        BrokerError: the live alignments cannot be read.
        InvalidInput: one of them cannot be read, if `strict`.
    """
    progress = run.progress
    decode = msgspec.json.Decoder(AlignmentRecord).decode
    records = {key.decode(): decode(value) for key, value in aligner.records()}
    return {
        "run": run.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan": {**msgspec.to_builtins(plan), "messages": plan.messages},
        "counts": msgspec.to_builtins(progress.counts),
        "seconds": round(progress.seconds, 3),
        "messages_per_second": round(progress.counts.received / max(progress.seconds, 1e-9), 1),
        "alignments": len(records),
        "quality": quality(aligner, plan, checkpoint, links) if links else None,
        "timeline": [
            {
                **msgspec.to_builtins(point),
                "precision": point.precision,
                "recall": point.recall,
                "f1": point.f1,
            }
            for point in (run.timeline.points if plan.links == digest(links) else ())
        ],
        "live": compare_with_live(live, records, links, strict=strict),
    }


def quality(aligner: Aligner, plan: Plan, checkpoint: Path, links: Sequence[LinkPair]) -> dict[str, Any]:
    """Quality on the run's final graph, as `sameas evaluate` measures it, overall and by left entity's type.

    Links with an entity that is missing from the run's part of the topics are only counted, as `absent`.
    """
    by_type = score_links(aligner, links, checkpoint)
    measured = {
        kind: evaluate(pairs, plan.threshold, one_to_one=plan.one_to_one).to_json()
        for kind, pairs in by_type.items()
    }
    present = sum(pairs.links for pairs in by_type.values())
    result: dict[str, Any] = {"absent": len(set(links)) - present, "by_type": measured}
    if by_type:
        columns: list[Any] = [
            np.concatenate(column) for column in zip(*(p[:4] for p in by_type.values()), strict=True)
        ]
        score, label, left, right = columns
        pairs = ScoredPairs(score, label, left, right, present)
        result |= evaluate(pairs, plan.threshold, one_to_one=plan.one_to_one).to_json()
        result["curve"] = [
            {"precision": precision, "recall": recall, "score": at} for precision, recall, at in curve(pairs)
        ]
    return result


def compare_with_live(
    live: Settings, records: Mapping[str, AlignmentRecord], links: Sequence[LinkPair], *, strict: bool
) -> dict[str, Any] | None:
    """The differences of the live alignments and the run's; None where no worker ever wrote alignments."""
    if not has_alignments(live):
        return None
    return compare(current_alignments(live, strict=strict), records, links).to_json(LARGEST)


def has_alignments(live: Settings) -> bool:
    """Whether a worker ever wrote alignments. Raises BrokerError if they may not be read."""
    [count] = find_partitions(live, [alignments_to_read(live)]).values()
    return count is not None
