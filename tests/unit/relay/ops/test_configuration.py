"""Test what health says of the configuration on disk."""

from datetime import UTC, datetime

from relay.ops.configuration import Configuration, configuration
from relay.ops.health import OK, PartState

AT = datetime(2026, 11, 29, 14, 5, tzinfo=UTC)
LATER = datetime(2026, 11, 29, 15, 0, tzinfo=UTC)
FAULT = ("api.certificate_file", "/etc/api.pem expired on 2026-11-01", "Renew it.")


def test_a_configuration_that_is_in_use_is_well() -> None:
    assert configuration(Configuration(AT)).check() == OK


def test_faults_are_named_with_the_time_of_the_configuration_in_use() -> None:
    state = Configuration(AT)
    state.refused([FAULT])

    found = configuration(state).check()

    assert found.state is PartState.DEGRADED
    assert "runs with that of 2026-11-29 14:05 UTC: api.certificate_file /etc/api.pem expired" in found.reason
    assert found.remedy.startswith("Renew it. `relay check`")
    assert state.reloads == {"applied": 0, "unchanged": 0, "faulty": 1}


def test_many_faults_are_counted() -> None:
    state = Configuration(AT)
    state.refused([FAULT] * 7)

    assert configuration(state).check().reason.endswith("; and 2 more")


def test_what_waits_for_a_restart_is_a_hint_and_no_trouble() -> None:
    state = Configuration(AT)
    state.taken(LATER, ("database.url",), changed=False)

    found = configuration(state).check()

    assert found.state is PartState.OK
    assert found.reason == "changed on disk, but not in use before a restart: database.url"
    assert state.taken_at == AT


def test_a_corrected_configuration_ends_the_faults() -> None:
    state = Configuration(AT)
    state.refused([FAULT])
    state.taken(LATER, (), changed=True)

    assert configuration(state).check() == OK
    assert (state.taken_at, state.reloads["applied"]) == (LATER, 1)
