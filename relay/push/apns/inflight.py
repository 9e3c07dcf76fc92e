"""Own the requests under way on one connection: which stream carries which, and how each gets its answer or its end."""

from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

from relay.push.apns.exchange import Call, MaybeSent, NotSent
from relay.push.apns.h2_engine import Engine, error_name
from relay.push.apns.streams import Streams


class UnderWay:
    """Match what comes on streams with those who wait for it, and give streams back that have ended."""

    def __init__(self, engine: Engine, streams: Streams) -> None:
        """Take the engine of the connection, and who hands out its streams."""
        self._engine = engine
        self._streams = streams
        self._calls: dict[int, Call] = {}
        self.answered = False
        """Whether any answer came so far."""

    def __len__(self) -> int:
        """Count the requests that wait for their answers."""
        return len(self._calls)

    def __contains__(self, stream_id: object) -> bool:
        """Tell whether somebody waits for the answer on a stream."""
        return stream_id in self._calls

    def add(self, stream_id: int, call: Call) -> None:
        """Take a request that was sent."""
        self._calls[stream_id] = call

    def take(self, event: Event) -> None:
        """Take what came on a stream; events of other kinds change nothing."""
        match event:
            case ResponseReceived(stream_id=int(stream_id), headers=headers):
                call = self._calls.get(stream_id)
                if call is not None:
                    call.begin(headers)
            case DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=int(length)):
                # Its room in the window goes back, else 65,535 bytes of refusals stall all.
                self._engine.acknowledge_received_data(length, stream_id)
                call = self._calls.get(stream_id)
                if call is not None:
                    call.take(data)
            case StreamEnded(stream_id=int(stream_id)):
                self.answered = True
                call = self.end(stream_id)
                if call is not None:
                    call.finish()
            case StreamReset(stream_id=int(stream_id), error_code=ErrorCodes.REFUSED_STREAM):
                self._fail(stream_id, NotSent("stream-refused"))
            case StreamReset(stream_id=int(stream_id), error_code=int(code)):
                self._fail(stream_id, MaybeSent(f"stream-reset: {error_name(code)}"))
            case _:
                pass

    def end(self, stream_id: int) -> Call | None:
        """Free a stream; return whose it was if it was under way."""
        call = self._calls.pop(stream_id, None)
        self._engine.forget(stream_id)
        if call is not None:
            self._streams.release()
        return call

    def fail(self, error: type[NotSent | MaybeSent], why: str, beyond: int = 0) -> None:
        """Tell all who wait on later streams than `beyond` that no answer will come."""
        for stream_id in [stream_id for stream_id in self._calls if stream_id > beyond]:
            self._fail(stream_id, error(why))

    def _fail(self, stream_id: int, error: NotSent | MaybeSent) -> None:
        call = self.end(stream_id)
        if call is not None:
            call.fail(error)
