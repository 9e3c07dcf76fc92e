import pytest

from eas_watcher.errors import (
    AccessDenied,
    EasError,
    HierarchyChanged,
    NotProvisioned,
    ProtocolViolation,
    Redirected,
    RemoteWipeRequested,
    ServerBusy,
    StateLost,
    Unauthorized,
    Unreachable,
    VersionRefused,
)
from eas_watcher.reasons import Reason

DETAIL = "one line for the operator"


@pytest.mark.parametrize(
    "error",
    [
        Unreachable(DETAIL),
        ServerBusy(DETAIL),
        Unauthorized(DETAIL),
        AccessDenied(DETAIL, Reason.HTTP_403),
        NotProvisioned(DETAIL),
        RemoteWipeRequested(DETAIL),
        VersionRefused(DETAIL),
        StateLost(DETAIL),
        HierarchyChanged(DETAIL),
        ProtocolViolation(DETAIL),
    ],
)
def test_every_error_reads_as_its_detail(error: EasError) -> None:
    assert str(error) == DETAIL


def test_a_redirect_carries_the_url_but_does_not_read_as_it() -> None:
    error = Redirected("https://ann:secret@mail.example.com/")

    assert error.location == "https://ann:secret@mail.example.com/"
    assert "secret" not in str(error)


def test_a_failure_may_have_reached_the_server_unless_it_is_known_not_to() -> None:
    assert (Unreachable("x").reached, ServerBusy("x").reached) == (True, True)
    assert (Unreachable("x").survived, ServerBusy("x").retry_after) == (0.0, None)


def test_a_wipe_is_of_the_whole_device_unless_the_server_says_otherwise() -> None:
    assert not RemoteWipeRequested("x").account_only
    assert AccessDenied("x", Reason.EAS_129).reason == Reason.EAS_129
