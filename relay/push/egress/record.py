"""The lines of the egress log: what one contains, how they are chained, and how an auditor verifies them. No file I/O.

One JSON object per line. `prev` is a digest of the line before, keyed with the key that the line before names, so that
somebody without the key cannot change, remove or reorder a line and chain the rest again; `n` counts from 1. Lines of
versions before the key name none: their digest is the plain SHA-256, which proves less.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import product
from typing import Any, Final, NamedTuple, TypeAlias

from relay.domain.counted import counted
from relay.domain.fcm_device import FcmDevice
from relay.domain.model import ISSUED_ID, OWN_TEXTS, Mark, Mode, Platform, RegistrationId
from relay.domain.reasons import Cause
from relay.push.payload import (
    TEXTS,
    ApnsMessage,
    FcmMessage,
    Notice,
    WebAppMessage,
    WebAppPages,
    WebPushMessage,
    former_apns,
    former_fcm,
)

START: Final = "0" * 64
"""`prev` of the first line."""
UNKEYED: Final = frozenset({"n", "at", "provider", "app", "device", "body", "prev"})
"""The fields of a line without a key."""
FIELDS: Final = UNKEYED | {"key"}
DEVICE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
APP: Final = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)


_TEXT: Final = json.JSONEncoder().encode
"""Writes a text as JSON, as `json.dumps` does."""


@dataclass(frozen=True)
class ChainKey:
    """A key of the chain."""

    secret: bytes = field(repr=False)

    @cached_property
    def id(self) -> str:
        """What a line names the key by; it tells nothing of the key."""
        return hashlib.sha256(b"egress chain key " + self.secret).hexdigest()[:8]


class Position(NamedTuple):
    """The end of a chain: the number of its last line and that line's digest."""

    n: int = 0
    digest: str = START


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one line."""

    where: str
    """File and line, e.g. "egress-000001.jsonl:17"."""
    text: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A note of the relay: the lines up to a position were removed as too old, or for room."""

    position: Position
    at: str
    """When, in ISO 8601."""

    def sign(self, chain: str, key: ChainKey) -> str:
        """Return the signature of the note, for one chain."""
        text = f"{chain} removed {self.position.n} {self.position.digest} {self.at}"
        return hmac.digest(key.secret, text.encode(), "sha256").hex()


@dataclass(slots=True)
class Seen:
    """What an audit saw beside faults."""

    lines: int = 0
    unkeyed: int = 0
    """Lines without a key."""
    unverified: int = 0
    """Lines whose key the auditor does not have."""
    registrations: set[str] = field(default_factory=set)
    """The ids in the bodies."""
    pages: set[str] = field(default_factory=set)
    """The addresses that notifications of the web app open, without what follows a #."""


def without_token(body: bytes, device_token: str, device: str) -> str:
    """Return an FCM body with the token or FID replaced, which only FCM has in the body; the rest stays the same."""
    text, to = body.decode(), FcmDevice.read(device_token)
    before, found, after = text.partition(f'"{to.kind}":{json.dumps(to.name, ensure_ascii=False)}')
    if found and to.name not in after and to.name not in before:
        return f'{before}"{to.kind}":"{device}"{after}'
    document = json.loads(text)
    document["message"][to.kind] = device
    return write_fcm(document)


def device_hash(key: bytes, device_token: str) -> str:
    """Return a device's name, which hides its token: HMAC-SHA256 with this installation's key, 32 hex digits."""
    return hmac.digest(key, device_token.encode(), "sha256").hex()[:32]


Entry: TypeAlias = tuple[str, str, str]
"""App, device and body of a push; the device is a name that `device_hash` made."""


def write_lines(
    position: Position, at: datetime, provider: Platform, entries: Iterable[Entry], key: ChainKey
) -> tuple[list[bytes], list[str]]:
    """Return the next lines of a chain, newlines included, and the digest of each."""
    moment, name, key_id = at.isoformat(timespec="milliseconds"), provider.value, key.id
    lines, digests = [], []
    for app, device, body in entries:
        line = write_entry(position, moment, name, app, device, body, key_id)
        position = Position(position.n + 1, hash_line(line, key))
        lines.append(line + b"\n")
        digests.append(position.digest)
    return lines, digests


