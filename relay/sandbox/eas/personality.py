"""The differences between server families, apart from limits: each oddity that a watch must survive is one property."""

from dataclasses import dataclass
from enum import Enum, StrEnum


class Outage(Enum):
    """What clients see while the backend (mail store or directory) is down."""

    UNAVAILABLE = "HTTP 503 with Retry-After, for every request"
    STATUS = "status 111 in the document of the command"
    UNAUTHORIZED = "HTTP 401, as for a wrong password, for every request"
    VANISHED = "FolderSync reports the mail folders as deleted; the server serves other folders"


class Http2(StrEnum):
    """Whether the server speaks HTTP/2 beside HTTP/1.1."""

    ON = "on"
    OFF = "off"


class Family(StrEnum):
    """A family of servers."""

    EXCHANGE = "exchange"
    SOGO = "sogo"
    ZPUSH = "zpush"
    TRAVELER = "traveler"


@dataclass(frozen=True, slots=True)
class Personality:
    """The oddities of a family of servers; the defaults are those of Exchange, which has few."""

    name: Family = Family.EXCHANGE
    build: str = "15.2"
    """The value of the header MS-Server-ActiveSync."""
    folder_id: str = "{number}"
    """The format of the ids of folders, with the fields `number` and `kind`."""
    outage: Outage = Outage.UNAVAILABLE
    closes: bool = False
    """Whether the server closes the connection after each answer, without announcing it in a header."""
    notices_hang_up: bool = True
    """Whether a Ping ends with its connection; else it occupies a worker until its heartbeat ends, or the next Ping."""
    restart_ends_pings: bool = False
    """Whether a restart ends held Pings early with status 1; else it cuts their connections."""

    # Provision
    announces_provision: bool = True
    provision_by_http: bool = False
    """Whether HTTP 449 demands a policy in all versions, and HTTP statuses replace the other common statuses too."""
    serves_keyless: bool = False
    """Whether the server serves a device that never had a policy key and sends none."""
    policy_before_password: bool = False
    """Whether the server demands a policy acknowledgement, and executes a wipe, before it checks the password."""
    policy_ends_ping: bool = False
    """Whether Pings answer 7 while the client must acknowledge a policy."""

    # Ping
    names_minimum: bool = True
    """Whether status 5 for a short heartbeat names the shortest allowed one."""
    late_limit: bool = False
    """Whether the server holds a Ping with a long heartbeat for the maximum before it answers status 5."""
    raises_short: bool = False
    """Whether the server silently raises a short heartbeat to the minimum."""
    overhold: float = 1.0
    """The duration of a hold as a multiple of the heartbeat."""
    reports_folders: bool = True
    """Whether Pings answer 7 after a change of the folders; else a Ping ignores removed folders."""
    deaf: bool = False
    """Whether Pings ignore folders that were not synced with the current keys."""
    changed_limit: int | None = None
    """How many Pings answer 2 without a Sync between them; the next one answers 7, although no folder changed."""

    # FolderSync and Sync
    restart_voids_keys: bool = False
    """Whether FolderSync with key 0 makes all Sync keys of the device invalid."""
    sync_after_adds: bool = False
    """Whether Pings answer 2 at once after a Sync with Adds of mail, until one more Sync."""
    withholds: bool = False
    """Whether the server takes a repeated key for a loop that an item causes: from the third time on it sends changes
    one by one, from the fifth time on a Delete in place of the Add."""
    unknown_folder_voids_state: bool = False
    """Whether a Sync of an unknown folder answers 12 for the whole request and invalidates all keys of the device."""


EXCHANGE = Personality()
SOGO = Personality(
    name=Family.SOGO,
    build="14.1",
    folder_id="{kind}%2F{number:032x}",
    outage=Outage.VANISHED,
    closes=True,
    notices_hang_up=False,
    restart_ends_pings=True,
    announces_provision=False,
    late_limit=True,
    raises_short=True,
    overhold=1.008,
    reports_folders=False,
    deaf=True,
    restart_voids_keys=True,
    sync_after_adds=True,
)
"""[observed: SOGo 5.8, 2026-11]"""
ZPUSH = Personality(
    name=Family.ZPUSH,
    build="14.1",
    folder_id="U{number:05x}",
    notices_hang_up=False,
    outage=Outage.UNAUTHORIZED,
    provision_by_http=True,
    policy_before_password=True,
    serves_keyless=True,
    policy_ends_ping=True,
    names_minimum=False,
    changed_limit=9,
    withholds=True,
    unknown_folder_voids_state=True,
)
"""[observed: Z-Push 2.7.1, 2026-11]"""
TRAVELER = Personality(
    name=Family.TRAVELER, build="14.1", folder_id="{number:032X}", outage=Outage.STATUS, restart_ends_pings=True
)
"""From the documentation of Traveler; not observed."""
