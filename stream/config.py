"""Settings: `sameas.toml` < environment (`SAMEAS_KAFKA__BOOTSTRAP_SERVERS`) < flags. Validated once, here.

Everything inside receives frozen structs. Names under `[kafka]` that configure the connection are Kafka's own
(`security_protocol`, `sasl_mechanism`, `ssl_cafile`, ...). An unknown key is an error that names the key,
where it was written, and what was probably meant.
"""

import difflib
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from stream import toml
from stream.console import printable
from stream.engine.interface import EvidenceDetail, Search
from stream.errors import ConfigError
from stream.mapping.language import Attribute, Join, Relation, SourceMapping, Triples, check_topics
from stream.mapping.row import is_unicode

CONFIG_FILE = "sameas.toml"
ENV_PREFIX = "SAMEAS_"
ENV_CONFIG = "SAMEAS_CONFIG"  # the file's path; not a setting

Positive = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
TopicName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Secret:
    """A string that does not print. `reveal()` is the only way to its value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of `sameas.toml`."""


class KafkaSettings(Section, frozen=True):
    """The connection, in Kafka's own words; times are seconds."""

    bootstrap_servers: str = "127.0.0.1:9092"  # separated by commas
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: Secret | None = None
    sasl_plain_password_file: Path | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_password: Secret | None = None
    ssl_check_hostname: bool = True
    # Of what sameas writes; a topic's own `compression.type` may be another one. All are read.
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    group_id: str = "sameas"
    # How long a killed worker keeps its place: its successor waits this long.
    session_timeout_seconds: Annotated[float, msgspec.Meta(ge=1, le=300)] = 10.0
    connect_timeout_seconds: Annotated[float, msgspec.Meta(ge=1, le=25)] = 10.0

    @property
    def codec(self) -> str | None:
        """`compression_type` as clients in Python want it."""
        return None if self.compression_type == "none" else self.compression_type

    @property
    def servers(self) -> list[str]:
        """The bootstrap addresses, one by one."""
        return [server.strip() for server in self.bootstrap_servers.split(",") if server.strip()]


class TopicSettings(Section, frozen=True):
    """Names and shape of sameas's own topics."""

    entities: TopicName = "sameas.entities"
    links: TopicName = "sameas.links"
    alignments: TopicName = "sameas.alignments"
    alignment_events: TopicName = "sameas.alignment-events"
    dead_letters: TopicName = "sameas.dead-letters"
    partitions: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    replication_factor: Annotated[int, msgspec.Meta(ge=1, le=32_767)] = 1  # 16 bits in Kafka's protocol
    # Of the two logs, alignment events and dead letters, as they are created: they quote what people may want
    # erased. 0 is for ever.
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 30


class StateSettings(Section, frozen=True):
    dir: Path = Path("state")


class ModelSettings(Section, frozen=True):
    dir: Path = Path("checkpoint")
    threshold: Share | None = None  # instead of the one that training chose


class AlignSettings(Section, frozen=True):
    one_to_one: bool = True
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 512  # most messages in one micro-batch
    linger_ms: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0  # how long a micro-batch waits to fill
    search: Literal["auto", "exact", "cells"] = "auto"
    cells_from: Positive = 100_000  # entities of one type in one source from which on auto means cells

    @property
    def search_at_once(self) -> Search:
        """For commands without a state that adapts: cells only where they are asked for."""
        return "cells" if self.search == "cells" else "exact"


class RecordSettings(Section, frozen=True):
    """What alignment records and events say."""

    evidence: EvidenceDetail = "full"
    min_change: Share = 0.01  # of a confidence since the last event of the pair: the least that is an event


class PromotionSettings(Section, frozen=True):
    """When another model, or another threshold or rule, may take the place of what is in force."""

    max_withdrawn: Share = 0.5  # of all alignments: one that would withdraw more is refused


class MetricsSettings(Section, frozen=True):
    """The HTTP endpoint with /livez, /readyz and /metrics; there is none without a port."""

    host: str = "127.0.0.1"
    port: Port | None = None


class Settings(Section, frozen=True):
    """Everything that can be set. `sources`: where each source comes from and what its columns mean."""

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    state: StateSettings = StateSettings()
    model: ModelSettings = ModelSettings()
    align: AlignSettings = AlignSettings()
    records: RecordSettings = RecordSettings()
    promotion: PromotionSettings = PromotionSettings()
    metrics: MetricsSettings = MetricsSettings()
    sources: dict[str, SourceMapping] = {}


class Configuration(msgspec.Struct, frozen=True):
    """Settings, and for each key ("kafka.group_id") that is no default where it was written."""

    settings: Settings
    origins: dict[str, str]