def write_entry(position: Position, at: str, provider: str, app: str, device: str, body: str, key: str | None) -> bytes:
    """Return the line after a position, without its newline; `key` is the id of a key, None: as older versions did."""
    # Formatted by hand, since this runs for every push; only texts need JSON's escapes.
    named = "" if key is None else f'"key":"{key}",'
    return (
        f'{{"n":{position.n + 1},"at":"{at}","provider":"{provider}",'
        f'"app":{_TEXT(app)},"device":"{device}","body":{_TEXT(body)},{named}"prev":"{position.digest}"}}'
    ).encode("ascii")


def hash_line(line: bytes, key: ChainKey | None) -> str:
    """Return the digest of a line without its newline; None: without a key."""
    if key is None:
        return hashlib.sha256(line).hexdigest()
    # BLAKE2b with a key is a MAC of its own [RFC 7693 2.9], and takes a third of the time of HMAC-SHA256 here.
    return hashlib.blake2b(line, key=key.secret, digest_size=32).hexdigest()


def read_position(line: bytes, keys: Mapping[str, ChainKey]) -> Position:
    """Return the end of a chain with this last line; its digest is empty if the key that it names is not in `keys`.

    Raises ValueError for a line that is not of an egress log.
    """
    try:
        entry = json.loads(line)
        number, name = int(entry["n"]), entry.get("key")
        if name is not None and name not in keys:
            return Position(number, "")
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError("not a line of an egress log") from error
    return Position(number, hash_line(line, None if name is None else keys[name]))


def verify(
    lines: Iterable[tuple[str, bytes]],
    head: Position | None = None,
    *,
    keys: Mapping[str, ChainKey],
    removed: Removal | None = None,
    keyed_from: int | None = None,
    seen: Seen | None = None,
) -> Iterator[Fault]:
    """Find everything that is wrong with a chain, given as (where, line) from its oldest line on.

    The first line may have any number if it follows `removed`, a note of what the relay removed itself. `head` is the
    end of the chain that the relay wrote last; a chain that ends before it has lost lines. `keyed_from` is the number
    of its first line with a key; None: a line with a key is followed by such lines only.
    """
    seen = Seen() if seen is None else seen
    before: Position | None = None
    digests: dict[int, str] = {}
    for where, line in lines:
        seen.lines += 1
        problem, position, keyed = _check(line, before, removed, keys, seen)
        if position is not None and not keyed and keyed_from is not None and position.n >= keyed_from:
            problem = problem or "has no key, as lines of older versions: it was written again by somebody else"
        if keyed and keyed_from is None and position is not None:
            keyed_from = position.n
        if problem is not None:
            yield Fault(where, problem)
        # A broken line is reported once: the chain continues from it.
        before = position if position is not None else before
        if position is not None:
            digests[position.n] = position.digest
    if head is not None and head.n and digests.get(head.n) not in {head.digest, ""}:
        yield Fault("the end", f"the relay wrote {counted(head.n, 'line')}; the last of them is missing or another one")


def is_template(provider: str, body: str, device: str = "") -> bool:
    """Return True if a body is one of the fixed templates, to the byte: it is made again from its fields and compared.

    `device` stands in place of the device token in bodies of FCM.
    """
    try:
        document = json.loads(body)
        if provider == Platform.APNS.value:
            notices = _notices(document["relay"])
            return any(body in {ApnsMessage(notice).rendered, former_apns(notice)} for notice in notices)
        if provider == Platform.WEBPUSH.value and "web_push" in document:
            data, page = document["notification"]["data"], _page(document)
            pages = WebAppPages(page, page)
            return any(WebAppMessage(notice, pages).content.decode("ascii") == body for notice in _notices(data))
        if provider == Platform.WEBPUSH.value:
            return any(WebPushMessage(notice).content.decode("ascii") == body for notice in _notices(document))
        return provider == Platform.FCM.value and _is_fcm(document, body, device)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _check(
    line: bytes, before: Position | None, removed: Removal | None, keys: Mapping[str, ChainKey], seen: Seen
) -> tuple[str | None, Position | None, bool]:
    """Return what is wrong with a line, the chain's end after it, and whether it names a key; None: it has none."""
    try:
        position = read_position(line, keys)
    except ValueError:
        return "is no line of an egress log", None, False
    entry: dict[str, Any] = json.loads(line)
    keyed = "key" in entry
    seen.unkeyed += not keyed
    seen.unverified += not position.digest
    if entry.keys() not in (FIELDS, UNKEYED):
        return "has other fields than an egress log", position, keyed
    problem = _break(entry, position, before, removed, keyed=keyed) or _form(entry, line) or _content(entry, seen)
    return problem, position, keyed


