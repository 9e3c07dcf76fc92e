"""Test that a grant has one holder of its tokens, which follows the settings of its server."""

from random import Random

from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.grant import OAuthClient
from eas_watcher.transport.tokens import TokenEndpoint
from relay.security.sealing import SealingPrivateKey, generate, read_private
from relay.watch.oauth_grants import Grants
from tests.fakes.eas import ScriptedTransport
from tests.fakes.ops import NOON
from tests.fakes.watches import NoWatches
from tests.unit.relay.watch.test_verification import MAILBOX

GRANT = OAuthCredential("ann@example.com", "refresh-token")


def endpoint(url: str) -> TokenEndpoint:
    return TokenEndpoint(OAuthClient(url, "push-relay"), ScriptedTransport(), lambda: NOON)


async def test_the_holder_of_a_grant_asks_another_endpoint_once_it_is_configured() -> None:
    grants = Grants(SealingPrivateKey(read_private(generate()[0])), NoWatches(), Random(1))
    before, after = endpoint("https://login.example.com/token"), endpoint("https://login2.example.com/token")
    holder = grants.tokens(MAILBOX, b"sealed", GRANT, before)

    assert grants.tokens(MAILBOX, b"sealed", GRANT, before) is holder
    assert grants.tokens(MAILBOX, b"sealed", GRANT, after) is holder, "two holders would spend one refresh token twice"
    assert holder.endpoint is after
    await grants.settle()
