"""Own what the protocol asks for at every status, independent of the code: sources stand beside the numbers."""

from collections.abc import Callable, Iterable
from typing import Final

import pytest

from eas_watcher.tools.statuses import cases
from eas_watcher.tools.statuses.document import at_last
from eas_watcher.tools.statuses.rehearsal import Case, rehearse

BACK_OFF: Final = ("back off", "wait 10 min")
START_OVER: Final = ("FolderSync from key 0", "wait 1 h")
HOURLY: Final = ("wait 1 h", "wait 1 h")
LONG: Final = ("wait 15 min", "wait 15 min")
SELDOM: Final = ("wait 6 h", "wait 6 h")
DAILY: Final = ("wait 24 h", "wait 24 h")
PROVISION: Final = ("Provision", "wait 1 h")
NEW_VERSION: Final = ("OPTIONS", "wait 1 h")
READ_FOLDERS: Final = ("FolderSync", "wait 10 min")
PING_AGAIN: Final = ("Ping", "never wait")
WIPE: Final = ("acknowledge the wipe", "end")
NOT_OURS: Final = BACK_OFF  # a status of commands that are never sent is as good as an answer that cannot be read

Remedy = tuple[str, str]


def each(numbers: Iterable[int], remedy: Remedy) -> dict[str, Remedy]:
    return {str(number): remedy for number in numbers}


HTTP: Final = {  # [MS-ASHTTP 2.2.2.1.1], and what gateways and other servers send
    **each((301, 302, 303, 307, 308, 404, 405, 407, 440, 441, 451), HOURLY),
    **each((400, 505), NEW_VERSION),
    **each((408, 409, 429, 500, 501, 502, 503, 504), BACK_OFF),
    "401": ("wait 1 min", "wait 24 h"),
    "401 while another mailbox is accepted": ("wait 1 min", "wait 1 min, wait 15 min, end"),
    "403": PROVISION,
    "413": START_OVER,
    "449": PROVISION,
    **each((456, 457), DAILY),
    "507": LONG,
    "403 with status 140 in its body": WIPE,
    "451 to an allowed host": NEW_VERSION,
    "451 to another host": HOURLY,
    "503 with Retry-After: 90": ("wait 90 s", "wait 10 min"),
    "503 with X-MS-ASThrottle": ("wait 1 min", "wait 10 min"),
    "408, 502, 504 or 524 to a Ping held for 300 s": ("back off", "wait 5 s"),
    "200, a web page": BACK_OFF,
    "200, not WBXML": BACK_OFF,
    "200, empty, to a Sync": PING_AGAIN,
    "200, empty, to a Ping": BACK_OFF,
    "200, empty, to a FolderSync": BACK_OFF,
    "200, empty, to a Provision": BACK_OFF,
    "any with X-MS-RP": ("OPTIONS", "wait 1 h"),
}
NETWORK: Final = {
    "refused": BACK_OFF,
    "reset, or no answer in time": BACK_OFF,
    "Ping cut within 30 s": BACK_OFF,
    "Ping cut after 300 s": ("back off", "wait 5 s"),
}
PING: Final = {  # [MS-ASCMD 2.2.3.177.11]
    "1 after the whole heartbeat": PING_AGAIN,
    "1 at once": ("Sync", "wait 10 min"),
    "2": ("Sync of one folder", "never wait"),
    "2 at once": ("Sync", "wait 10 min"),
    "3": BACK_OFF,
    "4": START_OVER,
    "5": ("Ping", "wait 10 min"),
    "6": ("Ping", "wait 10 min"),
    "7": READ_FOLDERS,
    "8": BACK_OFF,
    "any other below 101": BACK_OFF,
}
SYNC: Final = {  # [MS-ASCMD 2.2.3.177.17]
    **each((3, 4, 14), START_OVER),
    **each((5, 6, 7, 13), BACK_OFF),
    **each((16,), ("Sync", "wait 10 min")),
    **each((8, 12), READ_FOLDERS),
    "9": LONG,
    "15": ("Sync of one folder", "wait 10 min"),
    "15 with a Limit": ("Sync of one folder", "wait 10 min"),
}
SYNC_OF_ONE: Final = {
    **{status: remedy for status, remedy in SYNC.items() if status.isdigit()},
    "3": ("Sync from key 0", "wait 10 min"),
    "6 with a new key": PING_AGAIN,
    "7 with a new key": PING_AGAIN,
}
FOLDER_SYNC: Final = {  # [MS-ASCMD 2.2.3.177.4]
    **each((6, 11), ("back off", "wait 10 min, FolderSync from key 0")),
    **each((8, 12), ("back off", "wait 10 min, FolderSync")),
    **each((9, 10), ("FolderSync from key 0", "never wait")),
}
PROVISIONING: Final = {  # [MS-ASPROV 2.2.2.54.2]
    "2": PROVISION,
    "3": BACK_OFF,
    **each((139, 145), HOURLY),
    **each((141, 165), PROVISION),
    "RemoteWipe": WIPE,
    "AccountOnlyRemoteWipe": WIPE,
}
POLICY: Final = {  # [MS-ASPROV 2.2.2.54.3]
    "2": ("Sync", "never wait"),
    **each((3, 4), HOURLY),
    "5": PROVISION,
}
SETTINGS: Final = each(range(2, 8), ("Sync", "never wait"))  # [MS-ASCMD 2.2.3.177.15]; watching goes before
COMMON: Final = {  # [MS-ASCMD 2.2.2]
    **each((*range(101, 110), 164), START_OVER),
    **each((110, 113, 115), LONG),
    **each((111, 114, 133, 149, 152), BACK_OFF),
    **each((112, 126, 127, 128, 130, 139, 145, 151), HOURLY),
    **each(range(123, 126), DAILY),
    **each((129, 131, 177), SELDOM),
    **each((132, 134, 135, 136), START_OVER),
    **each((137, 138), NEW_VERSION),
    "140": WIPE,
    **each((141, 142, 143, 144, 165), PROVISION),
    **each((*range(116, 123), *range(146, 149), 150, *range(153, 157), *range(160, 164)), NOT_OURS),
    **each((*range(166, 177), 178, 179, 183, 184), NOT_OURS),
}

