"""The lines of the egress log: what one contains, how they are chained, and how an auditor verifies them. No file I/O.

One JSON object per line. `prev` is the SHA-256 of the line before, so that a changed, removed or reordered line breaks
the chain; `n` counts from 1.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any, Final

from relay.domain.model import Mark, Mode, Platform, RegistrationId
from relay.push.payload import TEXTS, ApnsMessage, FcmMessage, Notice, WebPushMessage

START: Final = "0" * 64
"""`prev` of the first line."""
FIELDS: Final = frozenset({"n", "at", "provider", "app", "device", "body", "prev"})


@dataclass(frozen=True, slots=True)
class Position:
    """The end of a chain: the number of its last line and that line's hash."""

    n: int = 0
    digest: str = START


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one line."""

    where: str
    """File and line, e.g. "egress-000001.jsonl:17"."""
    text: str


def without_token(body: bytes, device_token: str, device: str) -> str:
    """Return an FCM body with the device token replaced, which only FCM has in the body; the rest stays the same."""
    text = body.decode()
    before, token, after = text.partition(f'"token":{json.dumps(device_token, ensure_ascii=False)}')
    if token and device_token not in after and device_token not in before:
        return f'{before}"token":"{device}"{after}'
    document = json.loads(text)
    document["message"]["token"] = device
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def device_hash(key: bytes, device_token: str) -> str:
    """Return a device's name, which hides its token: HMAC-SHA256 with this installation's key, 32 hex digits."""
    return hmac.digest(key, device_token.encode(), "sha256").hex()[:32]


def write_line(
    position: Position, at: datetime, provider: Platform, app: str, device: str, body: str
) -> tuple[bytes, Position]:
    """Return the next line of a chain, newline included, and the chain's end after it."""
    # Formatted by hand, since this runs for every push; only texts need JSON's escapes.
    line = (
        f'{{"n":{position.n + 1},"at":"{at.isoformat(timespec="milliseconds")}","provider":"{provider.value}",'
        f'"app":{json.dumps(app)},"device":"{device}","body":{json.dumps(body)},"prev":"{position.digest}"}}'
    ).encode("ascii")
    return line + b"\n", Position(position.n + 1, hash_line(line))


def hash_line(line: bytes) -> str:
    """Return the hash of a line without its newline."""
    return hashlib.sha256(line).hexdigest()


def read_position(line: bytes) -> Position:
    """Return the end of a chain with this last line; raises ValueError for a line that is not of an egress log."""
    try:
        return Position(int(json.loads(line)["n"]), hash_line(line))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a line of an egress log") from error


def verify(lines: Iterable[tuple[str, bytes]], head: Position | None = None) -> Iterator[Fault]:
    """Find everything that is wrong with a chain, given as (where, line) from its oldest line on.

    The first line may have any number: older files may have been deleted. `head` is the end of the chain that the relay
    wrote last; a chain that ends before it has lost lines.
    """
    before: Position | None = None
    seen: dict[int, str] = {}
    for where, line in lines:
        problem, position = _check(line, before)
        if problem is not None:
            yield Fault(where, problem)
        # A broken line is reported once: the chain continues from it.
        before = position if position is not None else before
        if position is not None:
            seen[position.n] = position.digest
    if head is not None and head.n and seen.get(head.n) != head.digest:
        yield Fault("the end", f"the relay wrote {head.n} lines; the last of them is missing or another one")


def is_template(provider: str, body: str) -> bool:
    """Return True if a body is one of the fixed templates: it is made again from its fields and compared."""
    try:
        document = json.loads(body)
        if provider == Platform.APNS.value:
            return _is_apns(document)
        if provider == Platform.WEBPUSH.value:
            return _is_webpush(document)
        return provider == Platform.FCM.value and _is_fcm(document)
    except (ValueError, KeyError, TypeError):
        return False


def _check(line: bytes, before: Position | None) -> tuple[str | None, Position | None]:
    """Return what is wrong with a line, and the chain's end after it; None: it has none."""
    try:
        position = read_position(line)
    except ValueError:
        return "is no line of an egress log", None
    entry: dict[str, Any] = json.loads(line)
    if entry.keys() != FIELDS:
        return "has other fields than an egress log", position
    return _break(entry, position, before) or _content(entry), position


def _break(entry: Mapping[str, Any], position: Position, before: Position | None) -> str | None:
    """Return why a line does not follow the one before; None: it does."""
    if before is None:
        first_names_another = position.n == 1 and entry["prev"] != START
        return "is the first line and names one before it" if first_names_another else None
    if entry["prev"] != before.digest:
        return f"does not follow line {before.n}: a line was changed, removed, added or moved"
    return None if position.n == before.n + 1 else f"is number {position.n}, not {before.n + 1}"


def _content(entry: Mapping[str, Any]) -> str | None:
    if is_template(str(entry["provider"]), str(entry["body"])):
        return None
    return "has a body that is none of the templates"


def _is_apns(document: Mapping[str, Any]) -> bool:
    data = document["relay"]
    certain = data.get("certain", True)
    return any(
        ApnsMessage(notice).body == document
        for notice in _notices(data, certain=certain is True, count=data.get("count"))
    )


def _is_fcm(document: Mapping[str, Any]) -> bool:
    message = document["message"]
    data = message["data"]
    count = int(data["count"]) if "count" in data else None
    return any(
        {
            "message": {"android": rendered.android, "data": rendered.data, "token": message["token"]},
            "validate_only": False,
        }
        == document
        for rendered in map(FcmMessage, _notices(data, certain="certain" not in data, count=count))
    )


def _is_webpush(document: Mapping[str, Any]) -> bool:
    certain = document.get("certain", True)
    return any(
        WebPushMessage(notice).body == document
        for notice in _notices(document, certain=certain is True, count=document.get("count"))
    )


def _notices(data: Mapping[str, Any], *, certain: bool, count: int | None) -> Iterator[Notice]:
    """Make all notices that have this data; they differ in mode and locale, which the data does not contain."""
    kind = data["kind"]
    mark = Mark(data["class"]) if kind == "new-items" else Mark(kind)
    for mode, locale in product(Mode, TEXTS):
        yield Notice(mark, count or 1, certain, RegistrationId(data["registration"]), mode, locale)
