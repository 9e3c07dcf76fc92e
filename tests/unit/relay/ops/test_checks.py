from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trustme

from eas_watcher.machine.memory import WatchState
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.reasons import Reason
from relay.domain.ports.ops import RefusedLogins
from relay.domain.reasons import REASONS, Concern, row_of
from relay.ops import checks
from relay.ops.counts import CountsCache
from relay.ops.health import OK, PartState
from relay.ops.lag import LoopLag
from relay.push.key_files import KeyFile
from tests.fakes.ops import NOON, HandClock, OpsCounts


async def test_a_database_fails_when_it_has_not_answered_for_a_minute() -> None:
    store, clock = OpsCounts(), HandClock()
    cache = CountsCache(store, clock)
    part = checks.database(cache, clock)
    assert part.essential
    assert part.check().state is PartState.FAILED

    await cache.refresh()
    assert part.check() == OK

    store.away = True
    clock.forward(30)
    await cache.refresh()
    assert part.check().state is PartState.DEGRADED
    clock.forward(31)
    assert part.check().state is PartState.FAILED
    assert "database.url" in part.check().remedy


@pytest.mark.parametrize(
    ("levels", "state", "text"),
    [
        (None, PartState.OK, ""),
        ({}, PartState.OK, ""),
        ({(WatchState.WIPED, None): 3}, PartState.OK, ""),
        ({(WatchState.WATCHING, None): 95, (WatchState.WAITING, Reason.UNREACHABLE): 5}, PartState.OK, ""),
        ({(WatchState.WATCHING, None): 10, (WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401): 90}, PartState.OK, ""),
        (
            {(WatchState.WATCHING, None): 80, (WatchState.WAITING, Reason.UNREACHABLE): 20},
            PartState.DEGRADED,
            "20 of 100",
        ),
        (
            {(WatchState.WATCHING, None): 1, (WatchState.WAITING, Reason.SERVER_BUSY): 1},
            PartState.FAILED,
            "1 of 2 mailboxes are not watched, 1 of them waiting server-busy",
        ),
        ({(WatchState.VERIFYING, Reason.NOT_ASKED): 9, (WatchState.WATCHING, None): 1}, PartState.OK, ""),
        ({(WatchState.VERIFYING, Reason.EAS_126): 9, (WatchState.WATCHING, None): 1}, PartState.OK, ""),
        (
            {
                (WatchState.WAITING, Reason.HTTP_401): 4,
                (WatchState.WAITING, Reason.HTTP_401_MANY): 1,
                (WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401): 7,
            },
            PartState.FAILED,
            "5 of 5 mailboxes are not watched, 1 of them waiting http-401-many",
        ),
        (
            {(WatchState.WAITING, Reason.HTTP_401): 3, (WatchState.WATCHING, None): 3},
            PartState.DEGRADED,
            "3 of 6 mailboxes are not watched, 3 of them waiting http-401",
        ),
        ({(WatchState.STARTING, None): 9}, PartState.OK, ""),
        ({(WatchState.BLOCKED, Reason.HTTP_403): 4, (WatchState.WIPED, None): 9}, PartState.FAILED, "blocked http-403"),
    ],
)
def test_mail_servers_are_judged_by_the_share_of_mailboxes_not_watched(
    levels: dict[tuple[WatchState, Reason | None], int] | None, state: PartState, text: str
) -> None:
    part = checks.mailboxes(lambda: levels)

    finding = part.check()

    assert (part.name, finding.state) == ("mail servers", state)
    assert text in finding.reason
    assert bool(finding.remedy) == (state is not PartState.OK)