def _break(
    entry: Mapping[str, Any], position: Position, before: Position | None, removed: Removal | None, *, keyed: bool
) -> str | None:
    """Return why a line does not follow the one before; None: it does."""
    if before is None:
        if position.n == 1:
            return None if entry["prev"] == START else "is the first line and names one before it"
        if not keyed or (removed is not None and Position(position.n - 1, str(entry["prev"])) == removed.position):
            return None
        return f"is the first one: lines 1 to {position.n - 1} are missing, and the relay did not remove them"
    if before.digest and entry["prev"] != before.digest:
        return f"does not follow line {before.n}: a line was changed, removed, added or moved"
    return None if position.n == before.n + 1 else f"is number {position.n}, not {before.n + 1}"


def _form(entry: Mapping[str, Any], line: bytes) -> str | None:
    """Return why a line is not as the relay writes it, to the byte; None: it is."""
    try:
        at = datetime.fromisoformat(entry["at"]).isoformat(timespec="milliseconds")
        provider, app, device, body = (str(entry[name]) for name in ("provider", "app", "device", "body"))
        before = Position(entry["n"] - 1, str(entry["prev"]))
        same = write_entry(before, at, provider, app, device, body, entry.get("key")) == line
    except (TypeError, ValueError):
        same = False
    if same and DEVICE.fullmatch(str(entry["device"])) and APP.fullmatch(str(entry["app"])):
        return None
    return "is written in another form than the relay's, which may hide something"


def _content(entry: Mapping[str, Any], seen: Seen) -> str | None:
    body = str(entry["body"])
    if not is_template(str(entry["provider"]), body, str(entry["device"])):
        return "has a body that is none of the templates"
    document = json.loads(body)
    registration = _registration(document)
    seen.registrations.add(registration)
    if "web_push" in document:
        seen.pages.add(_page(document))
    if ISSUED_ID.fullmatch(registration):
        return None
    return "names a registration as the relay names none: its id may hide something"


def _registration(document: Mapping[str, Any]) -> str:
    message = document.get("message", document.get("notification", {}))
    data = document.get("relay", message.get("data", document))
    return str(data["registration"])


def _page(document: Mapping[str, Any]) -> str:
    """Return the address that a notification of the web app opens, without what follows a #; raises KeyError."""
    return str(document["notification"]["navigate"]).partition("#")[0]


def _is_fcm(document: Mapping[str, Any], body: str, device: str) -> bool:
    data = document["message"]["data"]
    fields = {**data, "count": int(data["count"])} if "count" in data else dict(data)
    fields["certain"] = "certain" not in data
    to = "fid" if "fid" in document["message"] else "token"
    for notice in _notices(fields):
        message, spared = FcmMessage(notice), FcmMessage(notice, spare=True)
        former = former_fcm(notice)
        for android in (message.android, spared.android, former, former | {"priority": "NORMAL"}):
            made = {"android": android, "data": message.data, to: device}
            if write_fcm({"message": made, "validate_only": False}) == body:
                return True
    return False


def write_fcm(document: Mapping[str, Any]) -> str:
    """Return the body of a push to FCM as pyfcm writes it."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _notices(data: Mapping[str, Any]) -> Iterator[Notice]:
    """Make all notices that have this data; they differ in mode and locale, which the data does not contain."""
    kind = data["kind"]
    mark = Mark(data["class"]) if kind == "new-items" else Mark(kind)
    count, certain = data.get("count") or 1, data.get("certain", True) is True
    cause = Cause(data["reason"]) if kind == "attention" and "reason" in data else None
    nonce = str(data["nonce"]) if kind == "challenge" else ""
    id_ = str(data["id"]) if "id" in data else ""
    if type(count) is not int:  # true and 3.0 are numbers, too, and are written in another way
        return
    for mode, locale in product(Mode, (*TEXTS, OWN_TEXTS)):
        yield Notice(mark, count, certain, RegistrationId(data["registration"]), mode, locale, cause, nonce, id_)
