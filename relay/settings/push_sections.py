"""The tables of relay.toml about pushes: providers, the way to them, and what is kept of what leaves."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from relay.domain.pacing import COALESCE_MOST, JITTER_MOST
from relay.push.fcm.budget import PER_HOUR
from relay.settings.section import Host, Port, ProviderProxy, ProxySection, Section, Text, Texts
from relay.settings.spellings import app_name, apple_id, bundle_id, package_name, split

Apps = Annotated[tuple[Annotated[Text, AfterValidator(app_name)], ...], BeforeValidator(split)]
BundleIds = Annotated[tuple[Annotated[Text, AfterValidator(bundle_id)], ...], BeforeValidator(split)]
PackageNames = Annotated[tuple[Annotated[Text, AfterValidator(package_name)], ...], BeforeValidator(split)]
AppleId = Annotated[Text, AfterValidator(apple_id)]
InFlight = Annotated[int, Field(ge=1, le=1000)]


class ApnsAccountSection(Section):
    """[apns.accounts.NAME]: one APNs account, with its key or certificate and its apps."""

    key_file: Text | None = Field(default=None, description="the .p8 key from Apple's developer site")
    key_id: AppleId | None = Field(
        default=None,
        description="the ten letters and digits that name key_file at Apple; unset: those in its name AuthKey_KEYID.p8",
    )
    team_id: AppleId | None = Field(default=None, description="the ten letters and digits of the Apple developer team")
    certificate_file: Text | None = Field(
        default=None, description="PEM file with a push certificate and its key, instead of key_file"
    )
    topics: BundleIds = Field(default=(), description="bundle ids of the apps that may be pushed to")
    environments: Annotated[
        tuple[Literal["production", "sandbox"], ...], BeforeValidator(split), Field(min_length=1)
    ] = Field(
        default=("production", "sandbox"),
        description="what the key or certificate is good for, out of production, sandbox",
    )


class ApnsSection(ApnsAccountSection):
    """[apns]: how to reach APNs; its other keys are the first account, often the only one."""

    host: Host = Field(default="api.push.apple.com", description="APNs host for apps from the store")
    port: Port = Field(default=443, description="APNs port for apps from the store, 443 or 2197")
    sandbox_host: Host = Field(default="api.sandbox.push.apple.com", description="APNs host for development builds")
    sandbox_port: Port = Field(default=443, description="APNs port for development builds, 443 or 2197")
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust instead of the system's")
    proxy: ProviderProxy = None
    in_flight: InFlight = Field(default=100, description="pushes at once, 1 to 1000")


class FcmAccountSection(Section):
    """[fcm.accounts.NAME]: one Firebase project, with its service account and its apps."""

    service_account_file: Text | None = Field(
        default=None, description="JSON key of the service account, from the Firebase console"
    )
    apps: PackageNames = Field(default=(), description="package names of the apps that may be pushed to")


class FcmSection(FcmAccountSection):
    """[fcm]: how to reach FCM; its other keys are the first account, often the only one."""

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
    """[webpush]: the push services that the relay sends to, and the key that identifies the relay there."""

    hosts: Texts = Field(
        default=(),
        description="the only push services (host, or host:port; apple, google, mozilla, microsoft for browsers) that "
        "are asked, whatever a phone names",
    )
    apps: Apps = Field(default=(), description="names of the apps that may be pushed to, as they register")
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


class NetworkSection(ProxySection):
    """[network]: the connections to Apple, Google and push services; those to mail servers have keys of their own."""

    source_address: Texts = Field(
        default=(), description="address to connect from, one of IPv4, one of IPv6, or both; unset: the host chooses"
    )


class PushSection(Section):
    """[push]: whether and how fast pushes leave, through any provider."""

    mode: Literal["live", "shadow"] = Field(
        default="live",
        description="live, or shadow: watch and note what would leave, and push nothing of it",
    )
    live_apps: Apps = Field(default=(), description="apps that get pushes even while push.mode is shadow")
    live_servers: Texts = Field(
        default=(),
        description="mail servers, by the NAME of servers.NAME, whose mailboxes get pushes even while "
        "push.mode is shadow; autodiscover: those that Autodiscover found",
    )

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
    receipts: bool = Field(
        default=True,
        description="pushes have ids, by which apps may say that they showed them; false: they have none",
    )


class EgressSection(Section):
    """[egress]: where the relay logs everything that leaves the company."""

    folder: Text | None = Field(
        default=None, description="folder of the egress log, for the push role; unset: egress in relay.state_dir"
    )
    file_megabytes: int = Field(
        default=64, ge=1, le=10_000, description="size at which a file of the egress log is full, 1 to 10000"
    )
    key_file: Text | None = Field(
        default=None, description="file of the keys of the egress log's chain; unset: egress.key in relay.state_dir"
    )
    keep_days: int = Field(
        default=0, ge=0, le=36_500, description="days after which a file of the egress log is removed; 0: never"
    )
    keep_megabytes: int = Field(
        default=0, ge=0, description="size of all files of the egress log, beyond it the oldest goes; 0: no limit"
    )
    free_megabytes: int = Field(
        default=256, ge=0, description="room on the disk of the egress log, below which health is degraded"
    )
