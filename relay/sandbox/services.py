"""The services of the sandbox that can have an outage."""

from enum import StrEnum


class Service(StrEnum):
    """A service, or all of them."""

    MAIL = "mail"
    APNS = "apns"
    FCM = "fcm"
    WEBPUSH = "webpush"
    ALL = "all"
