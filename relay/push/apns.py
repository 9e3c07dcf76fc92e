"""Own the adapter that hands pushes to APNs: a push becomes a request, an answer or a failure becomes an outcome."""

import asyncio
import re
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aioapns import NotificationRequest, PushType
from aioapns.common import NotificationResult
from aioapns.exceptions import ConnectionClosed
from h2.exceptions import H2Error

from relay.model import DuePush, Environment
from relay.network.dialling import Dialler
from relay.network.way import STRAIGHT, Way
from relay.push.apns_answers import read_apns
from relay.push.apns_connection import ApnsCertificate, ApnsClient, ApnsToken, Endpoint, ProviderTokens
from relay.push.apns_protocol import NotSent
from relay.push.egress_log import Egress, Unwritable
from relay.push.failures import read_failure
from relay.push.outcome import Delivered, Outcome, Refused, RetryLater
from relay.push.payload import ApnsMessage, Notice

DEVICE_TOKEN: Final = re.compile(r"(?:[0-9a-fA-F]{2}){1,100}", re.ASCII)
"""Hex of up to 100 bytes [Apple: Registering your app with APNs]; it becomes a path, so nothing else may pass."""


@dataclass(frozen=True, slots=True)
class ApnsConfig:
    """Hold how to reach APNs and as whom."""

    topics: frozenset[str]
    """The apps that may be pushed to."""
    authentication: ApnsToken | ApnsCertificate
    host: str = "api.push.apple.com"
    port: int = 443
    sandbox_host: str = "api.sandbox.push.apple.com"
    sandbox_port: int = 443
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's."""
    in_flight: int = 100
    """Pushes at once per environment: their bodies fit into HTTP/2's first window of 65,535 bytes."""
    time_limit: float = 20.0
    """Seconds for one push, connecting included."""
    way: Way = STRAIGHT
    """How connections are made: through which proxy, from which address."""


class ApnsSender:
    """Send pushes to both environments of APNs; use as an async context manager."""

    def __init__(self, config: ApnsConfig, egress: Egress) -> None:
        """Check the key or certificate; raises ValueError or OSError when there is no valid one or no topic."""
        self._egress = egress
        if not config.topics:
            raise ValueError("apns.topics names no app")
        self._config = config
        self._topic = min(config.topics)
        self._tls = ssl.create_default_context(cafile=config.ca_file)
        self._tls.set_alpn_protocols(["h2"])
        self._dialler = Dialler(config.way)
        self._tokens: ProviderTokens | None = None
        if isinstance(config.authentication, ApnsToken):
            self._tokens = ProviderTokens(config.authentication)
        else:
            self._tls.load_cert_chain(config.authentication.file)
        self._endpoints = {
            Environment.PRODUCTION: Endpoint(config.host, config.port),
            Environment.SANDBOX: Endpoint(config.sandbox_host, config.sandbox_port),
        }
        self._room = {environment: asyncio.Semaphore(config.in_flight) for environment in Environment}
        self._clients: dict[Environment, ApnsClient] = {}
        self._retired: dict[ApnsClient, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, push: DuePush) -> Outcome:
        """Hand one push to APNs; answers within the time limit whatever happens."""
        refusal = self._refusal(push)
        if refusal is not None:
            return refusal
        message = ApnsMessage(Notice.of(push))
        client: ApnsClient | None = None
        try:
            async with asyncio.timeout(self._config.time_limit), self._room[push.environment]:
                client = self._client(push.environment)
                self._egress.apns(push.app, push.device_token, message)
                result = await client.send(_request(push, message))
        except Unwritable as error:
            return RetryLater(f"egress-log: {error}")
        except NotSent:
            return RetryLater("stream-refused")
        except (TimeoutError, OSError, H2Error, ConnectionClosed) as error:
            # aioapns knows no way back for a connection in doubt, so the next push gets a client of its own.
            if client is not None:
                self._retire(push.environment, client)
            return read_failure(error, "apns.ca_file")
        return self._read(result)

    async def close(self) -> None:
        """Cut all connections; pushes under way answer RetryLater."""
        clients = [*self._clients.values(), *self._retired]
        self._clients.clear()
        for client in clients:
            await client.close()
        if self._retired:
            await asyncio.wait(set(self._retired.values()))

    def _refusal(self, push: DuePush) -> Refused | None:
        if push.app not in self._config.topics:
            return Refused("topic-not-configured", "add the app's bundle id to apns.topics")
        if not DEVICE_TOKEN.fullmatch(push.device_token):
            return Refused("malformed-device-token", "let the app register again; the device token is no hex text")
        return None

    def _read(self, result: NotificationResult) -> Outcome:
        reason = result.description or ""
        outcome = read_apns(int(result.status), reason, result.timestamp)
        if isinstance(outcome, Delivered):
            return replace(outcome, provider_id=result.notification_id)
        if reason == "ExpiredProviderToken" and self._tokens is not None:
            now = asyncio.get_running_loop().time()
            if self._tokens.renew(now):
                return RetryLater(reason)
        return outcome

    def _client(self, environment: Environment) -> ApnsClient:
        client = self._clients.get(environment)
        if client is None:
            endpoint, authentication = self._endpoints[environment], self._config.authentication
            client = ApnsClient(endpoint, authentication, self._tokens, self._topic, self._tls, self._dialler)
            self._clients[environment] = client
        return client

    def _retire(self, environment: Environment, client: ApnsClient) -> None:
        if self._clients.get(environment) is not client:
            return
        del self._clients[environment]
        task = asyncio.get_running_loop().create_task(client.drain(), name="APNs client drains")
        self._retired[client] = task
        task.add_done_callback(lambda _: self._retired.pop(client))


def _request(push: DuePush, message: ApnsMessage) -> NotificationRequest:
    return NotificationRequest(
        device_token=push.device_token,
        message=message.body,
        time_to_live=message.notice.lifetime,
        priority=message.priority,
        collapse_key=message.notice.collapse_id,
        push_type=PushType(message.push_type),
        apns_topic=push.app,
    )
