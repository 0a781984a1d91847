"""What the user may do, asked before it is tried.

The broker says it with each topic that it describes. If it were tried without asking, a topic that may not be
read would look empty, and Faust would repeat a refused write for ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kafka import KafkaAdminClient
from kafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError, for_code

from stream.errors import Refused

Operation = Literal["READ", "WRITE", "DELETE"]

_VERBS: dict[Operation, str] = {"READ": "read it", "WRITE": "write to it", "DELETE": "delete it"}
_AUTHORIZATION = "AuthorizationFailed"  # in the names of errors of both client libraries


class _Missing(NamedTuple):
    resource: Literal["topic", "group"]
    name: str
    operations: Sequence[Operation]

    def __str__(self) -> str:
        verbs = " and ".join(_VERBS[one] for one in self.operations)
        return verbs if self.resource == "topic" else "join it"


def check_access(
    admin: KafkaAdminClient,
    topics: Iterable[Mapping[str, Any]],
    needed: Mapping[str, Sequence[Operation]],
    group: str | None = None,
) -> None:
    """Raises Refused with all that the user lacks.

    Args:
        topics: as `describe_topics` gives them. The embedded broker, which knows no users, names no rights.
        needed: by the topic's name.
        group: which the user has to be able to join.
    """
    missing = [
        _Missing("topic", topic["name"], lacking)
        for topic in topics
        if (lacking := _lacking(topic, needed[topic["name"]]))
    ]
    if group is not None and not _may_join(admin, group):
        missing.append(_Missing("group", group, ["READ"]))
    if missing:
        user = admin.config.get("sasl_plain_username")
        who = f"user {user}" if user else "this client"
        facts = "; ".join(f"{one.resource} {one.name}: {who} may not {one}" for one in missing)
        rights = "an ACL has" if len(missing) == 1 else "ACLs have"
        commands = "; ".join(_command(one, user or "NAME") for one in missing)
        raise Refused(f"{facts}; {rights} to allow it: {commands}")


def is_refusal(error: BaseException) -> bool:
    """Whether a client library's error says that the user lacks a right."""
    return _AUTHORIZATION in type(error).__name__


def _lacking(topic: Mapping[str, Any], needed: Sequence[Operation]) -> list[Operation]:
    if for_code(topic["error_code"]) is TopicAuthorizationFailedError:
        return list(needed)  # each of them would also show the topic
    allowed = topic.get("authorized_operations")
    return [] if allowed is None else [operation for operation in needed if operation not in allowed]


def _may_join(admin: KafkaAdminClient, group: str) -> bool:
    try:
        described = admin.describe_groups([group])[group]
    except GroupAuthorizationFailedError:
        return False
    except (KafkaError, ValueError):
        return True  # a broker that has had no group yet; joining will tell
    allowed = described.get("authorized_operations")
    return not allowed or "READ" in allowed


def _command(missing: _Missing, user: str) -> str:
    options = " ".join(f"--operation {operation.capitalize()}" for operation in missing.operations)
    return f"kafka-acls --add --allow-principal User:{user} {options} --{missing.resource} {missing.name}"
