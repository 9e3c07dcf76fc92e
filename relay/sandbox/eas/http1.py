"""HTTP/1.1 of the simulated EAS server, by aiohttp."""

from typing import Final

from aiohttp import web

from relay.sandbox.eas.answers import EasAnswers
from relay.sandbox.eas.messages import HttpVersion, NoAnswer, Request
from relay.sandbox.eas.requests import read_command

KEEP_IDLE: Final = 120.0  # seconds, the default of IIS; longer than clients keep a connection


class Http1Side:
    """The connections that speak HTTP/1.1."""

    def __init__(self, answers: EasAnswers) -> None:
        """Answer requests by `answers`."""
        self._answers = answers
        self._simulator = answers.simulator
        # The end of a connection ends its Ping: handler_cancellation.
        self.accept = web.Server(self._handle, handler_cancellation=True, access_log=None, keepalive_timeout=KEEP_IDLE)
        """Returns the protocol of a new connection."""

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self.accept.connections)

    async def close(self, seconds: float) -> None:
        """Close all connections; requests in flight have some seconds to end."""
        self.accept.pre_shutdown()
        await self.accept.shutdown(seconds)

    def drop(self) -> None:
        """Cut all connections."""
        for connection in self.accept.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _handle(self, arrived: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, then close its connection if the personality `closes` connections."""
        transport = arrived.transport
        request = Request(
            method=arrived.method,
            path=arrived.path,
            query=arrived.rel_url.raw_query_string,
            headers=arrived.headers,
            body=await arrived.read(),  # a server that hands requests to workers has read them
            connection=arrived.protocol,
            version=HttpVersion.HTTP_1_1,
            tls=None if transport is None else transport.get_extra_info("ssl_object"),
        )
        if read_command(request.query) == "Ping":  # HeldPings counts them
            answer = await self._answers.in_turn(request)
        else:
            with self._simulator.records.answering():
                answer = await self._answers.in_turn(request)
        if isinstance(answer, NoAnswer):
            if transport is not None:
                transport.abort()
            return web.Response()  # never sent
        response = web.Response(status=answer.status, body=answer.body or None, headers=answer.headers)
        closes = self._simulator.rules.personality.closes
        if answer.pinged or closes:
            await response.prepare(arrived)
            await response.write_eof()
            self._answers.sent(answer)
        if closes and transport is not None and not transport.is_closing():
            transport.close()
        return response
