"""Writes log records as JSON, text or entries of the journal, and hides secrets, those in the records of libraries too.

The formatter of the standard library is enough; structlog would load rich and pygments into every role (8 MB).
"""

import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from relay.process import journal

SECRET: Final = "<secret>"
SECRET_NAME: Final = re.compile(r"password|passwd|secret|token|credential|authorization|cookie|api_?key", re.IGNORECASE)
"""The value of a field with such a name is never shown."""
SECRET_TEXT: Final = re.compile(
    r"(?P<scheme>\b(?:Basic|Bearer|Negotiate)\s+)[A-Za-z0-9+/=._~-]{6,}"
    r"|(?P<header>\bAuthorization['\"]?\s*[:=]\s*)[^\r\n]+",
    re.IGNORECASE,
)
"""Authorization headers in texts [RFC 9110 11.6.2]."""

PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Priorities of syslog by the least level of each; below all of them 7, debug [RFC 5424 6.2.1]."""
IDENTIFIER: Final = "push-relay"
"""What the journal shows before each message."""

OWN: Final = frozenset({"event", "exception", "level", "logger", "timestamp"})
"""Names that every line has; a field of a record with such a name gets an underscore at its end."""
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""Attributes of every record; all others come from `extra`."""

FLOORS: Final[Mapping[str, int]] = {
    "alembic": logging.WARNING,  # prints the dialect at each start
    "aioapns": logging.WARNING,  # prints requests: device tokens
    "aiohttp.access": logging.WARNING,  # prints paths; the API writes its own access log
    "asyncio": logging.INFO,
    "asyncpg": logging.WARNING,
    "google": logging.WARNING,  # prints requests for access tokens
    "h2": logging.WARNING,  # prints frames: bodies
    "hpack": logging.WARNING,  # prints header values: provider tokens
    "requests": logging.WARNING,
    "opentelemetry": logging.WARNING,  # prints spans
    "sqlalchemy": logging.WARNING,  # prints statements with their parameters
    "urllib3": logging.WARNING,  # prints paths
}
"""The lowest levels that libraries may log at; below, they print bodies, headers or parameters."""


def configure(
    level: str,
    form: Literal["json", "text", "journal"],
    stream: TextIO,
    environ: Mapping[str, str] = os.environ,
    address: str = journal.SOCKET,
) -> None:
    """Write the log records of the whole process to `stream`, from `level` (e.g. "info") on.

    With "journal" they are entries with fields, sent to the socket at `address`, if `environ` says that `stream` is the
    journal; else JSON.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    native = form == "journal" and journal.is_journal(stream, environ)
    handler = _Journal(stream, address) if native else logging.StreamHandler(stream)
    handler.setFormatter(_TextLines() if form == "text" else _JsonLines())
    handler.addFilter(_above_floor)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    for name, floor in FLOORS.items():
        logging.getLogger(name).setLevel(max(least, floor))


class _Journal(logging.StreamHandler[TextIO]):
    """Sends entries with fields to the journal; one that it does not take now goes to the stream as a line."""

    def __init__(self, stream: TextIO, address: str) -> None:
        super().__init__(stream)
        self._address = address

    def emit(self, record: logging.LogRecord) -> None:
        try:
            journal.send(journal.encode(_entry(_read(_PLAIN, record), record.levelno)), self._address)
        except OSError:
            super().emit(record)
        except Exception:  # noqa: BLE001  # a record that cannot be written must not end what logs it, as in logging
            self.handleError(record)


def _entry(line: dict[str, Any], level: int) -> dict[str, Any]:
    """Return the fields of an entry: those that everyone's entries have, and RELAY_... for each of a line."""
    shown = {name: value for name, value in line.items() if name not in OWN}
    traceback = f"\n{line['exception']}" if "exception" in line else ""
    known = {
        "MESSAGE": f"{line['event']}{_named(shown)}{traceback}",
        "PRIORITY": next((priority for least, priority in PRIORITIES if level >= least), 7),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    # The journal has a time of its own, and the level is the priority.
    return known | {f"RELAY_{name}": value for name, value in line.items() if name not in {"timestamp", "level"}}


def _named(fields: Mapping[str, Any]) -> str:
    return "".join(f" {name}={value!r}" for name, value in sorted(fields.items()))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_read(self, record), sort_keys=True)


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = _read(self, record)
        exception = line.pop("exception", None)
        head = f"{line.pop('timestamp')} {line.pop('level').upper():<7} {line.pop('logger')}: {line.pop('event')}"
        return head + _named(line) + (f"\n{exception}" if exception else "")


_PLAIN: Final = logging.Formatter()


def _read(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record, without secrets."""
    line: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": record.getMessage(),
    }
    if record.exc_info:
        line["exception"] = formatter.formatException(record.exc_info)
    for name, value in record.__dict__.items():
        if name not in _STANDARD:
            line[f"{name}_" if name in OWN else name] = value
    return redact(line)


def redact(line: Mapping[str, Any]) -> dict[str, Any]:
    """Hide each value whose name is a secret's, and each Authorization header in a text, at any depth."""
    return {name: SECRET if SECRET_NAME.search(name) else _cleaned(value) for name, value in line.items()}


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


def _above_floor(record: logging.LogRecord) -> bool:
    """Return whether a record may be written: not below FLOORS, even if a child of the logger has a lower level."""
    name = record.name
    floor = next((floor for parent, floor in FLOORS.items() if name == parent or name.startswith(f"{parent}.")), 0)
    return record.levelno >= floor
