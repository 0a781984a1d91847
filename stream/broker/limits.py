"""How large messages and batches may be, and what is sent in place of one that is too large."""

import msgspec

from stream.engine.interface import TRUNCATED, Output
from stream.events import Evidence

MAX_MESSAGE_BYTES = 4_000_000  # what the producers let through; the broker's own limit decides
TRUNCATED_BYTES = 100_000  # what is kept at most of a dead letter that does not fit with its headers
BATCH_BYTES = 500_000  # a topic's max.message.bytes, 1 MiB by default, also limits record batches


def shortened(output: Output, most: int = TRUNCATED_BYTES) -> Output:
    """A dead letter whose key and value are cut to `most` bytes; any other output as it is."""
    key, value, headers = output.key, output.value, output.headers
    if output.kind != "dead_letters" or max(len(key or b""), len(value or b"")) <= most:
        return output
    if TRUNCATED not in dict(headers):
        headers = [*headers, (TRUNCATED, str(len(value or b"")).encode())]
    return msgspec.structs.replace(
        output,
        key=None if key is None else key[:most],
        value=None if value is None else value[:most],
        headers=headers,
    )


def smaller(output: Output) -> Output | None:
    """What to send in place of an output that the broker refused for its size; None if nothing is left.

    Of a dead letter that is less and less of the message; of a record that is one without evidence, then a
    tombstone, so that no former record stays in its place.
    """
    if output.kind == "dead_letters":
        most = min(TRUNCATED_BYTES, max(len(output.key or b""), len(output.value or b"")) // 2)
        return shortened(output, most) if most else None
    if output.value is None:
        return None
    record = msgspec.json.decode(output.value)
    if any(record["evidence"].values()):
        bare = msgspec.json.encode(record | {"evidence": msgspec.to_builtins(Evidence())})
        return msgspec.structs.replace(output, value=bare)
    return msgspec.structs.replace(output, value=None) if output.kind == "alignments" else None
