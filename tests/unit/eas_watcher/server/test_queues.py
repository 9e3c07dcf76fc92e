"""Tests of who waits for a turn at a mail server."""

from collections import deque

import pytest

from eas_watcher.server.queues import LAST_TRY, Queues, Waiting

pytestmark = pytest.mark.looptime


def watch(queues: Queues) -> Waiting:
    return queues.join(candidate=False, impatient=False)


def candidate(queues: Queues) -> Waiting:
    return queues.join(candidate=True, impatient=False)


def refused(queues: Queues, refusals: int) -> Waiting:
    return queues.hold_back(refusals, candidate=False, impatient=False)


def let_through(queues: Queues, clients: list[Waiting], *, probe: bool = False) -> list[int]:
    """Let all through that wait; return their places in a list of clients, in order."""
    order: list[int] = []
    while (queue := queues.next_queue(probe=probe)) is not None:
        order.append(clients.index(queue[0]))
        queues.let_through(queue, "returns")
    return order


async def test_watches_and_candidates_pass_in_turns() -> None:
    queues = Queues()
    clients = [watch(queues), watch(queues), watch(queues), candidate(queues), candidate(queues)]

    assert (queues.watches, queues.candidates) == (3, 2)
    assert let_through(queues, clients) == [0, 3, 1, 4, 2]
    assert [await client for client in clients] == ["returns"] * 5


async def test_a_watch_probes_before_a_candidate_whose_turn_it_is() -> None:
    queues = Queues()
    clients = [watch(queues), watch(queues), candidate(queues)]

    assert let_through(queues, clients, probe=True) == [0, 1, 2]


async def test_those_that_gave_up_are_passed_over_and_not_counted() -> None:
    queues = Queues()
    clients = [watch(queues), watch(queues), candidate(queues)]
    clients[0].cancel()
    clients[2].cancel()

    assert (queues.watches, queues.watches_at_most, queues.candidates) == (1, 2, 0)
    assert let_through(queues, clients) == [1]
    assert queues.watches_at_most == 0


async def test_refused_mailboxes_with_tries_left_come_before_those_at_their_last() -> None:
    queues = Queues()
    last, first, other = refused(queues, LAST_TRY), refused(queues, 1), refused(queues, LAST_TRY + 4)

    order = []
    while (queue := queues.first_refused()) is not None:
        order.append(queue[0])
        queues.let_through(queue, "confirms")

    assert order == [first, last, other]
    assert await first == "confirms"


async def test_a_confirmation_changes_nothing_of_whose_turn_is_next() -> None:
    queues = Queues()
    clients = [watch(queues), watch(queues), candidate(queues)]
    confirms = refused(queues, 1)
    queues.let_through(queues.next_queue(probe=False) or deque(), "returns")

    queues.let_through(queues.first_refused() or deque(), "confirms")

    assert confirms.result() == "confirms"
    assert let_through(queues, clients) == [2, 1]


async def test_those_held_back_wait_for_their_turn_once_they_are_freed() -> None:
    queues = Queues()
    waits, suspended = refused(queues, 1), queues.hold_back(0, candidate=True, impatient=False)
    assert (queues.held_back, queues.has_suspended, queues.next_queue(probe=False)) == (2, True, None)

    queues.free_all()

    assert (queues.held_back, queues.has_suspended, queues.first_refused()) == (0, False, None)
    assert let_through(queues, [waits, suspended]) == [0, 1]


async def test_suspended_candidates_are_freed_without_the_refused_mailboxes() -> None:
    queues = Queues()
    refused(queues, 1)
    suspended = queues.hold_back(0, candidate=True, impatient=False)

    queues.free_suspended()

    assert (queues.held_back, queues.candidates) == (1, 1)
    assert let_through(queues, [suspended]) == [0]


async def test_only_suspended_candidates_that_still_wait_are_seen() -> None:
    queues = Queues()
    queues.hold_back(0, candidate=True, impatient=False).cancel()

    assert not queues.has_suspended


async def test_the_impatient_are_dismissed_wherever_they_wait() -> None:
    queues = Queues()
    patient, gone = watch(queues), queues.join(candidate=True, impatient=True)
    waits, held_back = (
        queues.join(candidate=False, impatient=True),
        queues.hold_back(1, candidate=False, impatient=True),
    )
    queues.leave(gone)

    queues.dismiss(lambda: OSError("away"))

    assert [client.done() for client in (patient, gone, waits, held_back)] == [False, False, True, True]
    for client in (waits, held_back):
        with pytest.raises(OSError, match="away"):
            await client


async def test_one_that_was_let_through_is_not_dismissed() -> None:
    queues = Queues()
    client = queues.join(candidate=False, impatient=True)
    let_through(queues, [client])

    queues.dismiss(lambda: OSError("away"))

    assert client.result() == "returns"
