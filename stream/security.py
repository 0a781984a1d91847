"""The `[kafka]` settings as the two clients want them: kafka-python (feed, subscribe, topics) and Faust."""

import ssl
from typing import Any

from stream.config import KafkaSettings
from stream.errors import ConfigError


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """What every kafka-python client is built with.

    Raises:
        ConfigError: the certificates or the password file cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.servers,
        "security_protocol": kafka.security_protocol,
        "bootstrap_timeout_ms": int(kafka.connect_timeout_seconds * 1000),
        "client_id": "sameas",
    }
    if kafka.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_plain_username,
            "sasl_plain_password": sasl_password(kafka),
        }
    context = ssl_context(kafka)
    return options | {"ssl_context": context} if context else options


def faust_credentials(kafka: KafkaSettings) -> Any:
    """Credentials for a Faust app, None without TLS and SASL.

    Raises:
        ConfigError: the certificates or the password file cannot be used.
    """
    import faust.auth

    context = ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        return faust.auth.SASLCredentials(
            username=kafka.sasl_plain_username,
            password=sasl_password(kafka),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return faust.auth.SSLCredentials(context) if context else None


def sasl_password(kafka: KafkaSettings) -> str:
    """The password itself, from the setting or the file."""
    if kafka.sasl_plain_password is not None:
        return kafka.sasl_plain_password.reveal()
    assert kafka.sasl_plain_password_file is not None  # the settings were checked
    try:
        return kafka.sasl_plain_password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"kafka.sasl_plain_password_file: cannot be read: {error}") from error


def ssl_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """A client's TLS context, None when the protocol has no TLS."""
    if not kafka.security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_cafile)
        context.check_hostname = kafka.ssl_check_hostname
        if kafka.ssl_certfile:
            password = kafka.ssl_password.reveal() if kafka.ssl_password else None
            context.load_cert_chain(kafka.ssl_certfile, kafka.ssl_keyfile, password)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"kafka.ssl_cafile, ssl_certfile or ssl_keyfile cannot be used: {error}") from error
    return context
