"""Own the lines of the egress log: what one says, how they are chained, and what an auditor can find wrong.

One JSON object per line. `prev` is the SHA-256 of the line before, so that a changed, removed or reordered line breaks
the chain; `n` counts from 1. Nothing here reads or writes a file.
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
"""What the first line names as the line before."""
FIELDS: Final = frozenset({"n", "at", "provider", "app", "device", "body", "prev"})


@dataclass(frozen=True, slots=True)
class Position:
    """Hold where a chain stands: the number of its last line and that line's hash."""

    n: int = 0
    digest: str = START


@dataclass(frozen=True, slots=True)
class Fault:
    """Tell what is wrong with one line."""

    where: str
    """File and line, e.g. "egress-000001.jsonl:17"."""
    text: str


def without_token(body: bytes, device_token: str, device: str) -> str:
    """Write an FCM body with the device token replaced, which FCM alone wants inside; the rest stays as it is."""
    text = body.decode()
    before, token, after = text.partition(f'"token":{json.dumps(device_token, ensure_ascii=False)}')
    if token and device_token not in after and device_token not in before:
        return f'{before}"token":"{device}"{after}'
    document = json.loads(text)
    document["message"]["token"] = device
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def device_hash(key: bytes, device_token: str) -> str:
    """Name a device without telling its token: HMAC-SHA256 with this installation's key, 32 hexadecimal digits."""
    return hmac.digest(key, device_token.encode(), "sha256").hex()[:32]


def write_line(
    position: Position, at: datetime, provider: Platform, app: str, device: str, body: str
) -> tuple[bytes, Position]:
    """Write the next line of a chain, newline included, and tell where the chain stands then."""
    # Written by hand: this is done for every push, and texts alone need JSON's escapes.
    line = (
        f'{{"n":{position.n + 1},"at":"{at.isoformat(timespec="milliseconds")}","provider":"{provider.value}",'
        f'"app":{json.dumps(app)},"device":"{device}","body":{json.dumps(body)},"prev":"{position.digest}"}}'
    ).encode("ascii")
    return line + b"\n", Position(position.n + 1, hash_line(line))


def hash_line(line: bytes) -> str:
    """Hash a line, without its newline."""
    return hashlib.sha256(line).hexdigest()


def read_position(line: bytes) -> Position:
    """Tell where a chain stands whose last line this is; raises ValueError for a line that is none of ours."""
    try:
        return Position(int(json.loads(line)["n"]), hash_line(line))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a line of an egress log") from error


def verify(lines: Iterable[tuple[str, bytes]], head: Position | None = None) -> Iterator[Fault]:
    """Find everything that is wrong with a chain, given as (where, line) from its oldest line on.

    The first line may have any number: older files may have been thrown away. `head` is where the relay last said that
    the chain stood; a chain that ends before it has lost its end.
    """
    before: Position | None = None
    seen: dict[int, str] = {}
    for where, line in lines:
        problem, position = _check(line, before)
        if problem is not None:
            yield Fault(where, problem)
        # A broken line is told once: the chain goes on from what stands there.
        before = position if position is not None else before
        if position is not None:
            seen[position.n] = position.digest
    if head is not None and head.n and seen.get(head.n) != head.digest:
        yield Fault("the end", f"the relay wrote {head.n} lines; the last of them is missing or another one")


def is_template(provider: str, body: str) -> bool:
    """Tell whether a body is one of the fixed templates: it is made again from its fields and compared."""
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
    """Return what is wrong with a line, and where the chain stands after it, if that can be told."""
    try:
        position = read_position(line)
    except ValueError:
        return "is no line of an egress log", None
    entry: dict[str, Any] = json.loads(line)
    if entry.keys() != FIELDS:
        return "has other fields than an egress log", position
    return _break(entry, position, before) or _content(entry), position


def _break(entry: Mapping[str, Any], position: Position, before: Position | None) -> str | None:
    """Tell how a line does not follow the one before."""
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
    """Make all notices that could have led to some data; they differ in what the data does not tell."""
    kind = data["kind"]
    mark = Mark(data["class"]) if kind == "new-items" else Mark(kind)
    for mode, locale in product(Mode, TEXTS):
        yield Notice(mark, count or 1, certain, RegistrationId(data["registration"]), mode, locale)
