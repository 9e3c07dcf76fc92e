"""The sealing keys of a role: from files, from systemd's credentials, or from variables of the environment."""

import base64
import binascii
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from relay.domain.model import Role
from relay.domain.sealing_keys import KeyOrigin, KeySource
from relay.security.sealing import SealingPrivateKey, SealingPublicKey, read_private
from relay.settings.contents import missing, nothing_at
from relay.settings.files import Files
from relay.settings.sections import SealingSection
from relay.settings.servers import KNOWS_PASSWORDS
from relay.settings.source import PREFIX
from relay.settings.values import SealingSettings

PRIVATE_KEY: Final = "sealing-private.pem"
PUBLIC_KEY: Final = "sealing-public.pem"
PRIVATE: Final = "sealing.private_key_file"
PUBLIC: Final = "sealing.public_key_file"
FORMER: Final = "sealing.former_private_key_files"
VARIABLE: Final = "environment:"
"""What begins the name of a variable of the environment in a setting that otherwise names a file."""
KEYGEN: Final = "Run `relay keygen`, or restore the key from your backup: credentials sealed to it open with no other."
THEN: Final = "Give the file that `relay keygen` or `relay keys new` made then."
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
_ID: Final = "[0-9a-f]" * 16
_UNFINISHED: Final = "Run `relay keys rotate` once more, or put the public key of that pair in its place."


def beside(file: Path) -> tuple[Path, str]:
    """Return the folder of a key file and the pattern of the names of other keys beside it, e.g. NAME-ID.pem."""
    return file.parent, f"{_escaped(file.stem)}-{_ID}{_escaped(file.suffix)}"


def name_beside(file: Path, key: str) -> Path:
    """Return where a key with this id is beside the file of the present one."""
    return file.with_name(f"{file.stem}-{key}{file.suffix}")


def neighbours(file: Path) -> list[Path]:
    """Return the files of other keys beside the file of the present one, which need not exist."""
    folder, pattern = beside(file)
    try:
        return sorted(folder.glob(pattern))
    except (OSError, ValueError):
        return []


def _escaped(name: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", name)


def key_files(files: Files, state_dir: Path, sealing: SealingSection) -> tuple[Path, Path]:
    """Return the paths of the sealing keys, private first; that of a key in a variable is where it would be a file."""
    private, public = sealing.private_key_file, sealing.public_key_file
    return (
        state_dir / PRIVATE_KEY if private is None or private.startswith(VARIABLE) else files.path(private),
        state_dir / PUBLIC_KEY if public is None else files.path(public),
    )


class SealingChecks:
    """Reads the sealing keys of a role; faults go to `files.faults`."""

    def __init__(self, files: Files, section: SealingSection, state_dir: Path) -> None:
        """Take what [sealing] says."""
        self._files = files
        self._section = section
        self.private_file, self.public_file = key_files(files, state_dir, section)
        self.in_variable = (section.private_key_file or "").startswith(VARIABLE)
        """Whether the private key is in a variable of the environment, so that no file has it."""
        self._sources: dict[str, KeySource] = {}

    def settings(self, role: Role, *, first: bool, values: dict[str, object]) -> SealingSettings:
        """Return the keys of a role; the `first` start makes them. The ids of all go to `values`.

        An api process has only the public key. Elsewhere it must belong to a private one.
        """
        if first and not self.in_variable and nothing_at(self.private_file) and nothing_at(self.public_file):
            return SealingSettings(self.private_file, self.public_file)
        private = self._private() if role in KNOWS_PASSWORDS else None
        public = None if private is None else private.public_key()
        if role is Role.API or (
            role in KNOWS_PASSWORDS and (self._section.public_key_file is not None or not missing(self.public_file))
        ):
            written = self._public()
            if private is not None and written is not None:
                self._compare(private, written)
            public = public or written
        values[FORMER] = sorted(self._sources)  # one may come or go with a file that no setting names
        sources = tuple(self._sources.values())
        return SealingSettings(self.private_file, self.public_file, private, public, sources)

    def opening(self) -> dict[str, X25519PrivateKey]:
        """Return the keys besides the present one, by their ids: those of `former_private_key_files`, and beside it."""
        found: dict[str, X25519PrivateKey] = {}
        named = [(FORMER, name) for name in self._section.former_private_key_files]
        present = [] if self.in_variable else [(PRIVATE, str(path)) for path in neighbours(self.private_file)]
        for setting, name in (*named, *present):
            key = self._read(setting, name, THEN)
            if key is not None:
                found.setdefault(SealingPublicKey(key.public_key()).name, key)
        return found

    def _private(self) -> SealingPrivateKey | None:
        present = self._read(PRIVATE, self._section.private_key_file or str(self.private_file), KEYGEN)
        others = self.opening()
        return None if present is None else SealingPrivateKey(present, list(others.values()))

    def _read(self, setting: str, name: str, remedy: str) -> X25519PrivateKey | None:
        """Return the private key in a file, credential or variable; note where it is from."""
        if name.startswith(VARIABLE):
            where, origin, made_at = name, KeyOrigin.ENVIRONMENT, None
            pem = self._variable(setting, name.removeprefix(VARIABLE))
        else:
            path = self._files.path(name)
            where, made_at = str(path), _changed_at(path)
            origin = KeyOrigin.CREDENTIAL if path.is_relative_to(self._files.credentials) else KeyOrigin.FILE
            pem = self._files.pem(setting, path, secret=True, remedy=remedy)
        if pem is None:
            return None
        try:
            key = read_private(pem)
        except ValueError:
            self._files.faults.add(setting, f"{where} holds no X25519 private key", remedy)
            return None
        id_ = SealingPublicKey(key.public_key()).name
        self._sources.setdefault(id_, KeySource(id_, origin, where, made_at))
        return key

    def _variable(self, setting: str, name: str) -> bytes | None:
        """Return the PEM text in a variable, which may be in base64; None if there is none, which is reported."""
        add = self._files.faults.add
        if not _NAME.fullmatch(name) or name.upper().startswith(PREFIX):
            remedy = f"Write {VARIABLE}NAME with the name of a variable that does not begin with {PREFIX}."
            add(setting, "names no variable for a key", remedy)
            return None
        text = self._files.environ.get(name, "").strip()
        if not text:
            add(setting, f"names the variable {name}, which is empty or not set", "Set it to the PEM text of the key.")
            return None
        if text.startswith("-----BEGIN"):
            return text.encode()
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            remedy = "Set it to the PEM text of the key, as it is or in base64 on one line."
            add(setting, f"names the variable {name}, which holds neither PEM nor base64", remedy)
            return None

    def _public(self) -> SealingPublicKey | None:
        pem = self._files.pem(PUBLIC, self.public_file, secret=False, remedy=KEYGEN)
        if pem is None:
            return None
        try:
            return SealingPublicKey.read(pem)
        except ValueError:
            self._files.faults.add(PUBLIC, f"{self.public_file} holds no X25519 public key", KEYGEN)
            return None

    def _compare(self, private: SealingPrivateKey, written: SealingPublicKey) -> None:
        present = private.public_key()
        if written.raw == present.raw:
            return
        if written.id in private.ids:
            noted = f"{self.public_file} belongs to another key than the present one, {present.name}"
            self._files.faults.warn(PUBLIC, noted, _UNFINISHED)
        else:
            wrong = f"{self.public_file} does not belong to {self._sources[present.name].where}"
            self._files.faults.add(PUBLIC, wrong, "Give the two keys that `relay keygen` made together.")


def _changed_at(path: Path) -> datetime | None:
    """Return when a file was written last; None if that is unknown."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError):
        return None
