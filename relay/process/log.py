"""Own how log records become lines, and that no secret is among them whoever logged it."""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

SECRET: Final = "<secret>"
SECRET_NAME: Final = re.compile(r"password|passwd|secret|token|credential|authorization|cookie|api_?key", re.IGNORECASE)
"""Fields with such a name never show their value."""
SECRET_TEXT: Final = re.compile(
    r"(?P<scheme>\b(?:Basic|Bearer|Negotiate)\s+)[A-Za-z0-9+/=._~-]{6,}"
    r"|(?P<header>\bAuthorization['\"]?\s*[:=]\s*)[^\r\n]+",
    re.IGNORECASE,
)
"""Authorization headers within texts [RFC 9110 11.6.2]."""

OWN: Final = frozenset({"event", "exception", "level", "logger", "timestamp"})

FLOORS: Final[Mapping[str, int]] = {
    "alembic": logging.WARNING,  # says at each start which dialect it found
    "aioapns": logging.WARNING,  # prints requests: device tokens
    "aiohttp.access": logging.WARNING,  # prints paths; the API writes an access log of its own
    "aiosqlite": logging.WARNING,  # prints statements with their parameters
    "asyncio": logging.INFO,
    "asyncpg": logging.WARNING,
    "google": logging.WARNING,  # prints requests for access tokens
    "h2": logging.WARNING,  # prints frames: bodies
    "hpack": logging.WARNING,  # prints header values: provider tokens
    "requests": logging.WARNING,
    "sqlalchemy": logging.WARNING,  # prints statements with their parameters
    "urllib3": logging.WARNING,  # prints paths
}
"""Least levels of libraries that print bodies, headers or parameters below them."""


def configure(level: str, form: Literal["json", "text"], stream: TextIO) -> None:
    """Send the log records of the whole process to `stream`, from `level` (e.g. "info") on."""
    least = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(make_formatter(form))
    handler.addFilter(_above_floor)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    for name, floor in FLOORS.items():
        logging.getLogger(name).setLevel(max(least, floor))


def make_formatter(form: Literal["json", "text"]) -> logging.Formatter:
    """Make lines: one JSON object each with timestamp, level, logger, event and fields, or text for people."""
    chain: list[Processor] = [
        _add_fields,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_timestamp,
    ]
    closing: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if form == "json":
        closing += [structlog.processors.format_exc_info, redact, structlog.processors.JSONRenderer(sort_keys=True)]
    else:
        closing += [structlog.processors.format_exc_info, redact, _render_text]
    return structlog.stdlib.ProcessorFormatter(processors=closing, foreign_pre_chain=chain)


def redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Hide what bears the name of a secret or looks like an Authorization header, at any depth."""
    return {name: SECRET if SECRET_NAME.search(name) else _cleaned(value) for name, value in event.items()}


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return SECRET_TEXT.sub(lambda found: f"{found['scheme'] or found['header']}{SECRET}", value)
        case Mapping():
            return {name: SECRET if SECRET_NAME.search(str(name)) else _cleaned(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_cleaned(inner) for inner in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return _cleaned(str(value))


def _add_fields(logger: Any, method: str, event: EventDict) -> EventDict:
    """Add what `extra` held; a field that bears a name of ours gets an underscore."""
    fields = structlog.stdlib.ExtraAdder()(logger, method, {"_record": event["_record"]})
    del fields["_record"]
    return {**event, **{f"{name}_" if name in OWN else name: value for name, value in fields.items()}}


def _add_timestamp(_logger: Any, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    event["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return event


def _render_text(_logger: Any, _method: str, event: EventDict) -> str:
    exception = event.pop("exception", None)
    head = f"{event.pop('timestamp')} {event.pop('level').upper():<7} {event.pop('logger')}: {event.pop('event')}"
    fields = "".join(f" {name}={value!r}" for name, value in sorted(event.items()))
    return head + fields + (f"\n{exception}" if exception else "")


def _above_floor(record: logging.LogRecord) -> bool:
    """Hold libraries at their floor even if a child of their logger has a level of its own."""
    name = record.name
    floor = next((floor for parent, floor in FLOORS.items() if name == parent or name.startswith(f"{parent}.")), 0)
    return record.levelno >= floor
