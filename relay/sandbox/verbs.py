"""The verbs of the sandbox: what happens to mailboxes, servers and phones, one request each, for people and scripts.

`POST /VERB` on the control listener, and `relay sandbox VERB` on the command line; `ORDERS` has the fields of each.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from eas_watcher.names import CollectionClass, CollectionId
from relay.domain.model import Environment
from relay.process.clock import now
from relay.sandbox.apns import ApnsSimulator
from relay.sandbox.eas.control import answer_faults
from relay.sandbox.eas.mailboxes import ROOT, USER_MAIL
from relay.sandbox.eas.simulator import SENDER, EasSimulator
from relay.sandbox.fcm import FcmSimulator
from relay.sandbox.scripts import Answer
from relay.sandbox.services import Service
from relay.sandbox.webpush import WebPushSimulator

CONFLICT: Final = 409


class Order(BaseModel):
    """The fields of a verb."""

    model_config = ConfigDict(extra="forbid")


class Deliver(Order):
    """Deliver an item to a mailbox."""

    user: str = Field(min_length=1)
    cls: CollectionClass = Field(CollectionClass.EMAIL, alias="class")
    subject: str = "Minutes"
    sender: str = SENDER
    body: str = "See you on Monday."
    folder: str | None = None


class Read(Order):
    """Mark all items of a mailbox as read, as another client does."""

    user: str = Field(min_length=1)


class Password(Order):
    """Change the password of a mailbox, or add one with it."""

    user: str = Field(min_length=1)
    password: str


class Wipe(Order):
    """Wipe the devices of a user, as an administrator does."""

    user: str = Field(min_length=1)
    account_only: bool = False


class Block(Order):
    """Block the devices of a user, as an administrator does, or end that."""

    user: str = Field(min_length=1)
    end: bool = False


class Folder(Order):
    """Add a folder for mails to a mailbox."""

    user: str = Field(min_length=1)
    name: str = Field(min_length=1)
    parent: str = ROOT


class Outage(Order):
    """Take a service down until its outage ends: the mail server's backend, or a provider, which answers 503."""

    of: Service = Service.ALL
    end: bool = False


class Restart(Order):
    """Restart the mail server: all held Pings end."""


class Token(Order):
    """Issue a device token of APNs that the other environment refuses; a given one, or a new one."""

    environment: Environment = Environment.PRODUCTION
    token: str = ""


class Gone(Order):
    """Uninstall the app: its device token, FID or endpoint is gone from now on."""

    token: str = Field(min_length=1)


ORDERS: Final[Mapping[str, type[Order]]] = {
    "deliver": Deliver,
    "read": Read,
    "password": Password,
    "wipe": Wipe,
    "block": Block,
    "folder": Folder,
    "outage": Outage,
    "restart": Restart,
    "token": Token,
    "gone": Gone,
}
"""Verb -> its fields."""


def add_verbs(
    control: web.Application,
    eas: EasSimulator,
    apns: ApnsSimulator,
    apns_sandbox: ApnsSimulator,
    fcm: FcmSimulator,
    webpush: WebPushSimulator,
) -> None:
    """Add the route of each verb to the control listener; a faulty request is answered with a problem document."""
    services = _Services(eas, apns, apns_sandbox, fcm, webpush)
    control.middlewares.append(answer_faults)
    for verb, order in ORDERS.items():
        control.router.add_post(f"/{verb}", _handler(services, order))


def _handler(services: "_Services", order: type[Order]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        fields = order.model_validate_json(await request.text() or "{}")
        try:
            return web.json_response(services.execute(fields))
        except NotPossible as error:
            problem = {"type": "about:blank", "title": "Conflict", "status": CONFLICT, "detail": str(error)}
            return web.Response(text=json.dumps(problem), status=CONFLICT, content_type="application/problem+json")

    return handle


class NotPossible(Exception):
    """An order has no effect in the present state; the text says why."""


class _Services:
    """The simulators, and what each verb does to them."""

    def __init__(
        self,
        eas: EasSimulator,
        apns: ApnsSimulator,
        apns_sandbox: ApnsSimulator,
        fcm: FcmSimulator,
        webpush: WebPushSimulator,
    ) -> None:
        self._eas = eas
        self._apns = {Environment.PRODUCTION: apns, Environment.SANDBOX: apns_sandbox}
        self._fcm = fcm
        self._webpush = webpush

    def execute(self, order: Order) -> dict[str, Any]:
        """Do what an order says and return the answer; raises UnknownMailbox, NotPossible."""
        match order:
            case Deliver():
                into = None if order.folder is None else CollectionId(order.folder)
                server_id = self._eas.deliver(
                    order.user, order.cls, subject=order.subject, sender=order.sender, body=order.body, folder=into
                )
                return {"server_id": server_id}
            case Read():
                return {"read": self._read(order.user)}
            case Password():
                self._eas.add_mailbox(order.user, order.password)
            case Wipe():
                self._need_device(order.user)
                self._eas.wipe(order.user, account_only=order.account_only)
            case Block():
                self._need_device(order.user)
                self._eas.block(order.user, blocked=not order.end)
            case Folder():
                return {"folder": self._eas.add_folder(order.user, order.name, USER_MAIL, CollectionId(order.parent))}
            case _:
                return self._execute_on_services(order)
        return {}

    def _execute_on_services(self, order: Order) -> dict[str, Any]:
        match order:
            case Outage():
                self._outage(order.of, end=order.end)
            case Restart():
                self._eas.restart()
            case Token():
                return {"token": self._apns[order.environment].issue(order.token)}
            case Gone():
                self._gone(order.token)
            case _:
                raise AssertionError(f"a verb without an effect: {type(order).__name__}")
        return {}

    def _need_device(self, user: str) -> None:
        """Raise NotPossible if no device of a user ever asked the mail server: a later one would not be affected."""
        if not self._eas.devices(user):
            raise NotPossible(f"no device of {user} has asked the mail server yet: register a phone first")

    def _read(self, user: str) -> int:
        mailbox = self._eas.mailbox(user)
        unread = [item.id for folder in mailbox.folders for item in mailbox.items(folder) if not item.read]
        for server_id in unread:
            self._eas.mark_read(user, server_id)
        return len(unread)

    def _outage(self, of: Service, *, end: bool) -> None:
        if of in {Service.MAIL, Service.ALL}:
            self._eas.break_backend(broken=not end)
        if of in {Service.APNS, Service.ALL}:
            for apns in self._apns.values():
                _break(apns, "ServiceUnavailable", end=end)
        if of in {Service.FCM, Service.ALL}:
            _break(self._fcm, "UNAVAILABLE", end=end)
        if of in {Service.WEBPUSH, Service.ALL}:
            _break(self._webpush, "unavailable", end=end)

    def _gone(self, token: str) -> None:
        if token.startswith("https://"):
            try:
                self._webpush.gone(token)
            except KeyError as error:
                raise NotPossible("no phone has this endpoint") from error
            return
        self._apns[Environment.PRODUCTION].gone(token, now())
        self._fcm.gone(token)


def _break(simulator: ApnsSimulator | FcmSimulator | WebPushSimulator, reason: str, *, end: bool) -> None:
    """Answer 503 to all pushes, or end all failures."""
    simulator.heal()
    if not end:
        simulator.fail(Answer(503, reason), 0)
