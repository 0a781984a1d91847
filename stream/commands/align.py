"""`sameas align`: whole catalogues without a broker, on the command line."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from stream.commands.options import catalogued
from stream.config import Settings
from stream.console import counting, put_json, shown, tell
from stream.events import EntityEvent

if TYPE_CHECKING:
    from stream.catalogue.account import Account

SHOWN_TYPES: Final = 5


@click.command()
@catalogued
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Where `sameas explain` finds what was aligned [aligned, beside state.dir]",
)
def align(
    settings: Settings,
    read: Callable[[], list[EntityEvent]],
    account: "Account",
    model: Path,
    state: Path | None,
) -> None:
    """Align catalogue FILES without a broker; alignment records as JSON Lines on stdout.

    `sameas explain` then says why.
    """
    from stream.engine.parts import usable_model
    from stream.learning.alignment import align as align_files
    from stream.learning.alignment import kept_in

    usable_model(model)  # or reading would be in vain
    events = read()
    with counting("aligning", "events") as progress:
        records = align_files(
            events,
            model,
            one_to_one=settings.align.one_to_one,
            threshold=settings.model.threshold,
            search=settings.align.search_at_once,
            evidence=settings.records.evidence,
            progress=progress,
            keep=state or kept_in(settings),
        )
    for record in records:
        put_json(msgspec.json.encode(record).decode())
    if unsure := Counter(record.subject_category for record in records if not record.calibrated):
        most = ", ".join(f"{shown(name)}: {count:,}" for name, count in unsure.most_common(SHOWN_TYPES))
        more = ", ..." if len(unsure) > SHOWN_TYPES else ""
        tell(
            f"{unsure.total():,} alignments are of types without links in training ({most}{more}): their "
            "confidence ranks them, and is no probability; give `sameas train` some links of each type"
        )
