"""The examples of the OpenAPI document: requests and answers of one made-up registration."""

from collections.abc import Mapping
from typing import Final

from relay.domain.model import RegistrationId

Json = Mapping[str, object]

ID: Final = RegistrationId("Vq0zM3yX8sT1bN6kR4wJcLhP")
WISH: Final[Json] = {
    "mailbox": "ann@example.com",
    "server": "head-office",
    "credential": {"kind": "basic", "user": "EXAMPLE\\ann", "password": "..."},
    "device": {"platform": "apns", "app": "com.example.mail", "token": "c0ffee" * 11, "environment": "sandbox"},
    "classes": ["email", "calendar"],
    "subfolders": ["email"],
    "mode": "alert",
    "locale": "de-AT",
}
CHANGE: Final[Json] = {"device": {"token": "beef" * 16}, "credential": {"kind": "basic", "password": "..."}}
PUSH_ID: Final = "UKsJm0KCaPoCc5G0AEIjcg"
PROOF: Final[Json] = {"nonce": "o0Z3kqXb1vT9sWm2cYgRPA"}
RECEIPTS: Final[Json] = {"receipts": [{"id": PUSH_ID, "seconds_ago": 0.4}]}
REGISTRATION: Final[Json] = {
    "id": ID,
    "state": "active",
    "remedy": {"by": "nobody", "text": "All is well."},
    "mailbox": {
        "server": "head-office",
        "user": "example\\ann",
        "state": "watching",
        "reason": None,
        "since": "2026-11-23T08:00:01Z",
        "next_try_at": None,
        "device_id": "MAHMMZ3VDNKZT4VWYO25JWF7K2QG6TAB",
        "last_ping_at": "2026-11-23T08:00:01Z",
        "last_change_at": None,
    },
    "device": {
        "platform": "apns",
        "app": "com.example.mail",
        "token_since": "2026-11-23T08:00:00Z",
        "environment": "sandbox",
    },
    "classes": ["calendar", "email"],
    "subfolders": ["email"],
    "mode": "alert",
    "locale": "de-AT",
    "credential": {"pending": False, "refused": False},
    "created_at": "2026-11-23T08:00:00Z",
    "last_push_at": None,
    "last_outcome": None,
    "quarantine": None,
}
SECRET: Final[Json] = {"secret": "2r5uGvTjJ1rN4QkO0mWc7yYxVb8eLhZqPpTs3aDf6gI"}
REGISTERED: Final[Json] = {**SECRET, **REGISTRATION}
VERIFYING: Final[Json] = {
    **REGISTERED,
    "state": "verifying",
    "remedy": {"by": "nobody", "text": "The relay asks the mail server about the credential."},
    "mailbox": {"server": "head-office", "user": "example\\ann"},
    "credential": {"pending": True, "refused": False},
}
TEST: Final[Json] = {
    "id": "kq3Zp0aWm2Xc7RtY",
    "state": "queued",
    "remedy": {"by": "nobody", "text": "The relay has the test push; the provider has not taken it yet: ask again."},
    "asked_at": "2026-11-23T08:00:05Z",
    "ended_at": None,
    "reason": None,
}
TESTED: Final[Json] = {**REGISTRATION, "test": TEST}
CAPABILITIES: Final[Json] = {
    "version": "0.1.0",
    "platforms": {
        "apns": {"apps": ["com.example.mail"], "environments": ["production", "sandbox"]},
        "fcm": {"apps": ["com.example.droid"]},
        "webpush": {"apps": ["com.example.web"], "services": ["push.example.com"], "vapid_public_key": "BIfm..."},
    },
    "classes": ["email", "calendar", "contacts", "tasks", "notes"],
    "modes": ["alert", "background"],
    "languages": ["de", "en", "fr"],
    "enrolment": {"alternatives": [["key", "mtls"]], "invitation": False},
    "receipts": True,
    "server": {
        "name": "head-office",
        "credentials": ["basic", "oauth"],
        "oauth": {
            "authorization_endpoint": "https://login.example.com/oauth2/authorize",
            "token_endpoint": "https://login.example.com/oauth2/token",
            "client_id": "push-relay",
            "scope": "openid offline_access",
            "audience": ["https://mail.example.com/"],
        },
    },
    "limits": {
        "body_bytes": 16384,
        "requests_per_minute": 600,
        "registrations_per_minute": 30,
        "requests_per_minute_of_registration": 60,
        "registrations_per_mailbox": 20,
    },
}
WEBPUSH: Final[Json] = {"vapid_public_key": "BIfm..."}