def load_settings(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> Settings:
    """`load`, and only the settings of it."""
    return load(path, environ, overrides).settings


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> Configuration:
    """Reads and validates all layers.

    Args:
        path: the file; else the one named in SAMEAS_CONFIG, else `sameas.toml` in the working directory.
        environ: else the process's environment.
        overrides: "section.key=value", as `--set` takes them; the last one wins.

    Raises:
        ConfigError: names the key and where it was written.
    """
    environ = os.environ if environ is None else environ
    values: dict[tuple[str, ...], tuple[Any, str]] = {}
    for key, value, origin in [
        *_from_file(path, environ),
        *_from_environment(environ),
        *_from_overrides(overrides),
    ]:
        values[_known(key, origin)] = (value, origin)

    sections: dict[str, dict[str, Any]] = {}
    sources: dict[str, SourceMapping] = {}
    for key, (value, origin) in values.items():
        if key[0] == "sources":
            sources[key[1]] = _convert(value, SourceMapping, key, origin, strict=True)
        else:
            field = _fields(_SECTIONS[key[0]])[key[1]]
            strict = isinstance(value, str) is False or not _is_text_layer(origin)
            sections.setdefault(key[0], {})[key[1]] = _convert(value, field, key, origin, strict=strict)
    tables: dict[str, Any] = {name: _SECTIONS[name](**fields) for name, fields in sections.items()}
    settings = Settings(**tables, sources=sources)
    _check(settings)
    return Configuration(settings, {".".join(key): origin for key, (_, origin) in values.items()})


def describe(configuration: Configuration) -> Iterator[tuple[str, Any, str]]:
    """Every setting as (key, plain value with secrets masked, origin), in the order of the structs."""
    for section in _SECTIONS:
        table = getattr(configuration.settings, section)
        for name in _fields(type(table)):
            key = f"{section}.{name}"
            yield key, _plain(getattr(table, name)), configuration.origins.get(key, "default")
    for name, mapping in configuration.settings.sources.items():
        key = f"sources.{name}"
        yield key, _plain(msgspec.to_builtins(mapping)), configuration.origins[key]


def as_toml(configuration: Configuration) -> Iterator[str]:
    """The lines of a `sameas.toml` that means the same, with comments that say where each was written.

    What is not set, secrets, and what TOML cannot hold stand in comments; so do of mappings the settings that
    are as by default.
    """
    for section in _SECTIONS:
        table = getattr(configuration.settings, section)
        yield f"[{section}]"
        for name in _fields(type(table)):
            value, origin = getattr(table, name), configuration.origins.get(f"{section}.{name}", "default")
            plain, said = _plain(value), printable(origin)
            if value is None:
                yield f"# {name} is not set"
            elif isinstance(value, Secret):
                yield f'# {name} = "{value!r}"  # {said}; a secret'
            elif isinstance(plain, str) and not is_unicode(plain):
                yield f"# {name} = {printable(plain)}  # {said}; it is not UTF-8, which TOML has to be"
            else:
                yield f"{name} = {toml.inline(plain)}  # {said}"
        yield ""
    for name, mapping in configuration.settings.sources.items():
        said = printable(configuration.origins[f"sources.{name}"])
        yield from toml.tables(["sources", name], _but_defaults(mapping), said)
        yield ""


def _but_defaults(value: Any) -> Any:
    """A mapping as TOML holds it, without what is as by default."""
    if isinstance(value, msgspec.Struct):
        fields = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
        fields.sort(key=lambda entry: entry[0].name not in ("topic", "file"))
        return {f.name: _but_defaults(v) for f, v in fields if f.required or v != _default(f)}
    if isinstance(value, dict):
        return {name: _but_defaults(item) for name, item in value.items()}
    return value


def _default(field: msgspec.structs.FieldInfo) -> Any:
    is_made = field.default_factory is not msgspec.NODEFAULT
    return field.default_factory() if is_made else field.default


_SECTIONS: dict[str, type[Section]] = {
    "kafka": KafkaSettings,
    "topics": TopicSettings,
    "state": StateSettings,
    "model": ModelSettings,
    "align": AlignSettings,
    "records": RecordSettings,
    "promotion": PromotionSettings,
    "metrics": MetricsSettings,
}
_Item = tuple[tuple[str, ...], Any, str]


def _from_file(path: Path | None, environ: Mapping[str, str]) -> Iterator[_Item]:
    if path is None and environ.get(ENV_CONFIG):
        path = Path(environ[ENV_CONFIG])
    if path is None:
        path = Path(CONFIG_FILE)
        if not path.exists():
            return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    for section, table in document.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section}: settings stand in sections such as [kafka]")
        for name, value in table.items():
            yield (section, name), value, f"file {path}"


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Item]:
    for variable, value in sorted(environ.items()):
        if variable.startswith(ENV_PREFIX) and variable != ENV_CONFIG:
            key = tuple(variable.removeprefix(ENV_PREFIX).lower().split("__"))
            yield key, value, f"environment {variable}"


def _from_overrides(overrides: Sequence[str]) -> Iterator[_Item]:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not re.fullmatch(r"\s*[\w.-]+\s*", key):
            named = re.match(r"\s*([\w.]*)", override)
            known = f" {named[1]}" if named and named[1] in _choices() else ""  # the rest may be a password
            raise ConfigError(f"--set{known}: write it as section.key=value")
        yield tuple(key.strip().split(".")), value, f"flag --set {key.strip()}"


def _is_text_layer(origin: str) -> bool:
    return origin.startswith(("environment", "flag"))


