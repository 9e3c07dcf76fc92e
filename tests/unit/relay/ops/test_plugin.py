import pytest

from relay.ops.health import PartState
from relay.ops.plugin import Code, Threshold, Thresholds, unknown, verdict
from relay.ops.readings import PartReading, Reading, Sample

URL = "http://127.0.0.1:9090"


def reading(*parts: tuple[PartState, str], **values: float) -> Reading:
    samples = {f"relay_{name}": [Sample({}, value)] for name, value in values.items()}
    samples["relay_build_info"] = [Sample({"role": "all"}, 1)]
    samples["relay_mailboxes"] = [
        Sample({"state": "watching"}, 9),
        Sample({"state": "waiting"}, 1),
        Sample({"state": "credential-refused"}, 90),
    ]
    told = tuple(PartReading(f"part {number}", state, "", reason, "") for number, (state, reason) in enumerate(parts))
    return Reading(URL, 0.0, parts=told, samples=samples)


def test_a_process_that_is_well_is_ok_and_gives_numbers() -> None:
    well = reading(
        (PartState.OK, "a hint"), pings_held=9, outbox_pending=2, outbox_oldest_seconds=1.5, loop_lag_seconds=0.02
    )

    code, line = verdict(well, Thresholds())

    assert code is Code.OK
    assert line == (
        "RELAY OK - role all: 9 Pings held, 2 pushes wait | "
        "pings_held=9;;;0 pending=2;;;0 oldest=1.5s;;;0 lag=0.02s;;;0 watched=90%;;;0"
    )


@pytest.mark.parametrize(("state", "code"), [(PartState.DEGRADED, Code.WARNING), (PartState.FAILED, Code.CRITICAL)])
def test_health_decides(state: PartState, code: Code) -> None:
    assert verdict(reading((PartState.OK, ""), (state, "")), Thresholds())[0] is code


def test_the_worst_comes_first_and_the_line_stays_short() -> None:
    parts = [(PartState.DEGRADED, "")] * 4 + [(PartState.FAILED, "")]

    code, line = verdict(reading(*parts), Thresholds())

    assert code is Code.CRITICAL
    assert line.startswith("RELAY CRITICAL - part 4: ; part 0: ; part 1: and 2 more | ")


@pytest.mark.parametrize(
    ("thresholds", "code", "said"),
    [
        (Thresholds(pending=Threshold(10, 20)), Code.WARNING, "15 pushes wait"),
        (Thresholds(pending=Threshold(10, 14)), Code.CRITICAL, "15 pushes wait"),
        (Thresholds(pending=Threshold(15, None)), Code.OK, "pending=15;15;;0"),
        (Thresholds(watched=Threshold(95, 80, low=True)), Code.WARNING, "90% of the mailboxes are watched"),
        (Thresholds(watched=Threshold(None, 95, low=True)), Code.CRITICAL, "watched=90%;;95:;0"),
        (Thresholds(oldest=Threshold(1, 2)), Code.CRITICAL, "300 s is the age of the oldest push that waits"),
        (Thresholds(lag=Threshold(0.1)), Code.WARNING, "0.25 s is the lag of timers"),
    ],
)
def test_thresholds_decide_too(thresholds: Thresholds, code: Code, said: str) -> None:
    found = verdict(reading(outbox_pending=15, outbox_oldest_seconds=300, loop_lag_seconds=0.25), thresholds)

    assert found[0] is code
    assert said in found[1]


def test_a_process_that_does_not_answer_is_critical() -> None:
    silent = Reading(URL, 0.0, trouble="cannot be reached: Connection refused")

    assert verdict(silent, Thresholds()) == (
        Code.CRITICAL,
        f"RELAY CRITICAL - {URL} cannot be reached: Connection refused",
    )


def test_without_mailboxes_all_are_watched() -> None:
    assert "watched=100%" in verdict(Reading(URL, 0.0), Thresholds())[1]


def test_a_text_neither_ends_the_line_nor_begins_the_numbers() -> None:
    assert unknown("two\nlines | and numbers") == "RELAY UNKNOWN - two lines / and numbers"
