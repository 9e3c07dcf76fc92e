"""One table of relay.toml: how its keys are read, kinds of values that several tables have, and the keys of a proxy."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from relay.settings.spellings import bare_host, printable, split

Text = Annotated[str, Field(min_length=1), AfterValidator(printable)]
Host = Annotated[Text, AfterValidator(bare_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(split)]
Platforms = Annotated[tuple[Literal["apns", "fcm", "webpush"], ...], BeforeValidator(split)]
ProviderProxy = Annotated[
    Text | None,
    Field(description="another proxy than network.proxy, without authentication, or none to connect straight"),
]


class Section(BaseModel):
    """One table of relay.toml; None means that a key is not set and has no default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _without_blanks(cls, value: Any) -> Any:
        """Drop blanks at both ends of texts: nobody sees them in a file."""
        if isinstance(value, list):
            return [part.strip() if isinstance(part, str) else part for part in value]
        return value.strip() if isinstance(value, str) else value


class ProxySection(Section):
    """What [network], [servers.NAME] and [autodiscover] say of the proxy that connections go through."""

    proxy: Text | None = Field(
        default=None,
        description="http://HOST:PORT, https://, socks5:// or, where only the proxy can look names up, socks5h://; "
        "unset or none: straight",
    )
    proxy_auth: Literal["basic", "negotiate"] = Field(
        default="basic", description="basic: proxy_user and its password; negotiate: Kerberos tickets, to HTTP proxies"
    )
    proxy_user: Text | None = Field(
        default=None, description="user at the proxy; with negotiate a principal, unset: that of the ticket cache"
    )
    proxy_password_file: Text | None = Field(
        default=None, description="file whose first line is the password of proxy_user"
    )
    proxy_keytab_file: Text | None = Field(
        default=None, description="keytab with the key of proxy_user, for negotiate; unset: the process's ticket cache"
    )
    proxy_ca_file: Text | None = Field(
        default=None, description="PEM file of CAs to trust instead of the system's for an https:// proxy itself"
    )
