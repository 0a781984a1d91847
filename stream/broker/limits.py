"""How large messages and batches may be, and how a message that is too large is shortened."""

import msgspec

from stream.engine.interface import TRUNCATED, Output

MAX_MESSAGE_BYTES = 4_000_000  # what the producers let through; the broker's own limit decides
TRUNCATED_BYTES = 100_000  # what is kept of a dead letter that does not fit into a message with its headers
BATCH_BYTES = 500_000  # a topic's max.message.bytes, 1 MiB by default, also limits record batches


def shortened(output: Output) -> Output:
    """A dead letter cut to what surely gets through; any other output as it is."""
    key, value = output.key, output.value
    if output.kind != "dead_letters" or max(len(key or b""), len(value or b"")) <= TRUNCATED_BYTES:
        return output
    return msgspec.structs.replace(
        output,
        key=None if key is None else key[:TRUNCATED_BYTES],
        value=None if value is None else value[:TRUNCATED_BYTES],
        headers=[*output.headers, (TRUNCATED, str(len(value or b"")).encode())],
    )
