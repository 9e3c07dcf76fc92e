import pytest

from eas_watcher.commands.status import COMMON, COMMON_FROM, raise_for_status
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    NotProvisioned,
    ProtocolViolation,
    RemoteWipeRequested,
    RequestRefused,
    ServerBusy,
    StateLost,
    VersionRefused,
)
from eas_watcher.reasons import Reason


def test_success_raises_nothing() -> None:
    raise_for_status("Sync", 1)


@pytest.mark.parametrize(
    ("remedy", "statuses"),
    [
        (RequestRefused, (*range(101, 110), 164)),
        (ServerBusy, (110, 111, 113, 114, 115, 133, 149, 152)),
        (AccessDenied, (112, *range(123, 132), 139, 145, 151, 177)),
        (StateLost, (132, 134, 135, 136)),
        (VersionRefused, (137, 138)),
        (RemoteWipeRequested, (140,)),
        (NotProvisioned, (141, 142, 143, 144, 165)),
        (ProtocolViolation, (0, 2, 100, 116, 122, 146, 150, 153, 160, 168, 176, 178, 184, 999)),
    ],
)
def test_each_status_raises_the_error_that_it_means(remedy: type[EasError], statuses: range | tuple[int, ...]) -> None:
    for status in statuses:
        with pytest.raises(EasError, match=rf"\b{status}\b") as caught:
            raise_for_status("FolderSync", status)
        assert type(caught.value) is remedy
        assert "FolderSync" in str(caught.value)


@pytest.mark.parametrize("status", [110, 113])
def test_a_failure_that_does_not_pass_soon_is_not_retried_soon(status: int) -> None:
    with pytest.raises(ServerBusy) as caught:
        raise_for_status("Sync", status)

    assert caught.value.retry_after == 900


def test_a_denial_names_its_code_for_operators() -> None:
    with pytest.raises(AccessDenied) as caught:
        raise_for_status("Ping", 129)

    assert caught.value.reason == Reason.EAS_129


def test_the_table_begins_where_common_statuses_do() -> None:
    assert min(COMMON) == COMMON_FROM
