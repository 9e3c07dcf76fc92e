from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.transport.holding import HoldsInTask
from relay.compose.servers import HostRouter


class Named(HoldsInTask):
    def __init__(self) -> None:
        self.urls: list[str] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.urls.append(request.url)
        return HttpReply(200, {}, b"")


async def test_each_host_is_reached_by_the_transport_that_trusts_it() -> None:
    own, other = Named(), Named()
    routes = HostRouter(own, {"mail2.example.com": other, "mail.example.com:8443": other})
    there = ["https://mail2.example.com:443/eas?Cmd=Ping", "https://mail.example.com:8443/eas"]
    here = ["https://mail.example.com/eas?Cmd=Ping", "https://mail2.example.com:8443/eas"]

    for url in (*there, *here):
        await routes.send(HttpRequest("POST", url, {}, b"", 1.0))

    assert (other.urls, own.urls) == (there, here)
