"""The adapter that sends pushes to FCM v1: it renders, logs, sends, and reads the answer."""

import asyncio
from dataclasses import replace
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Self

import aiohttp

from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.transport.deadlines import Deadlines
from relay.domain.clock import Clock
from relay.domain.fcm_device import FcmDevice
from relay.domain.model import DuePush
from relay.domain.outcome import Delivered, Outcome, Reach, Refused, RetryLater
from relay.network.posting import Poster, Reply
from relay.push.egress.leaving import Egress, Unwritable, held
from relay.push.failures import read_failure
from relay.push.fcm.account import ServiceAccount
from relay.push.fcm.accounts import Account
from relay.push.fcm.answers import quota_of_project, read_fcm, token_refused
from relay.push.fcm.budget import HighPriorityBudget
from relay.push.fcm.config import FcmConfig
from relay.push.fcm.projects import Projects
from relay.push.fcm.tokens import AccessToken, TokenNotGiven
from relay.push.key_files import KeyFile
from relay.push.payload import FcmMessage, Notice


class FcmSender:
    """A sender for all projects of FCM; use it as an async context manager."""

    def __init__(
        self,
        config: FcmConfig,
        clock: Clock,
        random: Random,
        egress: Egress,
        clocks: PeerClocks | None = None,
        *,
        receipts: bool = False,
    ) -> None:
        """Read the service accounts; raises ValueError or OSError when a file is not one.

        `clocks` gets the dates of Google's answers. With `receipts` a push has an id that its app may acknowledge.
        """
        self._config = config
        self._receipts = receipts
        self._clock = clock
        self._egress = egress
        self._http = Poster(config.ca_file, config.in_flight, config.route, clocks=clocks)
        self._deadlines = Deadlines()
        self._budget = HighPriorityBudget(config.high_priority_per_hour)
        self.projects = Projects(config.accounts, config.in_flight, random)
        """What the relay knows of each project, for claims, health and metrics."""
        self._accounts = [Account(account, config.endpoint, self._http, clock, random) for account in config.accounts]
        for project in self._accounts:
            project.file.listen(partial(self._hurry, project))
        self._by_app = {
            app: project
            for account, project in zip(config.accounts, self._accounts, strict=True)
            for app in account.apps
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def key_files(self) -> list[KeyFile[Any]]:
        """The files to watch for changes, one for each project."""
        return [project.file for project in self._accounts]

    async def send(self, push: DuePush) -> Outcome:
        """Send one push to FCM as the project of its app; returns within the time limit and a second in every case."""
        project = self._by_app.get(push.app)
        if project is None:
            return _not_configured(push)
        waits = self.projects.admit(project.table, push, _moment())
        if waits is not None:
            return waits
        outcome, of_project = None, False
        try:
            phone = FcmDevice.read(push.device_token).phone
            notice = Notice.of(push, receipt=self._receipts)
            message = FcmMessage(notice, spare=not self._budget.allows(phone, _moment()))
            outcome, of_project = await self._send(project, push, message)
        finally:
            self.projects.ended(project.table, push, outcome, _moment(), of_project=of_project)
        if isinstance(outcome, Delivered):
            if message.wakes:
                self._budget.spend(phone, _moment())
            return replace(outcome, lowered=message.lowered)
        if isinstance(outcome, RetryLater) and of_project and self.projects.several:
            return replace(outcome, provider=False)  # it concerns this one project: the others go on
        return outcome

    async def validate(self, push: DuePush) -> Outcome:
        """Ask FCM whether it would send a push, and send none; returns within the time limit and a second."""
        project = self._by_app.get(push.app)
        if project is None:
            return _not_configured(push)
        outcome, _ = await self._send(project, push, FcmMessage(Notice.of(push)), sends=False)
        return outcome

    async def close(self) -> None:
        """Close all connections; pushes in flight end as RetryLater."""
        for project in self._accounts:
            await project.close()
        await self._http.close()

    def _hurry(self, project: Account, _: ServiceAccount) -> None:
        """Let a project whose service account has changed be tried at once."""
        self.projects.hurry(project.table, _moment())

    async def _send(
        self, project: Account, push: DuePush, message: FcmMessage, *, sends: bool = True
    ) -> tuple[Outcome, bool]:
        """Return the outcome of a push, and whether its reason is one of the project alone: its quota, its tokens."""
        account, tokens = project.identity
        body = account.body(push.device_token, message, sends=sends)
        try:
            with self._deadlines.within(self._config.time_limit):
                token = await tokens.get()
                reply = await self._post(push, account.url, body, token)
                if token_refused(reply.status, reply.body):
                    reply = await self._post(push, account.url, body, await tokens.renew(token))
        except TokenNotGiven as error:
            return error.outcome, True
        except Unwritable as error:
            return held(error), False
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            return read_failure(error, "fcm.ca_file"), False
        outcome = read_fcm(reply.status, reply.body, reply.headers, self._clock(), project.table)
        return outcome, quota_of_project(reply.status, reply.body)

    async def _post(self, push: DuePush, url: str, body: bytes, token: AccessToken) -> Reply:
        self._egress.fcm(push.app, push.device_token, body)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token.value}"}
        return await self._http.post(url, headers, body)


def _not_configured(push: DuePush) -> Refused:
    remedy = f"add {push.app} to fcm.apps, or to apps of the [fcm.accounts.NAME] of its Firebase project"
    return Refused("app-not-configured", remedy, reach=Reach.HERE)


def _moment() -> float:
    return asyncio.get_running_loop().time()
