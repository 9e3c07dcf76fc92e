"""Own how server families differ beyond their limits: each oddity that a watch must survive is one property here."""

from dataclasses import dataclass
from enum import Enum, StrEnum


class Outage(Enum):
    """Name what clients see while the backend is down, that is the mail store or the directory."""

    UNAVAILABLE = "HTTP 503 with Retry-After, for every request"
    STATUS = "status 111 in the command's own document"
    UNAUTHORIZED = "HTTP 401, like a wrong password, for every request"
    VANISHED = "the mail folders are told as deleted; other folders are served"


class Family(StrEnum):
    """Name a family of servers."""

    EXCHANGE = "exchange"
    SOGO = "sogo"
    ZPUSH = "zpush"
    TRAVELER = "traveler"


@dataclass(frozen=True, slots=True)
class Personality:
    """Hold what is odd about a family of servers; the defaults are Exchange's, where little is."""

    name: Family = Family.EXCHANGE
    build: str = "15.2"
    """How the server names itself in MS-Server-ActiveSync."""
    folder_id: str = "{number}"
    """How the id of a folder is made of its `number` and its `kind`."""
    outage: Outage = Outage.UNAVAILABLE
    closes: bool = False
    """Whether each answer ends its connection, without a header that says so."""
    notices_hang_up: bool = True
    """Whether a client that hangs up frees what its Ping holds; else that goes on to its end, or to the next Ping."""
    restart_ends_pings: bool = False
    """Whether a restart ends held Pings early with status 1; else it cuts their connections."""

    # Provision
    announces_provision: bool = True
    provision_by_http: bool = False
    """Whether policies are asked for by HTTP 449 whatever the version; other common statuses become HTTP ones too."""
    serves_keyless: bool = False
    """Whether a device that never had a policy key is served when it sends none."""
    policy_before_password: bool = False
    """Whether a device whose policy is due is told so before the password is looked at; a wipe is even carried out."""
    policy_ends_ping: bool = False
    """Whether a Ping answers 7 while a new policy is due."""

    # Ping
    names_minimum: bool = True
    """Whether status 5 for a heartbeat that is too short comes with the shortest one allowed."""
    late_limit: bool = False
    """Whether a Ping beyond the maximum is held for the maximum, and only then answered with status 5."""
    raises_short: bool = False
    """Whether a heartbeat below the minimum is raised to it without a word."""
    overhold: float = 1.0
    """How much longer than asked a Ping is held."""
    tells_folders: bool = True
    """Whether a Ping answers 7 when folders came or went; else one on a folder that is gone is deaf."""
    deaf: bool = False
    """Whether a Ping never tells of a folder that was not synced with the keys of now."""
    changed_limit: int | None = None
    """How many status 2 without a Sync between them are told; 7 comes after them, with nothing changed."""

    # FolderSync and Sync
    restart_voids_keys: bool = False
    """Whether FolderSync with key 0 makes all Sync keys of the device invalid."""
    sync_after_adds: bool = False
    """Whether one more Sync is due after Adds of mail; until then a Ping answers 2 at once."""
    withholds: bool = False
    """Whether a key that is presented again and again is taken for a loop that some item causes: from the third time
    on items come one by one, from the fifth time on a Delete comes in place of the Add."""
    unknown_folder_voids_state: bool = False
    """Whether a Sync of a folder that is not there answers 12 for the whole and forgets all keys of the device."""


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
    tells_folders=False,
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
"""From its documentation; not observed."""