TABLES: Final[dict[str, tuple[Callable[[], dict[str, Case]], dict[str, Remedy]]]] = {
    "http": (cases.http, HTTP),
    "network": (cases.network, NETWORK),
    "ping": (cases.ping, PING),
    "sync": (cases.sync, SYNC),
    "sync of one": (cases.sync_of_one, SYNC_OF_ONE),
    "folder sync": (cases.folder_sync, FOLDER_SYNC),
    "provision": (cases.provision, PROVISIONING),
    "policy": (cases.policy, POLICY),
    "settings": (cases.settings, SETTINGS),
    "common": (cases.common, COMMON),
}
ROWS: Final = [(table, name) for table, (_, remedies) in TABLES.items() for name in remedies]


@pytest.mark.parametrize("table", TABLES)
def test_every_status_of_the_protocol_is_rehearsed(table: str) -> None:
    rehearsed, remedies = TABLES[table]

    assert rehearsed().keys() == remedies.keys()


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_every_status_is_decided_as_the_protocol_asks(table: str, name: str) -> None:
    rehearsed, remedies = TABLES[table]
    first, last = remedies[name]

    conduct = rehearse(rehearsed()[name])

    assert conduct.remedy[0] == first
    assert at_last(conduct).startswith(last)
    assert conduct.meaning
    assert "unexpected" not in conduct.meaning
    assert (conduct.condition is None) == (last == "never wait")


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_no_answer_however_often_given_announces_what_is_not_new(table: str, name: str) -> None:
    rehearsed, _ = TABLES[table]

    assert rehearse(rehearsed()[name]).announced <= 1, "a folder without dates may be announced once"
