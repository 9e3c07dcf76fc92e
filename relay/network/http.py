"""Own how aiohttp's sessions get their connections from a dialler, so that HTTP takes the same way as all else."""

import ssl

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.tracing import Trace

from relay.network.dialling import Dialler


class DialledConnector(aiohttp.BaseConnector):
    """Keep connections that a dialler made; aiohttp's own proxies and resolvers have no part in it.

    aiohttp's connectors differ in this one method, which has no public name (aiohttp 3.14).
    """

    def __init__(self, dialler: Dialler, tls: ssl.SSLContext, *, limit_per_host: int, keepalive: float) -> None:
        """Take who connects, whom to trust, how many connections to a host there may be, and how long one may idle."""
        super().__init__(limit=0, limit_per_host=limit_per_host, keepalive_timeout=keepalive)
        self._dialler = dialler
        self._tls = tls

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],  # noqa: ARG002  # the signature is aiohttp's
        timeout: aiohttp.ClientTimeout,  # noqa: ARG002, ASYNC109  # the dialler has its own limit
    ) -> ResponseHandler:
        host, port = req.url.raw_host, req.url.port
        if host is None or port is None:
            raise aiohttp.InvalidURL(req.url)
        return await self._dialler.connect(self._factory, host, port, self._tls if req.is_ssl() else None)