@pytest.mark.parametrize(
    ("levels", "state", "text"),
    [
        (None, PartState.OK, ""),
        ({(WatchState.VERIFYING, Reason.NOT_ASKED): 12}, PartState.OK, ""),
        ({(WatchState.VERIFYING, None): 12, (WatchState.WATCHING, None): 1}, PartState.OK, ""),
        ({(WatchState.VERIFYING, Reason.EAS_126): 1, (WatchState.WATCHING, None): 10}, PartState.OK, ""),
        (
            {
                (WatchState.VERIFYING, Reason.HTTP_404): 2,
                (WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401): 5,
                (WatchState.WATCHING, None): 1,
            },
            PartState.FAILED,
            "2 new mailboxes wait, most: http-404; 1 others have been accepted",
        ),
        (
            {(WatchState.VERIFYING, Reason.HTTP_404): 12},
            PartState.FAILED,
            "12 new mailboxes wait, most: http-404; 0 others have been accepted",
        ),
        ({(WatchState.VERIFYING, Reason.KERBEROS_TICKET): 1}, PartState.FAILED, "1 new mailboxes wait"),
        (
            {(WatchState.VERIFYING, Reason.UNREACHABLE): 2, (WatchState.WATCHING, None): 8},
            PartState.DEGRADED,
            "most: unreachable; 8 others",
        ),
    ],
)
def test_new_mailboxes_that_nobody_judges_are_told(
    levels: dict[tuple[WatchState, Reason | None], int] | None, state: PartState, text: str
) -> None:
    finding = checks.credential_checks(lambda: levels).check()

    assert finding.state == state
    assert text in finding.reason
    assert bool(finding.remedy) == (state is not PartState.OK)


@pytest.mark.parametrize("reason", sorted(set(REASONS) - {Reason.MAINTENANCE}))
def test_each_reason_has_its_own_remedy(reason: Reason) -> None:
    part = checks.mailboxes(lambda: {(WatchState.BLOCKED, reason): 3})

    remedy = part.check().remedy

    assert part.name == "mail servers"
    assert remedy.startswith(row_of(WatchState.BLOCKED, reason).remedy)
    assert ("access rules" in remedy) == (REASONS[reason].access_rule)


def test_mailboxes_that_an_administrator_halted_are_no_fault() -> None:
    halted = {(WatchState.PAUSED, None): 5, (WatchState.WAITING, Reason.MAINTENANCE): 5}

    assert checks.mailboxes(lambda: {**halted, (WatchState.WATCHING, None): 1}).check() == OK
    assert checks.mailboxes(lambda: halted).check() == OK
    assert checks.credential_checks(lambda: {(WatchState.VERIFYING, Reason.MAINTENANCE): 5}).check() == OK


SERVERS = [each for each, row in REASONS.items() if row.concern is Concern.SERVER and each is not Reason.MAINTENANCE]


@pytest.mark.parametrize("reason", SERVERS)
def test_mailboxes_that_wait_for_their_server_count(reason: Reason) -> None:
    finding = checks.mailboxes(lambda: {(WatchState.WAITING, reason): 3}).check()

    assert (finding.state, finding.remedy) == (PartState.FAILED, REASONS[reason].remedy)


@pytest.mark.parametrize("reason", [Reason.HTTP_401, Reason.NO_FOLDER, Reason.PING_TOO_FAST])
def test_mailboxes_that_wait_for_their_users_do_not_count_unless_they_are_most(reason: Reason) -> None:
    few = {(WatchState.WAITING, reason): 3, (WatchState.WATCHING, None): 4}
    assert checks.mailboxes(lambda: few).check() == OK

    finding = checks.mailboxes(lambda: {(WatchState.WAITING, reason): 3}).check()
    assert (finding.state, finding.remedy) == (PartState.DEGRADED, row_of(WatchState.WAITING, reason).remedy)


def written(moment: datetime) -> str:
    return f"{moment:%a, %d %b %Y %H:%M:%S} GMT"


