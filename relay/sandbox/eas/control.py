"""The control listener of the simulated EAS server: JSON over HTTP, for loopback only.

| request | body | does |
| --- | --- | --- |
| GET /state | | returns the counters and complaints |
| GET /mailboxes/{user} | | returns the folders, items and requests of one mailbox |
| POST /mailboxes | user, password | adds a mailbox, or changes its password |
| POST /mail | user, class, subject, sender, body, read, folder | delivers an item |
| POST /mails | users, and the others of /mail | delivers an item to each of many mailboxes at once |
| POST /read | user, server_id, read | sets a read flag |
| POST /delete | user, server_id | deletes an item |
| POST /move | user, server_id, folder | moves an item to another folder of its class |
| POST /folders | user, name, type, parent | adds a folder |
| POST /folders/move | user, folder, parent | moves a folder |
| POST /folders/renumber | user, folder | gives a folder a new id, as if it were restored from a backup |
| POST /folders/remove | user, folder | removes a folder |
| POST /devices | user, action | executes a `DeviceAction` on the user's devices |
| POST /fail | user, command, times, failure | lets the next requests fail (see failures.py) |
| DELETE /fail | | ends all failures |
| POST /backend | broken | takes mail store and directory down, or up again |
| POST /workers | workers | changes how many requests are served at once, held Pings included; null: any number |
| POST /hold | seconds | ends later Pings with status 1 after so many seconds, whatever they ask for; null: no more |
| POST /connections | action, error | executes a `ConnectionsAction` on all connections; all but `drop` on HTTP/2 only |
| POST /streams | streams | changes how many streams a connection over HTTP/2 may have at once |
| POST /restart | | ends all held Pings, as a restart of the server does |

Fields with a default in orders.py may be left out. Errors are problem documents [RFC 9457].
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from eas_watcher.names import CollectionId, ServerId
from relay.sandbox.eas.failures import FailurePlan
from relay.sandbox.eas.orders import (
    FAILURE,
    BackendOrder,
    ConnectionsAction,
    ConnectionsOrder,
    Deletion,
    DeviceAction,
    DeviceOrder,
    FailureOrder,
    FolderMove,
    HoldOrder,
    ItemMove,
    Mail,
    ManyMails,
    NamedFolder,
    NewFolder,
    NewMail,
    NewMailbox,
    ReadFlag,
    StreamsOrder,
    WorkersOrder,
)
from relay.sandbox.eas.simulator import EasSimulator, UnknownMailbox

AT_A_TIME: Final = 100  # mails that are delivered before the server serves its clients again

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


B = TypeVar("B", bound=BaseModel)


def control_app(simulator: EasSimulator) -> web.Application:
    """Return the application of the control listener; serve it on loopback only, it has no authentication."""
    app = web.Application(middlewares=[answer_faults])
    control = _Control(simulator)
    app.router.add_get("/state", control.state)
    app.router.add_get("/mailboxes/{user:.+}", control.mailbox)
    app.router.add_post("/mailboxes", control.add_mailbox)
    app.router.add_post("/mail", control.deliver)
    app.router.add_post("/mails", control.deliver_many)
    app.router.add_post("/read", control.mark_read)
    app.router.add_post("/delete", control.delete)
    app.router.add_post("/move", control.move)
    app.router.add_post("/folders", control.add_folder)
    app.router.add_post("/folders/move", control.move_folder)
    app.router.add_post("/folders/renumber", control.renumber_folder)
    app.router.add_post("/folders/remove", control.remove_folder)
    app.router.add_post("/devices", control.order)
    app.router.add_post("/fail", control.fail)
    app.router.add_delete("/fail", control.stop_failing)
    app.router.add_post("/backend", control.break_backend)
    app.router.add_post("/workers", control.resize)
    app.router.add_post("/hold", control.force_hold)
    app.router.add_post("/connections", control.act_on_connections)
    app.router.add_post("/streams", control.limit_streams)
    app.router.add_post("/restart", control.restart)
    return app


class _Control:
    """The handlers of the routes."""

    def __init__(self, simulator: EasSimulator) -> None:
        self._simulator = simulator

    async def state(self, _: web.Request) -> web.Response:
        """Return the counters and complaints."""
        records = self._simulator.records
        return web.json_response(
            {
                "url": self._simulator.url,
                "mailboxes": len(self._simulator.users),
                "held": self._simulator.held,
                "max_held": records.max_held,
                "protocols": self._simulator.connections.state(),
                "queued": self._simulator.workers.queued,
                "max_at_once": records.max_at_once,
                "requests": records.requests,
                "refusals": records.refusals,
                "overlaps": records.overlaps,
                "complaints": [asdict(complaint) for complaint in records.complaints],
            }
        )

    async def mailbox(self, request: web.Request) -> web.Response:
        """Return the folders, items and requests of one mailbox."""
        user = request.match_info["user"]
        mailbox = self._simulator.mailbox(user)
        return web.json_response(
            {
                "user": user,
                "held": self._simulator.pings.of(user),
                "overlaps": self._simulator.overlaps(user),
                "refusals": self._simulator.records.refusals[user],
                "ping_answered_at": self._simulator.ping_answered_at.get(user),
                "folders": [
                    {
                        "id": folder.id,
                        "name": folder.name,
                        "type": folder.type,
                        "items": [
                            {"server_id": item.id, "read": item.read, "received": item.received.isoformat()}
                            for item in mailbox.items(folder.id)
                        ],
                    }
                    for folder in mailbox.folders.values()
                ],
                "log": [logged._asdict() for logged in self._simulator.log(user)],
            }
        )

    async def add_mailbox(self, request: web.Request) -> web.Response:
        """Add a mailbox, or change its password."""
        new = await _read(request, NewMailbox)
        self._simulator.add_mailbox(new.user, new.password)
        return web.json_response({"user": new.user}, status=201)

    async def deliver(self, request: web.Request) -> web.Response:
        """Deliver an item."""
        mail = await _read(request, NewMail)
        return web.json_response({"server_id": self._deliver(mail.user, mail)}, status=201)

    async def deliver_many(self, request: web.Request) -> web.Response:
        """Deliver an item to each of many mailboxes at once."""
        mail = await _read(request, ManyMails)
        for number, user in enumerate(mail.users, 1):
            self._deliver(user, mail)
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
        return web.json_response({"delivered": len(mail.users)}, status=201)

    async def mark_read(self, request: web.Request) -> web.Response:
        """Set a read flag."""
        flag = await _read(request, ReadFlag)
        self._simulator.mark_read(flag.user, ServerId(flag.server_id), read=flag.read)
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete an item."""
        deletion = await _read(request, Deletion)
        self._simulator.delete(deletion.user, ServerId(deletion.server_id))
        return web.Response(status=204)

    async def add_folder(self, request: web.Request) -> web.Response:
        """Add a folder."""
        new = await _read(request, NewFolder)
        folder = self._simulator.add_folder(new.user, new.name, new.type, CollectionId(new.parent))
        return web.json_response({"folder": folder}, status=201)

    async def move(self, request: web.Request) -> web.Response:
        """Move an item."""
        order = await _read(request, ItemMove)
        moved = self._simulator.move(order.user, ServerId(order.server_id), CollectionId(order.folder))
        return web.json_response({"server_id": moved})

    async def move_folder(self, request: web.Request) -> web.Response:
        """Move a folder."""
        order = await _read(request, FolderMove)
        self._simulator.move_folder(order.user, CollectionId(order.folder), CollectionId(order.parent))
        return web.Response(status=204)

    async def renumber_folder(self, request: web.Request) -> web.Response:
        """Give a folder a new id."""
        order = await _read(request, NamedFolder)
        return web.json_response({"folder": self._simulator.renumber_folder(order.user, CollectionId(order.folder))})

    async def remove_folder(self, request: web.Request) -> web.Response:
        """Remove a folder."""
        removal = await _read(request, NamedFolder)
        self._simulator.remove_folder(removal.user, CollectionId(removal.folder))
        return web.Response(status=204)

    async def order(self, request: web.Request) -> web.Response:
        """Execute an action on the devices of a user."""
        order = await _read(request, DeviceOrder)
        self._device_action(order.user, order.action)
        return web.Response(status=204)

    async def fail(self, request: web.Request) -> web.Response:
        """Let the next requests fail."""
        order = await _read(request, FailureOrder)
        failure = FAILURE.validate_python(order.failure)
        unknown = set(order.failure) - {each.name for each in fields(failure)}
        if unknown:
            raise web.HTTPUnprocessableEntity(reason=f"a failure of this kind has no {', '.join(sorted(unknown))}")
        self._simulator.fail(order.user, FailurePlan(failure, order.command, order.times))
        return web.Response(status=204)

    async def stop_failing(self, _: web.Request) -> web.Response:
        """End all failures."""
        self._simulator.failures.clear()
        return web.Response(status=204)

    async def break_backend(self, request: web.Request) -> web.Response:
        """Take the backend down, or up again."""
        order = await _read(request, BackendOrder)
        self._simulator.break_backend(broken=order.broken)
        return web.Response(status=204)

    async def resize(self, request: web.Request) -> web.Response:
        """Change the number of workers."""
        order = await _read(request, WorkersOrder)
        self._simulator.resize(order.workers)
        return web.Response(status=204)

    async def force_hold(self, request: web.Request) -> web.Response:
        """Change after how many seconds every Ping ends."""
        order = await _read(request, HoldOrder)
        self._simulator.pings.forced = order.seconds
        return web.Response(status=204)

    async def act_on_connections(self, request: web.Request) -> web.Response:
        """Execute an action on all open connections."""
        order = await _read(request, ConnectionsOrder)
        connections = self._simulator.connections
        match order.action:
            case ConnectionsAction.DROP:
                connections.drop()
            case ConnectionsAction.FREEZE:
                connections.http2.freeze()
            case ConnectionsAction.GO_AWAY | ConnectionsAction.REFUSE:
                graceful = order.action is ConnectionsAction.GO_AWAY
                connections.http2.go_away(error=order.error, graceful=graceful)
            case ConnectionsAction.RESET:
                connections.http2.reset(order.error)
        return web.Response(status=204)

    async def limit_streams(self, request: web.Request) -> web.Response:
        """Change the number of concurrent streams of connections over HTTP/2."""
        order = await _read(request, StreamsOrder)
        self._simulator.connections.http2.limit(order.streams)
        return web.Response(status=204)

    async def restart(self, _: web.Request) -> web.Response:
        """End all held Pings."""
        self._simulator.restart()
        return web.Response(status=204)

    def _deliver(self, user: str, mail: Mail) -> ServerId:
        return self._simulator.deliver(
            user,
            mail.cls,
            subject=mail.subject,
            sender=mail.sender,
            body=mail.body,
            read=mail.read,
            folder=None if mail.folder is None else CollectionId(mail.folder),
        )

    def _device_action(self, user: str, action: DeviceAction) -> None:
        match action:
            case DeviceAction.LOSE_STATE:
                self._simulator.lose_state(user)
            case DeviceAction.REFRESH_POLICY:
                self._simulator.refresh_policy(user)
            case DeviceAction.FORGET_POLICY:
                self._simulator.forget_policy(user)
            case DeviceAction.WIPE | DeviceAction.WIPE_ACCOUNT:
                self._simulator.wipe(user, account_only=action is DeviceAction.WIPE_ACCOUNT)
            case DeviceAction.BLOCK | DeviceAction.UNBLOCK:
                self._simulator.block(user, blocked=action is DeviceAction.BLOCK)
            case DeviceAction.QUARANTINE | DeviceAction.RELEASE:
                self._simulator.quarantine(user, quarantined=action is DeviceAction.QUARANTINE)


async def _read(request: web.Request, model: type[B]) -> B:
    return model.model_validate_json(await request.text())


@web.middleware
async def answer_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a faulty request with a problem document."""
    try:
        return await handler(request)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        details = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in faults)
        return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, details)
    except UnknownMailbox as error:
        return _problem(HTTPStatus.NOT_FOUND, f"there is no {error.args[0]}")
    except web.HTTPException as error:
        return _problem(
            HTTPStatus(error.status),
            error.reason,
            {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {},
        )


def _problem(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    document = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return web.json_response(document, status=status.value, headers=headers, content_type="application/problem+json")
