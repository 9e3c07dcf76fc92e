"""Own the tables about pushes: how fast they leave, through which providers, on which way, and where they are noted."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from relay.push.fcm.budget import PER_HOUR
from relay.push.pacing import COALESCE_MOST, JITTER_MOST
from relay.settings.sections.section import Port, Section, Text, Texts, split

InFlight = Annotated[int, Field(ge=1, le=1000)]
ProviderProxy = Annotated[
    Text | None,
    Field(description="another proxy than network.proxy, without authentication, or none to connect straight"),
]


class PushSection(Section):
    """Hold how fast pushes leave, through whatever provider."""

    coalesce_seconds: float = Field(
        default=2.0,
        ge=0,
        le=COALESCE_MOST,
        description="seconds between two pushes of one class to one phone, 0 to 60; what comes meanwhile adds up",
    )
    expire_hours: float = Field(
        default=24.0,
        ge=0.1,
        le=720,
        description="age in hours of its newest change at which a push is dropped, 0.1 to 720",
    )
    jitter_seconds: float = Field(
        default=0.0,
        ge=0,
        le=JITTER_MOST,
        description="seconds within which a push leaves at a random moment, 0 to 300; 0: at once",
    )


class ApnsAccountSection(Section):
    """Hold as whom some apps are pushed to through APNs."""

    key_file: Text | None = Field(default=None, description="the .p8 key from Apple's developer site")
    key_id: Annotated[str, Field(pattern=r"^[A-Z0-9]{10}$")] | None = Field(
        default=None,
        description="the ten letters and digits that name key_file at Apple; unset: those in its name AuthKey_KEYID.p8",
    )
    team_id: Annotated[str, Field(pattern=r"^[A-Z0-9]{10}$")] | None = Field(
        default=None, description="the ten letters and digits of the Apple developer team"
    )
    certificate_file: Text | None = Field(
        default=None, description="PEM file with a push certificate and its key, instead of key_file"
    )
    topics: Texts = Field(default=(), description="bundle ids of the apps that may be pushed to")
    environments: Annotated[
        tuple[Literal["production", "sandbox"], ...], BeforeValidator(split), Field(min_length=1)
    ] = Field(
        default=("production", "sandbox"),
        description="what the key or certificate is good for, out of production, sandbox",
    )


class ApnsSection(ApnsAccountSection):
    """Hold how to reach APNs, and the only account or the first one."""

    host: Text = Field(default="api.push.apple.com", description="APNs host for apps from the store")
    port: Port = Field(default=443, description="APNs port for apps from the store, 443 or 2197")
    sandbox_host: Text = Field(default="api.sandbox.push.apple.com", description="APNs host for development builds")
    sandbox_port: Port = Field(default=443, description="APNs port for development builds, 443 or 2197")
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust instead of the system's")
    proxy: ProviderProxy = None
    in_flight: InFlight = Field(default=100, description="pushes at once, 1 to 1000")


class FcmSection(Section):
    """Hold how to reach FCM and as whom."""

    service_account_file: Text | None = Field(
        default=None, description="JSON key of the service account, from the Firebase console"
    )
    apps: Texts = Field(default=(), description="package names of the apps that may be pushed to")
    url: Text = Field(default="https://fcm.googleapis.com", description="https:// URL of FCM, without a path")
    ca_file: Text | None = Field(
        default=None, description="PEM file of CAs to trust instead of the system's, for FCM and for its access tokens"
    )
    proxy: ProviderProxy = None
    in_flight: InFlight = Field(default=100, description="pushes at once, 1 to 1000")
    high_priority_per_hour: int = Field(
        default=PER_HOUR, ge=1, le=1000, description="pushes of new items that wake one phone within an hour, 1 to 1000"
    )


class WebPushSection(Section):
    """Hold which push services are used, and as whom."""

    hosts: Texts = Field(
        default=(), description="the only push services (host, or host:port) that are asked, whatever a phone names"
    )
    apps: Texts = Field(default=(), description="names of the apps that may be pushed to, as they register")
    vapid_key_file: Text | None = Field(
        default=None, description="PEM file that proves the relay to push services, from `relay vapid --new`"
    )
    public_key: Text | None = Field(
        default=None, description="the public half of webpush.vapid_key_file, for the api role: `relay vapid` prints it"
    )
    subject: Annotated[str, Field(max_length=255, pattern=r"^(mailto:[^\s@]+@[^\s@]+|https://[^\s]+)$")] | None = Field(
        default=None, description="whom operators of push services may ask: mailto:ADDRESS or an https:// URL"
    )
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust instead of the system's")
    proxy: ProviderProxy = None
    straight_hosts: Texts = Field(
        default=(), description="those of webpush.hosts that are inside and reached without any proxy"
    )
    in_flight: InFlight = Field(
        default=100, description="pushes at once, 1 to 1000; to one of several hosts half of it"
    )


class NetworkSection(Section):
    """Hold the way to Apple and Google; mail servers are inside and always reached straight."""

    proxy: Text | None = Field(
        default=None, description="http://HOST:PORT or https://HOST:PORT of an HTTP proxy; unset: straight"
    )
    proxy_user: Text | None = Field(default=None, description="user for Basic authentication at network.proxy")
    proxy_password_file: Text | None = Field(
        default=None, description="file whose first line is the password of network.proxy_user"
    )
    proxy_ca_file: Text | None = Field(
        default=None, description="PEM file of CAs to trust instead of the system's for an https:// proxy itself"
    )
    source_address: Texts = Field(
        default=(), description="address to connect from, one of IPv4, one of IPv6, or both; unset: the host chooses"
    )


class EgressSection(Section):
    """Hold where everything that leaves the company is noted."""

    folder: Text | None = Field(
        default=None, description="folder of the egress log, for the push role; unset: egress in relay.state_dir"
    )
    file_megabytes: int = Field(
        default=64, ge=1, le=10_000, description="size at which a file of the egress log is full, 1 to 10000"
    )
