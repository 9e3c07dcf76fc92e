from eas_watcher.proxy.refusals import WINDOW, Refusals


def refuse(refusals: Refusals, now: float) -> None:
    assert refusals.begin()
    refusals.end(now, accepted=False)


def test_a_credential_that_was_never_refused_is_shown_at_once() -> None:
    assert Refusals().wait(0.0) == 0.0


def test_a_refused_credential_waits_longer_each_time() -> None:
    refusals = Refusals()
    waits = []
    now = 0.0
    for _ in range(3):
        refuse(refusals, now)
        waits.append(refusals.wait(now))
        now += refusals.wait(now)

    assert waits == [60.0, 300.0, 1800.0]


def test_a_credential_is_refused_three_times_at_most_within_half_an_hour() -> None:
    refusals, refused, now = Refusals(), [], 0.0
    while now < 4 * WINDOW:
        if refusals.wait(now) == 0.0:
            refuse(refusals, now)
            refused.append(now)
        now += 1.0

    assert len(refused) > 6
    assert all(sum(start <= moment < start + WINDOW for moment in refused) <= 3 for start in refused)


def test_one_connection_at_a_time_tries_a_credential_that_is_not_proven() -> None:
    refusals = Refusals()
    told: list[str] = []

    assert refusals.begin()
    assert not refusals.begin()
    refusals.when_known(lambda: told.append("known"))
    assert told == []
    refusals.end(1.0, accepted=None)

    assert told == ["known"]
    assert refusals.begin()


def test_an_accepted_credential_is_shown_by_many_connections() -> None:
    refusals = Refusals()
    assert refusals.begin()
    refusals.end(0.0, accepted=True)

    assert all(refusals.begin() for _ in range(3))
    refusals.end(1.0, accepted=None)
    assert refusals.begin()


def test_a_success_forgets_refusals_and_a_refusal_forgets_the_success() -> None:
    refusals = Refusals()
    refuse(refusals, 0.0)
    assert refusals.begin()
    refusals.end(60.0, accepted=True)
    assert refusals.wait(60.0) == 0.0

    refuse(refusals, 61.0)

    assert refusals.wait(61.0) == 60.0
    assert refusals.begin()
    assert not refusals.begin()


def test_a_proxy_that_did_not_judge_the_credential_changes_nothing() -> None:
    refusals = Refusals()
    refuse(refusals, 0.0)
    assert refusals.begin()
    refusals.end(60.0, accepted=None)

    assert refusals.wait(30.0) == 30.0
