"""What the relay keeps of its egress log outside of the log's folder: the keys of the chain, and the end of each chain.

Anyone who can write to the folder alone can then neither chain other lines nor hide that the last ones are gone.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Final, Self

from relay.push.egress.record import ChainKey, Position, Removal

KEY_FILE: Final = "egress.key"
"""The file of the keys in the state folder: one key a line, 64 hex digits, the newest first."""
PRIVATE: Final = 0o600
FOLDER: Final = 0o700
SECRET: Final = 32  # bytes of a key


class KeyUnreadable(OSError):
    """The file holds no keys of an egress log."""


def read_keys(path: Path) -> list[ChainKey]:
    """Read the keys, the newest first; raises KeyUnreadable, OSError."""
    try:
        found = [bytes.fromhex(line) for line in path.read_text(encoding="ascii").split()]
    except ValueError as error:
        raise KeyUnreadable(f"{path} holds no keys of an egress log: one a line, 64 hex digits") from error
    if not found or any(len(secret) != SECRET for secret in found):
        raise KeyUnreadable(f"{path} holds no keys of an egress log: one a line, 64 hex digits")
    return [ChainKey(secret) for secret in found]


def open_keys(path: Path) -> list[ChainKey]:
    """Read the keys, or make the first one; raises KeyUnreadable, OSError."""
    if not path.exists():
        add_key(path)
    return read_keys(path)


def add_key(path: Path) -> ChainKey:
    """Make a new key, which is in use from the next start on; older ones stay, to verify what they chained.

    Raises KeyUnreadable, OSError.
    """
    older = read_keys(path) if path.exists() else []
    new = ChainKey(secrets.token_bytes(SECRET))
    write_private(path, "".join(f"{key.secret.hex()}\n" for key in (new, *older)).encode())
    return new


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, at once and whole; raises OSError.

    Root writes it for the owner of the folder: a command of root's must leave no file that the relay cannot read.
    """
    path.parent.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    descriptor, fresh = mkstemp(prefix=path.name, dir=path.parent)  # for its owner only
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.fchown(descriptor, folder.st_uid, folder.st_gid)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(fresh).replace(path)
    except OSError:
        Path(fresh).unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class Incident:
    """A change of the log by somebody else."""

    at: str
    """When the relay noticed, in ISO 8601."""
    what: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the relay remembers of one chain."""

    end: Position
    keyed_from: int | None = None
    """The number of the first line with a key; None: there is none."""
    incident: Incident | None = None
    """The last change of the log by somebody else; None: none was noticed."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read an anchor; None: there is none. Raises ValueError for a file that is none, OSError."""
        if not path.exists():
            return None
        try:
            held = json.loads(path.read_text(encoding="ascii"))
            found, keyed_from = held.get("incident"), held.get("keyed_from")
            incident = None if found is None else Incident(str(found["at"]), str(found["what"]))
            number = None if keyed_from is None else int(keyed_from)
            return cls(Position(int(held["n"]), str(held["hash"])), number, incident)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no anchor of an egress log") from error

    def write(self, path: Path) -> None:
        """Write the anchor; raises OSError."""
        held: dict[str, object] = {"n": self.end.n, "hash": self.end.digest, "keyed_from": self.keyed_from}
        if self.incident is not None:
            held["incident"] = {"at": self.incident.at, "what": self.incident.what}
        write_private(path, json.dumps(held).encode())


def anchor_file(state: Path, chain: str) -> Path:
    """Return the file of a chain's anchor in the state folder."""
    return state / f"{chain}.anchor"


def removal_file(folder: Path, chain: str) -> Path:
    """Return the file, beside those of the log, of the note about what the relay removed of a chain."""
    return folder / f"{chain}.removed"


def write_removal(path: Path, chain: str, removal: Removal, key: ChainKey) -> None:
    """Write the signed note of what was removed; raises OSError."""
    position = removal.position
    held = {"n": position.n, "hash": position.digest, "at": removal.at, "key": key.id, "mac": removal.sign(chain, key)}
    write_private(path, json.dumps(held).encode())


def read_removal(path: Path, chain: str, keys: Mapping[str, ChainKey]) -> Removal | None:
    """Read the note of what was removed; None: there is none. Raises ValueError for one that the relay did not sign."""
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="ascii"))
        removal = Removal(Position(int(held["n"]), str(held["hash"])), str(held["at"]))
        key, mac = keys.get(held["key"]), str(held["mac"])
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no note of an egress log") from error
    if key is None or not secrets.compare_digest(removal.sign(chain, key), mac):
        raise ValueError(f"{path} is not signed with a key of this log")
    return removal
