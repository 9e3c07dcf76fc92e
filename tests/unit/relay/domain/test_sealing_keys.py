"""Which processes have which sealing keys."""

from relay.domain.model import Role
from relay.domain.sealing_keys import KeyHolder, named, without


def holder(node: str, role: Role, *opens: str, leased: bool = True) -> KeyHolder:
    return KeyHolder(node, role, frozenset(opens), "a", leased=leased)


def test_the_processes_that_watch_must_open_a_key_and_those_that_only_register_need_not() -> None:
    holders = [
        holder("watch-2", Role.WATCH, "a"),
        holder("watch-1", Role.WATCH, "a", "b"),
        holder("all-1", Role.ALL),
        holder("api-1", Role.API),
    ]

    assert [each.node for each in without(holders, "b")] == ["all-1", "watch-2"]
    assert without(holders[1:2], "b") == ()


def test_roles_say_what_a_process_does_with_its_keys() -> None:
    assert [holder("x", role).watches for role in (Role.ALL, Role.WATCH, Role.API)] == [True, True, False]
    assert [holder("x", role).registers for role in (Role.ALL, Role.WATCH, Role.API)] == [True, False, True]


def test_processes_with_a_lease_and_those_without_one_are_named_apart() -> None:
    holders = [holder("b", Role.WATCH), holder("c", Role.WATCH, leased=False), holder("a", Role.WATCH)]

    assert named(holders, leased=True) == "a, b"
    assert named(holders, leased=False) == "c"
