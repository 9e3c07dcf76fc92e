"""What administrators see of sealing keys: where each is, what is sealed for it, who has it; and what may be done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from relay.domain.sealing_keys import KeyHolder, KeySource, named, without

Json = dict[str, object]
Counts = Mapping[bytes, tuple[int, int]]
"""How many credentials and candidates there are, by the first bytes of their seals."""
OLD_FORM: Final = b"\x01"
OLD: Final = "older-version"
"""Stands for the key of seals of the old form, which do not name it."""


class KeyState(StrEnum):
    """What a key is to this host."""

    PRESENT = "present"
    """What this host seals with."""
    OPENS = "opens"
    """This host opens with it, and seals with another one."""
    ELSEWHERE = "elsewhere"
    """Other processes have it; this host does not."""
    MISSING = "missing"
    """Something is sealed for it, and no process that runs has it, nor has this host."""


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A sealing key that somebody has, or that something is sealed for."""

    id: str
    state: KeyState
    source: KeySource | None
    """Where its private half is on this host; None: it is not here."""
    credentials: int | None
    """How many stored credentials are sealed for it; None: the database user may not count them."""
    candidates: int | None
    """How many credentials that wait for their check are."""
    opened_by: tuple[str, ...]
    """The processes that open with it."""
    sealed_by: tuple[str, ...]
    """The processes that seal with it."""

    @property
    def records(self) -> int | None:
        """Everything that is sealed for it."""
        return None if self.credentials is None else self.credentials + (self.candidates or 0)


def survey(
    sources: Sequence[KeySource], present: str, counts: Counts | None, holders: Sequence[KeyHolder]
) -> tuple[ShownKey, ...]:
    """Return all keys, the present one of this host first; `counts` is None if they may not be read."""
    here = {each.id: each for each in sources}
    sealed: dict[str, tuple[int, int]] = {}
    for head, (credentials, candidates) in (counts or {}).items():
        name = OLD if head[:1] == OLD_FORM else head[1:].hex()
        before = sealed.get(name, (0, 0))
        sealed[name] = (before[0] + credentials, before[1] + candidates)
    others = {key for each in holders for key in (*each.opens, each.seals) if key}
    names = dict.fromkeys((present, *here, *sorted(others), *sorted(sealed)))
    return tuple(
        ShownKey(
            name,
            _state(name, present, here, others),
            here.get(name),
            None if counts is None else sealed.get(name, (0, 0))[0],
            None if counts is None else sealed.get(name, (0, 0))[1],
            tuple(each.node for each in holders if name in each.opens),
            tuple(each.node for each in holders if name == each.seals),
        )
        for name in names
    )


def _state(name: str, present: str, here: Mapping[str, KeySource], others: set[str]) -> KeyState:
    if name == present:
        return KeyState.PRESENT
    if name in here:
        return KeyState.OPENS
    return KeyState.ELSEWHERE if name in others or name == OLD else KeyState.MISSING


def left_to_do(keys: Sequence[ShownKey], holders: Sequence[KeyHolder]) -> list[str]:
    """Return in words what is wrong or unfinished with the keys, and what to do."""
    present = keys[0]
    found = [
        f"{key.records} records are sealed for {key.id}, which no process has: restore that key from your backup, "
        "beside the present one, or their users must log in again"
        for key in keys
        if key.state is KeyState.MISSING and key.records
    ]
    lacking = without(holders, present.id)
    if names := named(lacking, leased=True):
        found.append(
            f"{names} cannot open {present.id}: put its private key beside the present one there; until "
            "then nothing is sealed for it"
        )
    if names := named(lacking, leased=False):
        found.append(
            f"{names} cannot open {present.id}, and starts or has ended without a word: look again in a minute or two"
        )
    found += [
        f"{each.node} seals with {each.seals}, this host with {present.id}: rotate the older one, on an api host by "
        "putting the public key of the newer one in its place"
        for each in holders
        if each.leased and each.seals not in {"", present.id}
    ]
    found += [
        f"{key.records} records are still sealed for {key.id}: the watch role seals them again"
        for key in keys[1:]
        if key.state is KeyState.OPENS and key.records
    ]
    return found


def rotatable(keys: Sequence[ShownKey], wanted: str | None) -> ShownKey | str:
    """Return the key that is to become the present one; if it is not clear which, return in words what to do."""
    present = keys[0]
    if wanted is not None:
        found = [key for key in keys if key.id == wanted]
        if not found or (found[0].source is None and found[0] is not present):
            return f"this host has no private key {wanted}: `relay keys list` shows those that it has"
        return found[0]
    newer = [key for key in keys[1:] if key.source is not None and _is_newer(key, present)]
    if len(newer) == 1:
        return newer[0]
    if newer:
        names = ", ".join(key.id for key in newer)
        return f"several keys are newer than the present one: name one of {names}"
    return "no key is newer than the present one: make one with `relay keys new`, or name one"


def _is_newer(key: ShownKey, present: ShownKey) -> bool:
    made, before = _made_at(key), _made_at(present)
    return made is not None and before is not None and made > before


def _made_at(key: ShownKey) -> datetime | None:
    return None if key.source is None else key.source.made_at


def in_use(keys: Sequence[ShownKey], wanted: str) -> str | None:
    """Return why a key cannot be taken out of use, and what to do; None: it can."""
    key = next((each for each in keys if each.id == wanted), None)
    if key is None or key.source is None:
        return f"this host has no private key {wanted}: `relay keys list` shows those that it has"
    if key.state is KeyState.PRESENT:
        return f"{wanted} is the present key: make another one present with `relay keys new` and `relay keys rotate`"
    if key.sealed_by:
        return f"{', '.join(key.sealed_by)} still seals with {wanted}: `relay keys list` says what to do there"
    if key.records is None:
        return "this database user may not count what is sealed for a key: use that of the watch role"
    if key.records:
        return (
            f"{key.credentials} credentials and {key.candidates} that wait for their check are sealed for {wanted}: "
            "wait until the watch role has sealed them again, `relay keys list` counts them"
        )
    return None


def document(key: ShownKey) -> Json:
    """Return a key as JSON."""
    source = key.source
    made = _made_at(key)
    return {
        "id": key.id,
        "state": key.state.value,
        "origin": None if source is None else source.origin.value,
        "where": None if source is None else source.where,
        "made_at": None if made is None else made.isoformat(timespec="seconds"),
        "credentials": key.credentials,
        "candidates": key.candidates,
        "opened_by": list(key.opened_by),
        "sealed_by": list(key.sealed_by),
    }
