"""What the user may do, asked before it is tried.

The broker says it with each topic that it describes. If it were tried without asking, a topic that may not be
read would look empty, and Faust would repeat a refused write for ever.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kafka import KafkaAdminClient
from kafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError, for_code

from stream.broker.connection import admin_client
from stream.config import Settings
from stream.errors import BrokerError

Operation = Literal["READ", "WRITE", "DELETE"]

_VERBS: dict[Operation, str] = {"READ": "read it", "WRITE": "write to it", "DELETE": "delete it"}


def check_topic(admin: KafkaAdminClient, topic: Mapping[str, Any], needed: Sequence[Operation]) -> None:
    """Raises BrokerError unless the user may do all that is needed.

    Args:
        topic: as `describe_topics` gives it. The embedded broker, which knows no users, says nothing.
    """
    if for_code(topic["error_code"]) is TopicAuthorizationFailedError:
        missing = list(needed)  # each of them would also show the topic
    else:
        allowed = topic.get("authorized_operations")
        missing = [] if allowed is None else [operation for operation in needed if operation not in allowed]
    if missing:
        resource = f"--topic {topic['name']}"
        raise BrokerError(
            f"topic {topic['name']}: {_who(admin)} may not {' and '.join(_VERBS[one] for one in missing)}; "
            f"{_remedy(admin, missing, resource)}"
        )


def check_group(settings: Settings, group: str) -> None:
    """Raises BrokerError unless the user may join the consumer group."""
    with admin_client(settings.kafka) as admin:
        try:
            admin.describe_groups([group])
        except GroupAuthorizationFailedError as error:
            remedy = _remedy(admin, ["READ"], f"--group {group}")
            raise BrokerError(f"group {group}: {_who(admin)} may not join it; {remedy}") from error
        except (KafkaError, ValueError):
            pass  # a broker that has had no group yet; joining will tell


def _who(admin: KafkaAdminClient) -> str:
    user = admin.config.get("sasl_plain_username")
    return f"user {user}" if user else "this client"


def _remedy(admin: KafkaAdminClient, operations: Sequence[str], resource: str) -> str:
    user = admin.config.get("sasl_plain_username") or "NAME"
    options = " ".join(f"--operation {operation.capitalize()}" for operation in operations)
    return f"an ACL has to allow it: kafka-acls --add --allow-principal User:{user} {options} {resource}"
