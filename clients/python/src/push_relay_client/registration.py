"""A registration as the relay shows it, and the identity with which an app reaches it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


# region identity
@dataclass(frozen=True, slots=True)
class Identity:
    """Id and secret of a registration, made by the app **before** its first request and kept from then on.

    Since the app knows both whatever becomes of the answer, a request that is repeated makes no second registration.
    """

    id: str
    secret: str = field(repr=False)

    @classmethod
    def make(cls) -> "Identity":
        """Return a new identity: 144 random bits name the registration, 256 are the secret, both in base64url."""
        return cls(secrets.token_urlsafe(18), secrets.token_urlsafe(32))


# endregion


@dataclass(frozen=True, slots=True)
class Registration:
    """The parts of an answer by which an app decides. `answer` has all of it, later fields too."""

    id: str
    state: str
    remedy_by: str
    """Who must act: `nobody`, `app`, `user`, `administrator`."""
    remedy: str
    mailbox_state: str | None
    """None: the relay tells nothing about the mailbox until it accepted the credential."""
    reason: str | None
    credential_pending: bool
    quarantined: bool
    """The provider refuses the device token: most often `environment` is wrong, or the app is another one."""
    last_outcome: str | None
    answer: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> "Registration":
        """Return the registration of an answer; raises ValueError if it is none."""
        mailbox, remedy = _part(answer, "mailbox"), _part(answer, "remedy")
        if not {"id", "state"} <= answer.keys():
            raise ValueError("an answer without `id` and `state` is no registration")
        return cls(
            id=str(answer["id"]),
            state=str(answer["state"]),
            remedy_by=str(remedy.get("by", "nobody")),
            remedy=str(remedy.get("text", "")),
            mailbox_state=mailbox.get("state"),
            reason=mailbox.get("reason"),
            credential_pending=bool(_part(answer, "credential").get("pending")),
            quarantined=answer.get("quarantine") is not None,
            last_outcome=answer.get("last_outcome"),
            answer=answer,
        )


@dataclass(frozen=True, slots=True)
class TestResult:
    """A test push, and what became of it."""

    __test__ = False  # not a test for pytest
    id: str
    state: str
    """`queued`, `delivered`, `refused`, `superseded` or `expired`."""
    reason: str | None
    """The provider's code, if it refused the push or has not taken it yet."""
    remedy_by: str
    remedy: str

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> "TestResult":
        """Return the test of an answer, or the one beside a registration."""
        test = _part(answer, "test") or answer
        remedy = _part(test, "remedy")
        return cls(
            id=str(test.get("id", "")),
            state=str(test.get("state", "queued")),
            reason=test.get("reason"),
            remedy_by=str(remedy.get("by", "nobody")),
            remedy=str(remedy.get("text", "")),
        )


def _part(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = answer.get(name)
    return part if isinstance(part, Mapping) else {}
