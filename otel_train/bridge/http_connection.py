"""One connection of HTTP/1.1: one request after the other, within bounds of size and time. h11 has the protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

import h11

HEAD_BYTES = 16_384
"""Size of a request's line and headers."""
HEAD_SECONDS = 10.0
"""Time for a request's line and headers, and for the first byte of a connection."""
BODY_SECONDS = 60.0
IDLE_SECONDS = 120.0
"""Time between two requests; a sender's interval is a minute where it is not set."""
WRITE_SECONDS = 10.0
"""Time for an answer to leave: a client may not read."""
LINGER_SECONDS = 2.0
"""Time in which the rest of a refused body is read: a connection that is closed before takes the answer with it."""
BODY_PARTS = 16_384
"""Pieces of a body: chunks of a byte each would keep the loop busy for minutes."""
READ_BYTES = 2**18
"""Bytes that are read at once. Each turn of the loop may have to wait for the interpreter, which wandb's threads
hold."""
READS_A_TURN = 16
"""Reads of one client after which the others have their turn, whatever has come."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request."""

    status: int
    content: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


_STOPPING = Answer(503, headers=(("Retry-After", "5"),))


class SlowBodyError(Exception):
    """A body does not come in time, or in too many pieces."""


class Body:
    """The body of a request, which is read when it is asked for.

    Args:
        connection: The connection that it comes over.
        request: The request.
    """

    def __init__(self, connection: Connection, request: h11.Request) -> None:
        self._connection = connection
        self._left = BODY_PARTS
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        lengths = [int(value) for name, value in request.headers if name == b"content-length"]
        self.length = lengths[0] if lengths else None
        """Number of bytes that the client has announced; None for a chunked body, and where there is none."""
        self.chunked = any(name == b"transfer-encoding" for name, _ in request.headers)

    async def read(self) -> bytes:
        """Wait for the next part and return it; nothing at the end.

        Raises:
            SlowBodyError: It does not come in time.
        """
        self._left -= 1
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._connection.next_event()
        except TimeoutError:
            raise SlowBodyError from None
        if self._left < 0:
            raise SlowBodyError
        return bytes(event.data) if isinstance(event, h11.Data) else b""


Respond = Callable[[h11.Request, Body], Awaitable[Answer]]
"""Returns the answer to a request."""


class Connection:
    """A client's connection.

    Args:
        reader: What the client sends.
        writer: What the client gets.
        respond: Makes the answers.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, respond: Respond) -> None:
        self._reader, self._writer, self._respond = reader, writer, respond
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._has_body = True
        self._reads = 0
        self.last = False
        """Whether it ends with the answer to the request that is being answered."""

    @property
    def idle(self) -> bool:
        """Whether no request has begun."""
        return self._protocol.their_state is h11.IDLE

    async def serve(self) -> None:
        """Answer requests until the client, an error or a bound ends the connection."""
        try:
            await self._answer_all()
        except h11.RemoteProtocolError as error:
            await self._refuse(Answer(error.error_status_hint))
        except (OSError, TimeoutError):  # the client is gone, or too slow
            pass
        except asyncio.CancelledError:  # a stop that does not wait longer
            if self._protocol.our_state is h11.SEND_RESPONSE:
                await self._refuse(_STOPPING)
            raise
        finally:
            self._writer.close()

    async def refuse(self, answer: Answer) -> None:
        """Give one answer, whatever comes, and end the connection."""
        try:
            await self._refuse(answer)
        finally:
            self._writer.close()

    async def _refuse(self, answer: Answer) -> None:
        self.last = True
        with contextlib.suppress(OSError, TimeoutError, h11.LocalProtocolError):
            await self._send(answer)
            await self._linger()

    async def _answer_all(self) -> None:
        seconds = HEAD_SECONDS
        while True:
            if not self._protocol.trailing_data[0]:
                async with asyncio.timeout(seconds):
                    await self._receive()
            async with asyncio.timeout(HEAD_SECONDS):
                request = await self.next_event()
            if not isinstance(request, h11.Request):
                return
            self._has_body = request.method != b"HEAD"
            answer = await self._respond(request, Body(self, request))
            self._skip_received()
            self.last |= self._protocol.their_state is not h11.DONE
            await self._send(answer)
            if self._protocol.our_state is not h11.DONE:
                await self._linger()
                return
            self._protocol.start_next_cycle()
            seconds = IDLE_SECONDS

    async def next_event(self) -> h11.Event | type[h11.PAUSED | h11.NEED_DATA]:
        """Wait for the next part of what the client sends.

        Raises:
            h11.RemoteProtocolError: It breaks the protocol's rules.
        """
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            if self._protocol.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            await self._receive()
        return event

    async def _receive(self) -> None:
        self._reads += 1
        if self._reads % READS_A_TURN == 0:
            await asyncio.sleep(0)
        self._protocol.receive_data(await self._reader.read(READ_BYTES))

    def _skip_received(self) -> None:
        """Read what has come already of a body that the answer was made without."""
        while self._protocol.their_state is h11.SEND_BODY:
            if self._protocol.next_event() is h11.NEED_DATA:
                return

    async def _send(self, answer: Answer) -> None:
        headers = [*answer.headers, ("Content-Length", str(len(answer.content))), ("Date", formatdate(usegmt=True))]
        if self.last:
            headers.append(("Connection", "close"))
        content = [h11.Data(data=answer.content)] if self._has_body and answer.content else []
        response = h11.Response(
            status_code=answer.status, headers=headers, reason=HTTPStatus(answer.status).phrase.encode()
        )
        await self._write(response, *content, h11.EndOfMessage())

    async def _write(self, *events: h11.Event) -> None:
        for event in events:
            self._writer.write(self._protocol.send(event) or b"")
        async with asyncio.timeout(WRITE_SECONDS):
            await self._writer.drain()

    async def _linger(self) -> None:
        """Read on for a while before the connection is closed."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(LINGER_SECONDS):
            while await self._reader.read(READ_BYTES):  # noqa: ASYNC110  # no event is waited for
                await asyncio.sleep(0)  # the turn of the others
