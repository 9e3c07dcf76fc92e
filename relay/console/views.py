"""The pages of the console, and the acts that their buttons do."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from relay.admin.administration import Administration
from relay.admin.tokens import Scope
from relay.admin.values import Done, MailboxFilter, NotDone, Order, Unknown
from relay.console.app import Console, Visit
from relay.console.egress import EgressViewer, LogPage
from relay.console.sessions import Wanted
from relay.domain.explanation import Findings, MailboxExplanation, UnreadableMailbox
from relay.domain.model import RegistrationId
from relay.ops import explain, timeline

log = logging.getLogger(__name__)

Explain = Callable[[str, datetime | None], Awaitable[Findings]]
"""Finds mailboxes by name, with their last events: those until a moment; None: until now."""
ROWS: Final = 50  # mailboxes and acts of a page
FORGET: Final = "forget"
"""What is typed to forget a registration."""


BUSY: Final = NotDone("the log is being verified already: wait a moment")
"""A whole log is read by one request at a time: the next ones would take what the process needs for pushes."""


class ProcessPages:
    """What every process shows of itself: overview, servers, providers."""

    def __init__(self, console: Console, admin: Administration | None) -> None:
        """Add the pages; with the use cases of administrators servers can be put into maintenance."""
        self._console, self._process, self._admin = console, console.process, admin
        console.links += [("/", "Overview"), ("/servers", "Servers"), ("/providers", "Providers")]
        console.open("GET", "/", Scope.READ, self._overview)
        console.open("GET", "/servers", Scope.READ, self._servers)
        console.open("GET", "/providers", Scope.READ, self._providers)
        if admin is not None:
            console.open("POST", "/servers/{name}/maintenance", Scope.ACT, self._maintain)

    async def _overview(self, visit: Visit) -> web.StreamResponse:
        day = visit.request.query.get("span") == "day"
        return self._console.show(
            visit, "overview.html", overview=self._process.overview(day=day), day=day, process=self._process
        )

    async def _servers(self, visit: Visit) -> web.StreamResponse:
        maintained = None
        if self._admin is not None:  # what is counted is some seconds old, and an act shows at once
            maintained = {one.server: one.since for one in await self._admin.maintained()}
        rows = self._process.servers(maintained=maintained)
        may = self._admin is not None and visit.may(Scope.ACT)
        return self._console.show(visit, "servers.html", servers=rows, process=self._process, may_act=may)

    async def _maintain(self, visit: Visit) -> web.StreamResponse:
        if self._admin is None:
            raise AssertionError("the route is added with the use cases only")
        on = visit.field("on") == "on"
        visit.tell(await self._admin.maintain(visit.part("name"), visit.person.name, on=on))
        return self._console.back("/servers")

    async def _providers(self, visit: Visit) -> web.StreamResponse:
        return self._console.show(visit, "providers.html", providers=self._process.providers(), process=self._process)


class MailboxPages:
    """Mailboxes and registrations, what may be done about them, and what was done."""

    def __init__(self, console: Console, admin: Administration, explanation: Explain) -> None:
        """Add the pages of a process with the use cases of administrators."""
        self._console, self._admin, self._explanation = console, admin, explanation
        self._verifying = asyncio.Lock()
        console.links += [("/mailboxes", "Mailboxes"), ("/acts", "Acts")]
        mailbox, registration = "/mailboxes/{id}", "/registrations/{id}"
        console.open("GET", "/mailboxes", Scope.READ, self._list)
        console.open("POST", "/mailboxes", Scope.READ, self._search)
        console.open("GET", mailbox, Scope.READ, self._mailbox)
        for order, scope in ((Order.RETRY, Scope.ACT), (Order.PAUSE, Scope.ACT), (Order.RESUME, Scope.ACT)):
            console.open("POST", f"{mailbox}/{order}", scope, self._ordering(order))
        console.open("POST", f"{mailbox}/forget", Scope.FORGET, self._forget)
        console.open("POST", f"{registration}/retry", Scope.ACT, self._about(admin.retry_pushes))
        console.open("POST", f"{registration}/test-push", Scope.ACT, self._about(admin.test_push))
        console.open("POST", f"{registration}/forget", Scope.FORGET, self._forget_registration)
        console.open("GET", "/acts", Scope.READ, self._acts)
        console.open("POST", "/acts/verify", Scope.READ, self._verify_acts)

    # --- lists

    async def _list(self, visit: Visit) -> web.StreamResponse:
        wanted = visit.session.wanted
        page = await self._admin.mailboxes(_filter(wanted), ROWS, visit.request.query.get("cursor") or None)
        events: list[str] = []
        if not page.rows and wanted.user:
            events = timeline.lines((await self._explanation(wanted.user, None)).events, UTC)
        return self._console.show(
            visit,
            "mailboxes.html",
            page=page,
            wanted=wanted,
            servers=sorted(self._admin.servers),
            states=[each.value for each in WatchState],
            events=events,
        )

    async def _search(self, visit: Visit) -> web.StreamResponse:
        """Keep what is looked for in the session: an address would bring the user into logs and histories."""
        wanted = Wanted(visit.field("user"), visit.field("server"), visit.field("state"))
        if wanted.user and not (await self._admin.mailboxes(_filter(wanted), 1)).rows:
            found = await self._explanation(wanted.user, None)
            if len(found.mailboxes) == 1:  # the id of a mailbox or of a registration
                return self._console.back(_mailbox_path(_id_of(found.mailboxes[0])))
        visit.session.wanted = wanted
        return self._console.back("/mailboxes")

    # --- one mailbox

    async def _mailbox(self, visit: Visit) -> web.StreamResponse:
        now, asked = self._console.clock(), visit.request.query.get("at", "")
        at, wrong = _moment(asked, now)
        one = await self._find(visit.part("id"), None if at is None else at + timeline.AROUND)
        [document] = explain.document(Findings(mailboxes=(one,)), now, at)
        ids = [each.registration.id for each in one.registrations] if isinstance(one, MailboxExplanation) else []
        return self._console.show(
            visit,
            "mailbox.html",
            found=document,
            readable=isinstance(one, MailboxExplanation),
            id=_id_of(one),
            tests={id_: await self._admin.tests(id_) for id_ in ids},
            at=at,
            asked=asked,
            wrong=wrong,
            may_act=visit.may(Scope.ACT),
            may_forget=visit.may(Scope.FORGET),
            forget=FORGET,
        )

    async def _find(self, id_: str, until: datetime | None = None) -> MailboxExplanation | UnreadableMailbox:
        """Return one mailbox with its last events, of those until a moment; raises Unknown."""
        found = [each for each in (await self._explanation(id_, until)).mailboxes if _id_of(each) == id_]
        if not found:
            raise Unknown(id_)
        return found[0]

    def _ordering(self, order: Order) -> Callable[[Visit], Awaitable[web.StreamResponse]]:
        async def ordering(visit: Visit) -> web.StreamResponse:
            id_ = visit.part("id")
            visit.tell(await self._admin.order(MailboxId(id_), order, visit.person.name))
            return self._console.back(_mailbox_path(id_))

        return ordering

    async def _forget(self, visit: Visit) -> web.StreamResponse:
        id_ = visit.part("id")
        one = await self._find(id_)
        if not isinstance(one, MailboxExplanation):
            visit.tell(NotDone("the row of the mailbox cannot be read: correct it first"))
            return self._console.back(_mailbox_path(id_))
        if visit.field("confirm") != one.mailbox.user:
            visit.tell(NotDone(f"to forget the mailbox, type its name: {one.mailbox.user}"))
            return self._console.back(_mailbox_path(id_))
        visit.tell(await self._admin.order(MailboxId(id_), Order.FORGET, visit.person.name))
        return self._console.back("/mailboxes")

    # --- registrations

    def _about(
        self, act: Callable[[RegistrationId, str], Awaitable[Done | NotDone]]
    ) -> Callable[[Visit], Awaitable[web.StreamResponse]]:
        async def acting(visit: Visit) -> web.StreamResponse:
            visit.tell(await act(RegistrationId(visit.part("id")), visit.person.name))
            return self._console.back(_mailbox_path(visit.field("mailbox")))

        return acting

    async def _forget_registration(self, visit: Visit) -> web.StreamResponse:
        if visit.field("confirm") != FORGET:
            visit.tell(NotDone(f"to forget the registration, type {FORGET}"))
        else:
            visit.tell(await self._admin.forget_registration(RegistrationId(visit.part("id")), visit.person.name))
        return self._console.back(_mailbox_path(visit.field("mailbox")))

    # --- what administrators did

    async def _acts(self, visit: Visit) -> web.StreamResponse:
        return await self._show_acts(visit, _number(visit.request.query.get("before", "")))

    async def _verify_acts(self, visit: Visit) -> web.StreamResponse:
        if self._verifying.locked():
            visit.tell(BUSY)
            return self._console.back("/acts")
        async with self._verifying:
            verdict = await self._admin.verify_acts()
        return await self._show_acts(visit, None, verdict=verdict)

    async def _show_acts(self, visit: Visit, before: int | None, **values: object) -> web.StreamResponse:
        acts = await self._admin.acts(ROWS, before)
        older = acts[-1].number if len(acts) == ROWS else None
        return self._console.show(visit, "acts.html", acts=acts, older=older, **{"verdict": None, **values})


class EgressPages:
    """What left the company, where this process has the log; elsewhere where to look."""

    def __init__(self, console: Console, viewer: Callable[[], EgressViewer] | None) -> None:
        """Add the pages; `viewer` returns what reads the log of this process, None: it has none."""
        self._console, self._viewer = console, viewer
        self._auditing = asyncio.Lock()
        console.links.append(("/egress", "Egress log"))
        console.open("GET", "/egress", Scope.READ, self._log)
        console.open("POST", "/egress/verify", Scope.READ, self._verify)

    async def _log(self, visit: Visit) -> web.StreamResponse:
        query = visit.request.query
        return await self._show(visit, query.get("file", ""), _number(query.get("before", "")))

    async def _show(self, visit: Visit, name: str, before: int | None, **values: object) -> web.StreamResponse:
        shown: dict[str, Any] = {"files": [], "page": None, "trouble": "", "audit": None, "audited": False}
        if self._viewer is None:
            return self._console.show(visit, "egress.html", has_log=False, **shown)
        viewer = self._viewer()
        try:
            shown["files"] = files = await asyncio.to_thread(viewer.files)
            name = name or (files[0].name if files else "")
            if name:
                shown["page"] = await self._page(viewer, name, before)
        except OSError as error:
            shown["trouble"] = error.strerror or str(error)
        return self._console.show(visit, "egress.html", has_log=True, **{**shown, **values})

    @staticmethod
    async def _page(viewer: EgressViewer, name: str, before: int | None) -> LogPage:
        """Return a page of a file; raises Unknown, OSError."""
        try:
            return await asyncio.to_thread(viewer.page, name, before)
        except FileNotFoundError as error:
            raise Unknown(name) from error

    async def _verify(self, visit: Visit) -> web.StreamResponse:
        if self._viewer is None:
            return self._console.back("/egress")
        if self._auditing.locked():
            visit.tell(BUSY)
            return self._console.back("/egress")
        async with self._auditing:
            try:
                found = await asyncio.to_thread(self._viewer().whole)
            except OSError as error:
                visit.tell(NotDone(f"the log cannot be read: {error.strerror or error}"))
                return self._console.back("/egress")
        return await self._show(visit, "", None, audit=found, audited=True)


def _filter(wanted: Wanted) -> MailboxFilter:
    """Return a filter; a state that there is not is any."""
    state = next((each for each in WatchState if each.value == wanted.state), None)
    return MailboxFilter(wanted.server or None, state, wanted.user)


def _id_of(one: MailboxExplanation | UnreadableMailbox) -> str:
    return one.mailbox.id if isinstance(one, MailboxExplanation) else one.id


def _mailbox_path(id_: str) -> str:
    return f"/mailboxes/{quote(id_, safe='')}"


def _number(text: str) -> int | None:
    """Return a number of the query; None: there is none, or it is no number."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else None  # noqa: PLR2004 -- as databases


def _moment(text: str, now: datetime) -> tuple[datetime | None, str]:
    """Return a moment of a form, in UTC, and what is wrong with it; None and nothing: the form has none."""
    if not text:
        return None, ""
    try:
        return timeline.read_moment(text, now, UTC), ""
    except ValueError as error:
        return None, str(error)
