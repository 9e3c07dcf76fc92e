"""The commands of the simulated server: from the body of a valid request to the document of its answer."""

from eas_watcher.errors import ProtocolViolation
from eas_watcher.wbxml.element import Element
from eas_watcher.wbxml.encode import encode
from relay.sandbox.eas.devices import PingParameters
from relay.sandbox.eas.hierarchy import answer_folder_sync, answer_settings
from relay.sandbox.eas.ping import PingAnswer, answer_ping, read_ping
from relay.sandbox.eas.provision import answer_provision, check_access
from relay.sandbox.eas.refusals import INVALID_XML, MALFORMED, MalformedRequest, RefusedByStatus
from relay.sandbox.eas.rules import Session
from relay.sandbox.eas.sync import answer_sync


def answer(command: str, root: Element | None, session: Session) -> bytes | PingAnswer | PingParameters:
    """Return the answer to a command in WBXML, or the parameters of a Ping that the server must hold.

    Raises RefusedByStatus.
    """
    try:
        return _answer(command, root, session)
    except (MalformedRequest, ProtocolViolation) as error:
        raise RefusedByStatus(MALFORMED[command], str(error)) from error


def _answer(command: str, root: Element | None, session: Session) -> bytes | PingAnswer | PingParameters:
    if command == "Ping":
        parameters = read_ping(root, session)
        if isinstance(parameters, PingAnswer):
            return parameters
        return answer_ping(parameters, session) or parameters
    if command == "Provision" and root is not None:
        return encode(answer_provision(root, session))
    check_access(session)
    if command == "Sync":
        return answer_sync(root, session)
    if root is not None:
        return encode(answer_folder_sync(root, session) if command == "FolderSync" else answer_settings(root, session))
    raise RefusedByStatus(INVALID_XML, f"{command} without a body")
