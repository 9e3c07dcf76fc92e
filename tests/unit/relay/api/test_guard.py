from collections import Counter

import pytest

from relay.api import guard as guards
from relay.api.guard import Guard
from relay.domain.model import RegistrationId
from relay.registration.errors import Busy, TooManyRegistrations, TooManyRequests
from relay.registration.secret import Access

ANN = Access(RegistrationId("ann"), "secret-of-ann")
GUESS = Access(RegistrationId("ann"), "a guess")
NAT = "192.0.2.1"


class Seconds:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(guard: Guard, client: str, access: Access | None = None, *, registers: bool = False) -> int:
    """Ask until the guard refuses; return how often it did not."""
    count = 0
    while count < 100_000:
        try:
            guard.admit(client, access, registers=registers)
        except (TooManyRequests, Busy):
            return count
        count += 1
    return count


@pytest.mark.parametrize("access", [None, GUESS])
def test_requests_without_the_secret_are_limited_for_each_client(access: Access | None) -> None:
    refused = Counter[str]()
    guard = Guard(10, 2, Seconds(), refused)

    assert admitted(guard, NAT, access) == 10
    assert admitted(guard, "192.0.2.2", access) == 10
    assert refused == {"too-many-requests": 2}


def test_new_registrations_have_a_narrower_limit() -> None:
    guard = Guard(10, 2, Seconds())

    assert admitted(guard, NAT, registers=True) == 2
    assert admitted(guard, NAT) == 7


def test_a_registration_that_showed_its_secret_gets_through_beside_strangers_at_its_address() -> None:
    guard = Guard(10, 2, Seconds())
    guard.opened(ANN)
    admitted(guard, NAT)

    assert admitted(guard, NAT, GUESS) == 0
    assert admitted(guard, NAT, ANN) == guards.ONE


def test_all_strangers_together_leave_time_to_pushes() -> None:
    refused = Counter[str]()
    guard = Guard(40, 2, seconds := Seconds(), refused)
    guard.opened(ANN)

    assert sum(admitted(guard, f"192.0.2.{number}") for number in range(5)) == guards.AT_ONCE
    with pytest.raises(Busy):
        guard.admit("192.0.2.200", None, registers=False)
    guard.admit(NAT, ANN, registers=False)
    seconds.now += 1.5 * 60 / guards.STRANGERS
    guard.admit("192.0.2.200", None, registers=False)
    assert refused["busy"] == 5


def test_registrations_whose_credential_was_accepted_leave_the_share_of_strangers_to_others() -> None:
    guard = Guard(1000, 1000, Seconds())
    for _ in range(int(3 * guards.AT_ONCE)):
        guard.admit(NAT, None, registers=True)
        guard.proved()

    assert admitted(guard, "192.0.2.2") == guards.AT_ONCE


def test_no_accepted_credential_makes_the_share_of_strangers_larger() -> None:
    guard = Guard(1000, 1000, Seconds())
    for _ in range(3):
        guard.proved()

    assert admitted(guard, NAT) == guards.AT_ONCE


def test_files_take_nothing_from_the_share_of_strangers_and_have_limits_of_their_own() -> None:
    refused = Counter[str]()
    guard = Guard(1000, 2, seconds := Seconds(), refused)
    for number in range(int(guards.FILES_AT_ONCE)):
        guard.admit_file(f"192.0.2.{number % 250}")
    with pytest.raises(Busy):
        guard.admit_file(NAT)

    assert admitted(guard, NAT) == guards.AT_ONCE
    seconds.now += 1.5 * 60 / guards.FILES
    guard.admit_file(NAT)
    assert refused == {"busy": 2}


def test_one_client_does_not_take_the_files_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "FILES_OF_ONE", 3.0)
    refused = Counter[str]()
    guard = Guard(1000, 2, Seconds(), refused)
    for _ in range(3):
        guard.admit_file(NAT)
    with pytest.raises(TooManyRequests):
        guard.admit_file(NAT)

    guard.admit_file("192.0.2.2")
    assert refused == {"too-many-requests": 1}


def test_the_memory_of_secrets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "KNOWN", 2)
    guard = Guard(1, 1, Seconds())
    for name in ("ann", "ben", "ann", "cay"):
        guard.opened(Access(RegistrationId(name), "secret"))
    admitted(guard, NAT)

    assert admitted(guard, NAT, Access(RegistrationId("ben"), "secret")) == 0
    assert admitted(guard, NAT, Access(RegistrationId("ann"), "secret")) == guards.ONE


def test_a_gate_lets_so_many_in_and_refuses_the_next_at_once() -> None:
    refused = Counter[str]()
    gate = Guard(1, 1, Seconds(), refused).gate(1)
    with gate.passing(), pytest.raises(Busy), gate.passing():
        pass
    with pytest.raises(ZeroDivisionError), gate.passing():
        raise ZeroDivisionError

    with gate.passing():
        pass
    assert refused == {"busy": 1}


def test_each_limit_counts_its_refusals_under_its_own_code() -> None:
    refused = Counter[str]()
    guard = Guard(3, 1, Seconds(), refused)
    guard.opened(ANN)
    admitted(guard, NAT, registers=True)
    admitted(guard, NAT)
    admitted(guard, NAT, ANN)

    assert refused == {"too-many-registrations": 1, "too-many-requests": 1, "too-many-for-registration": 1}


def test_the_allowances_are_those_of_the_limits_that_count_a_request() -> None:
    guard = Guard(10, 2, Seconds())
    guard.opened(ANN)
    guard.admit(NAT, None, registers=True)

    def names(access: Access | None, *, registers: bool = False) -> dict[str, int]:
        return {each.name: each.left for each in guard.allowances(NAT, access, registers=registers)}

    assert names(None) == {"address": 9}
    assert names(GUESS) == {"address": 9}
    assert names(None, registers=True) == {"address": 9, "registrations": 1}
    assert names(ANN) == {"registration": 60}


def test_another_limit_of_clients_holds_for_the_next_request() -> None:
    guard = Guard(1000, 1, Seconds())
    guard.allow(1000, 2)

    guard.admit("192.0.2.1", None, registers=True)
    guard.admit("192.0.2.1", None, registers=True)
    with pytest.raises(TooManyRegistrations):
        guard.admit("192.0.2.1", None, registers=True)
