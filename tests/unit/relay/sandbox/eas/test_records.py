from relay.sandbox.eas.records import LOG_KEPT, EasRecords, LoggedRequest


def test_requests_are_counted_by_command_and_logged_by_user() -> None:
    records = EasRecords()
    records.note("ann", "Sync", 1.0)
    records.note("ben", "Sync", 2.0)
    records.note("ann", "Ping", 3.0)

    assert records.requests == {"Sync": 2, "Ping": 1}
    assert records.log("ann") == (LoggedRequest("Sync", 1.0), LoggedRequest("Ping", 3.0))
    assert records.log("nobody") == ()


def test_the_log_of_a_user_is_bounded() -> None:
    records = EasRecords()
    for number in range(LOG_KEPT + 5):
        records.note("ann", "Ping", float(number))

    assert len(records.log("ann")) == LOG_KEPT
    assert records.log("ann")[0] == LoggedRequest("Ping", 5.0)


def test_the_most_requests_at_once_are_counted() -> None:
    records = EasRecords()
    with records.answering(), records.answering():
        pass
    with records.answering():
        assert (records.at_once, records.max_at_once) == (1, 2)
    with records.answering(), records.answering():
        records.answered_at_once()
    assert (records.at_once, records.max_at_once) == (0, 3)
