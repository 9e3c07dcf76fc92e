"""Who may read a secret file: its owner and the groups of this process, and nobody else, however it got here.

Kubernetes mounts a secret as root:GROUP 0440, where GROUP is a group of the process; systemd passes a credential as
root:root 0400 with an ACL entry for the user of the service, whose mask shows as the rights of the group (0440). Both
are closed. A file that is open gets a remedy that its mount and its owner allow.
"""

import grp
import os
import pwd
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

ACL: Final = "system.posix_acl_access"
"""The extended attribute that holds a file's ACL [Linux: include/uapi/linux/posix_acl_xattr.h]."""
_HEADER: Final = struct.Struct("<I")  # its version, 2
_ENTRY: Final = struct.Struct("<HHI")  # tag, rights, id of the user or group
_USER, _GROUP_OF_FILE, _GROUP, _MASK, _OTHER = 0x02, 0x04, 0x08, 0x10, 0x20  # tags
_ALL: Final = 0o7
NEW_KEY: Final = "if others could read it, make a new key."


@dataclass(frozen=True, slots=True)
class Process:
    """The user and the groups with whose rights this process reads files."""

    user: int
    group: int
    groups: frozenset[int]
    """All of them, `group` included."""

    @classmethod
    def present(cls) -> Self:
        """Return those of this process."""
        return cls(os.geteuid(), os.getegid(), frozenset({os.getegid(), *os.getgroups()}))


@dataclass(frozen=True, slots=True)
class Access:
    """What decides who may read a file."""

    owner: int
    group: int
    mode: int
    acl: bytes = b""
    read_only: bool = False
    """Whether its file system is mounted read-only, so that nobody here can change its rights."""

    @classmethod
    def of(cls, file: int | Path) -> Self:
        """Return the access of an open file, or of the file at a path; raises OSError."""
        status, mounted = os.stat(file), os.statvfs(file)  # noqa: PTH116 -- a descriptor has no Path
        try:
            acl = os.getxattr(file, ACL)
        except OSError:  # there is none, or the file system has no ACLs: the mode says all
            acl = b""
        mode = status.st_mode & 0o7777
        return cls(status.st_uid, status.st_gid, mode, acl, bool(mounted.f_flag & os.ST_RDONLY))

    def fault(self, process: Process) -> str | None:
        """Return what is wrong with the rights of a secret file, to follow its path; None: nothing."""
        stranger = self._stranger(process)
        return None if stranger is None else f"is open to others than its owner: {stranger} (mode {self.mode:04o})"

    def remedy(self, path: Path, process: Process) -> str:
        """Return how to close an open file."""
        if self.read_only:
            return f"{_at_its_source()}; {NEW_KEY}"
        if process.user in (self.owner, 0):
            plain = f"setfacl -b {path} && " if self.acl else ""
            return f"Run `{plain}chmod 600 {path}`; {NEW_KEY}"
        return f"Run as root: `{_lend(path, process)}`; {NEW_KEY}"

    def _stranger(self, process: Process) -> str | None:
        """Return who has rights beside the owner and the groups of this process: everybody, or the first one found."""
        mask = next((rights for tag, rights, _ in self._entries() if tag == _MASK), _ALL)
        if any(tag == _OTHER and rights for tag, rights, _ in self._entries()):
            return "everybody on this host"
        for tag, rights, number in self._entries():
            if tag in (_GROUP_OF_FILE, _GROUP) and rights & mask:
                group = self.group if tag == _GROUP_OF_FILE else number
                if group not in process.groups:
                    return f"the group {group_name(group)}, which {user_name(process.user)} is not in"
            if tag == _USER and rights & mask and number not in (self.owner, process.user, 0):
                return f"the user {user_name(number)}"
        return None

    def _entries(self) -> list[tuple[int, int, int]]:
        """Return tag, rights and id of all entries; a file without an ACL has two beside its owner's."""
        if not self.acl:
            return [(_GROUP_OF_FILE, self.mode >> 3 & _ALL, 0), (_OTHER, self.mode & _ALL, 0)]
        return list(_ENTRY.iter_unpack(self.acl[_HEADER.size :]))


def enters(folder: Path) -> bool:
    """Return whether this process may enter a folder."""
    return os.access(folder, os.X_OK, effective_ids=True)


def unreadable(
    path: Path,
    process: Process,
    look: Callable[[Path], Access] = Access.of,
    may_enter: Callable[[Path], bool] = enters,
) -> str:
    """Return what to do about a file that this process may not read.

    That may be a command of an administrator under a login of his own, to whom nobody should lend the relay's secrets.
    """
    let = f"Run the command as the user of the relay. If that is {user_name(process.user)}, let it"
    closed = [folder for folder in path.parents if not may_enter(folder)]
    if closed:
        return f"{let} enter {closed[-1]}, or move the file."
    try:
        access = look(path)
    except OSError:
        return f"{let} read the file."
    if access.read_only:
        return f"{_at_its_source()}."
    return f"{let} read the file. Run as root: `{_lend(path, process)}`."


def user_name(number: int) -> str:
    """Return the name of a user, or the number where nobody has a name for it, as in containers."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def group_name(number: int) -> str:
    """Return the name of a group, or its number."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _lend(path: Path, process: Process) -> str:
    """Return the command that lets this process read another user's file, and nobody else."""
    return f"chgrp {group_name(process.group)} {path} && chmod 640 {path}"


def _at_its_source() -> str:
    return (
        "Its file system is read-only: set the rights where it is mounted from, in Kubernetes defaultMode 0440 with a "
        "fsGroup, elsewhere mode 0600 and the relay's user as owner"
    )
