import os
import struct
from pathlib import Path

import pytest

from relay.security.secret_files import ACL, Access, Process, group_name, unreadable, user_name

RELAY = Process(10001, 10001, frozenset({10001, 2000}))
LET = "Run the command as the user of the relay. If that is 10001, let it"
ANN, NOBODYS = 1234, 0xFFFFFFFF
PATH = Path("/etc/push-relay/apns.p8")


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL as Linux stores it: entries of tag, rights, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def lent_to(*users: int, group: tuple[int, int] = (0x04, 0), others: int = 0, mask: int = 4) -> Access:
    """Return the access of root's file with an entry for each user, as systemd makes for a credential."""
    tag, rights = group
    named = [(0x02, 4, user) for user in users]
    rest = [(0x04, 0, NOBODYS)] if tag == 0x08 else []
    group_id = 3000 if tag == 0x08 else NOBODYS
    entries = [
        (0x01, 4, NOBODYS),
        *named,
        *rest,
        (tag, rights, group_id),
        (0x10, mask, NOBODYS),
        (0x20, others, NOBODYS),
    ]
    return Access(0, 0, 0o400 | mask << 3 | others, acl(*entries))


@pytest.mark.parametrize(
    "access",
    [
        Access(10001, 10001, 0o600),
        Access(10001, 10001, 0o640),
        Access(0, 10001, 0o440),  # Kubernetes: fsGroup is the group of the process
        Access(0, 2000, 0o440),  # Kubernetes: fsGroup is one more group
        Access(10001, 2000, 0o660),  # Kubernetes: the same on a volume that can be written
        Access(1234, 10001, 0o640),
        lent_to(10001),  # systemd: LoadCredential
        lent_to(10001, 0),
    ],
)
def test_a_secret_that_its_owner_and_our_groups_may_read_is_closed(access: Access) -> None:
    assert access.fault(RELAY) is None


@pytest.mark.parametrize(
    ("access", "stranger"),
    [
        (Access(10001, 10001, 0o604), "everybody on this host (mode 0604)"),
        (Access(0, 0, 0o444), "everybody on this host (mode 0444)"),
        (Access(0, 10001, 0o444), "everybody on this host (mode 0444)"),
        (Access(10001, 10001, 0o601), "everybody on this host (mode 0601)"),
        (Access(10001, 54321, 0o640), "the group 54321, which 10001 is not in (mode 0640)"),
        (Access(0, 0, 0o440), f"the group {group_name(0)}, which 10001 is not in (mode 0440)"),
        (lent_to(10001, ANN), "the user 1234 (mode 0440)"),
        (lent_to(10001, group=(0x04, 4)), f"the group {group_name(0)}, which 10001 is not in (mode 0440)"),
        (lent_to(10001, group=(0x08, 4)), "the group 3000, which 10001 is not in (mode 0440)"),
        (lent_to(10001, others=4), "everybody on this host (mode 0444)"),
    ],
)
def test_a_secret_that_anybody_else_may_read_is_open_and_says_to_whom(access: Access, stranger: str) -> None:
    assert access.fault(RELAY) == f"is open to others than its owner: {stranger}"


def test_the_mask_of_an_acl_takes_rights_away() -> None:
    assert lent_to(10001, ANN, mask=0).fault(RELAY) is None


@pytest.mark.parametrize(
    ("access", "remedy"),
    [
        (Access(10001, 10001, 0o644), "Run `chmod 600 /etc/push-relay/apns.p8`; "),
        (Access(10001, 0, 0o440, acl((0x20, 4, 0))), "Run `setfacl -b /etc/push-relay/apns.p8 && chmod 600 "),
        (Access(0, 0, 0o644), "Run as root: `chgrp 10001 /etc/push-relay/apns.p8 && chmod 640 "),
        (Access(0, 0, 0o644, read_only=True), "Its file system is read-only: set the rights where it is mounted from"),
    ],
)
def test_the_remedy_is_one_that_owner_and_mount_allow(access: Access, remedy: str) -> None:
    text = access.remedy(PATH, RELAY)

    assert text.startswith(remedy)
    assert text.endswith("if others could read it, make a new key.")


def test_root_closes_the_files_of_others() -> None:
    assert Access(10001, 10001, 0o644).remedy(PATH, Process(0, 0, frozenset({0}))).startswith("Run `chmod 600 ")


def test_the_access_of_a_file_is_read_with_its_acl(tmp_path: Path) -> None:
    path = tmp_path / "apns.p8"
    path.touch(mode=0o400)
    plain = Access.of(path)
    assert (plain.owner, plain.mode, plain.acl, plain.read_only) == (os.geteuid(), 0o400, b"", False)
    entries = acl((0x01, 4, NOBODYS), (0x02, 4, ANN), (0x04, 0, NOBODYS), (0x10, 4, NOBODYS), (0x20, 0, NOBODYS))
    try:
        os.setxattr(path, ACL, entries)
    except OSError:
        pytest.skip("this file system has no ACLs")

    with path.open() as file:
        lent = Access.of(file.fileno())

    assert (lent.mode, lent.acl) == (0o440, entries)
    assert lent.fault(Process.present()) == "is open to others than its owner: the user 1234 (mode 0440)"


def test_a_file_that_this_process_may_not_read_is_lent_to_its_group(tmp_path: Path) -> None:
    path = tmp_path / "apns.p8"
    path.touch(mode=0o400)

    lent = f"`chgrp 10001 {path} && chmod 640 {path}`"
    assert unreadable(path, RELAY) == f"{LET} read the file. Run as root: {lent}."


def test_a_file_that_cannot_even_be_seen_gets_no_command(tmp_path: Path) -> None:
    assert unreadable(tmp_path / "gone", RELAY) == f"{LET} read the file."


def test_a_file_on_a_read_only_mount_is_lent_where_it_is_mounted_from() -> None:
    remedy = unreadable(PATH, RELAY, lambda _: Access(0, 0, 0o400, read_only=True), lambda _: True)

    assert remedy.startswith("Its file system is read-only: set the rights where it is mounted from")


def test_the_outermost_folder_that_this_process_may_not_enter_is_named() -> None:
    closed = {PATH.parent, Path("/etc")}

    remedy = unreadable(PATH, RELAY, may_enter=lambda folder: folder not in closed)

    assert remedy == f"{LET} enter /etc, or move the file."


def test_users_and_groups_have_names_where_the_host_knows_them() -> None:
    assert (user_name(0), user_name(54321)) == ("root", "54321")
    assert (group_name(0), group_name(54321)) == ("root", "54321")