def test_a_clock_that_is_ahead_is_named_as_well_as_one_that_is_behind() -> None:
    clock = HandClock()
    clocks = PeerClocks(clock)
    part = checks.clock(clocks)
    clocks.answered("right.example.com", written(NOON), 0.0)
    assert (part.name, part.check()) == ("clock", OK)

    clock.forward(120)
    clocks.answered("mail.example.com", written(NOON + timedelta(seconds=120 - 420)), 0.0)
    assert part.check().reason == (
        "the clock of this host is 7 minutes ahead of that of mail.example.com; it agrees with those of other peers: 1"
    )
    assert "may be wrong" in part.check().remedy

    clocks.answered("right.example.com", written(NOON + timedelta(hours=3)), 0.0)
    finding = part.check()
    assert finding.state is PartState.DEGRADED
    assert finding.reason == (
        "the clock of this host is 2 hours behind that of right.example.com; it differs from those of other peers: 1"
    )
    assert "timedatectl" in finding.remedy


@pytest.mark.parametrize(
    ("refused", "wait", "state"),
    [(39, False, PartState.OK), (40, False, PartState.DEGRADED), (75, True, PartState.FAILED)],
)
async def test_many_refused_logins_are_told(refused: int, wait: bool, state: PartState) -> None:
    counts = CountsCache(OpsCounts(logins={"main": RefusedLogins(refused, 100, 30, wait)}), HandClock())
    part = checks.refused_logins("main", counts)
    assert part.check() == OK

    await counts.refresh()

    finding = part.check()
    assert finding.state is state
    if state is not PartState.OK:
        assert f"{refused} credentials of apps were refused within 30 minutes" in finding.reason
        assert ("new ones wait" in finding.reason) is wait
        assert "servers.main.refused_logins" in finding.remedy


def test_a_process_without_leases_watches_nothing() -> None:
    leased = [False]
    part = checks.leases(lambda: leased[0])
    assert (part.essential, part.check().state) == (True, PartState.FAILED)

    leased[0] = True
    assert part.check() == OK


def test_a_certificate_warns_two_weeks_before_its_end(tmp_path: Path) -> None:
    clock, file = HandClock(), tmp_path / "api.pem"
    file.write_bytes(trustme.CA().issue_cert("x", not_after=NOON + timedelta(days=20)).cert_chain_pems[0].bytes())
    part = checks.certificate("api.certificate_file", file, clock)
    assert part.check() == OK

    clock.forward(10 * 86400)
    assert (part.check().state, part.check().reason) == (PartState.DEGRADED, "expires in 10 days")
    clock.forward(9 * 86400 + 7200)
    assert part.check().reason == "expires in 22 hours"
    clock.forward(86400)
    assert (part.check().state, part.check().reason) == (PartState.FAILED, "has expired")
    assert "clock of this host is ahead" in part.check().remedy
    file.write_text("nothing")
    assert part.check().state is PartState.DEGRADED
    file.unlink()
    assert "api.certificate_file" in part.check().remedy


@pytest.mark.parametrize(("late", "state"), [(0.1, PartState.OK), (0.3, PartState.DEGRADED), (2.5, PartState.FAILED)])
def test_a_late_loop_degrades_or_fails(late: float, state: PartState) -> None:
    lag = LoopLag()
    lag._lags.append(late)

    assert checks.loop(lag).check().state is state


async def test_a_changed_key_file_that_is_not_used_degrades_its_part_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "apns.p8"
    path.touch(0o600)
    file = KeyFile("apns.key_file", path, Path.read_bytes)
    part = checks.key_file(file)
    assert (part.name, part.check()) == ("file apns.key_file", OK)

    path.chmod(0o644)
    await file.look()

    assert part.check().state is PartState.DEGRADED
    assert "open to others" in part.check().reason


def test_rights_too_many_are_named_up_to_a_few() -> None:
    assert checks.own_rights([]).check().state is PartState.OK
    finding = checks.own_rights([f"right {number}" for number in range(1, 8)]).check()

    assert finding.state is PartState.DEGRADED
    assert finding.reason.endswith("right 1; right 2; right 3; right 4; right 5; and 2 more")
    assert finding.remedy == checks.CLOSE