def _known(key: tuple[str, ...], origin: str) -> tuple[str, ...]:
    """The key itself if there is such a setting."""
    dotted = ".".join(key)
    if key[0] == "sources" and len(key) == 2:
        if _is_text_layer(origin):
            raise ConfigError(f"{origin}: a source's mapping can only stand in {CONFIG_FILE}")
        return key
    if key[0] in _SECTIONS and len(key) == 2 and key[1] in _fields(_SECTIONS[key[0]]):
        return key
    choices = _choices()
    close = difflib.get_close_matches(dotted, choices, n=2, cutoff=0.6)
    close = close or [choice for choice in choices if choice.endswith(f".{key[-1]}")]
    if not close and len(key) == 2:
        sections = difflib.get_close_matches(key[0], [*_SECTIONS, "sources"], n=1)
        close = [f"{section}.{key[1]}" for section in sections if section == "sources"]
    hint = (
        f"; did you mean {' or '.join(close)}?"
        if close
        else f"; sections: {', '.join([*_SECTIONS, 'sources'])}"
    )
    raise ConfigError(f"{origin}: there is no setting {dotted}{hint}")


def _choices() -> list[str]:
    """Every setting but those of sources."""
    return [f"{section}.{name}" for section, cls in _SECTIONS.items() for name in _fields(cls)]


def _fields(section: type[Section]) -> dict[str, Any]:
    return typing.get_type_hints(section, include_extras=True)


def _convert(value: Any, into: Any, key: tuple[str, ...], origin: str, *, strict: bool) -> Any:
    if value == "" and not strict and _optional(into):
        return None  # an environment variable cannot be anything but text
    if not strict and re.fullmatch(r"[-+]?\.\d+", value):
        value = value.replace(".", "0.")  # people write .9
    try:
        return msgspec.convert(value, into, strict=strict, dec_hook=_decode_own_type)
    except msgspec.ValidationError as error:
        # msgspec's path is relative to this value; secrets are not shown by it
        reason = re.sub(r" - at `\$\.?(.*)`$", lambda at: f" (at {at[1]})" if at[1] else "", str(error))
        hint = _hint(str(error), into, key)
        raise ConfigError(f"{origin}: {'.'.join(key)}: {reason[:1].lower()}{reason[1:]}{hint}") from error


def _hint(problem: str, into: Any, key: tuple[str, ...]) -> str:
    """What was probably meant by a key that a mapping does not have, or what a value may be."""
    mapping = {
        name: hint
        for part in (SourceMapping, Join, Relation, Attribute, Triples)
        for name, hint in typing.get_type_hints(part).items()
    }
    if unknown := re.search("unknown field `([^`]+)`", problem):
        close = difflib.get_close_matches(unknown[1], mapping, n=1)
        return f"; did you mean {close[0]}?" if close else ""
    if "enum value" not in problem:
        return ""
    place = re.search(r"\.(\w+)`$", problem)
    choices = mapping[place[1]] if place and key[0] == "sources" else into
    return f"; one of {', '.join(_literals(choices))}"


def _literals(into: Any) -> Iterator[str]:
    """The texts that a type allows."""
    for part in typing.get_args(into):
        if isinstance(part, str):
            yield part
        else:
            yield from _literals(part)


def _optional(into: Any) -> bool:
    return type(None) in typing.get_args(into)


def _decode_own_type(into: type[Any], value: Any) -> Any:
    if into in (Secret, Path):
        if not isinstance(value, str) or not value:
            raise ValueError(f"expected text, got {type(value).__name__}")
        if into is Path and "\0" in value:
            raise ValueError("no path holds a NUL character")
        return into(value)
    raise NotImplementedError(into)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Secret | Path) else value


def _check(settings: Settings) -> None:
    """What the types cannot say."""
    kafka = settings.kafka
    if not kafka.servers:
        raise ConfigError("kafka.bootstrap_servers: name at least one broker as host:port")
    for server in kafka.servers:
        if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s\[\]]+):\d{1,5}", server):
            raise ConfigError(f"kafka.bootstrap_servers: {server!r} is not of the form host:port")
    if kafka.security_protocol.startswith("SASL"):
        if not (kafka.sasl_mechanism and kafka.sasl_plain_username):
            raise ConfigError(
                f"kafka.security_protocol is {kafka.security_protocol}: "
                "set sasl_mechanism, sasl_plain_username and sasl_plain_password too"
            )
        if bool(kafka.sasl_plain_password) == bool(kafka.sasl_plain_password_file):
            raise ConfigError("kafka: set one of sasl_plain_password and sasl_plain_password_file")
    for name in ("sasl_plain_password_file", "ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path: Path | None = getattr(kafka, name)
        if path is not None and not path.is_file():
            raise ConfigError(f"kafka.{name}: there is no file {path}")
    topics = settings.topics
    written = [topics.alignments, topics.alignment_events, topics.dead_letters]
    names = [topics.entities, topics.links, *written]
    if len(set(names)) < len(names):
        raise ConfigError("topics: two of sameas's own topics have the same name")
    check_topics(settings.sources, topics.entities, topics.links, written)  # every topic means one thing
