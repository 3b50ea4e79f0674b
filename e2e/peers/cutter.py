"""A TCP proxy that cuts the connections through it.

`reset` is what a crashed box or a lost link looks like. `close` ends the answer in progress as a gateway does that has
had enough: the body ends properly, with nothing more in it; connections without an open answer are closed.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LAST_CHUNK = b"0\r\n\r\n"
_CALL_SECONDS = 10


class Cutter:
    """Forwards connections to a port; `cut` may be called from any thread."""

    def __init__(self, target: int, loop: asyncio.AbstractEventLoop) -> None:
        self.target, self.loop = target, loop
        self.port = 0
        self.connections: set[Connection] = set()

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection((reader, writer), upstream)
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    def cut(self, how: str) -> int:
        """Cuts all connections; gives how many carried an answer in progress."""

        async def all_of_them() -> int:
            open_answers = 0
            for connection in list(self.connections):
                open_answers += connection.answer.open
                getattr(connection, how)()
            return open_answers

        return asyncio.run_coroutine_threadsafe(all_of_them(), self.loop).result(_CALL_SECONDS)


class Connection:
    """One connection on its way through."""

    def __init__(self, client: tuple, server: tuple) -> None:
        self.client_reader, self.client = client
        self.server_reader, self.server = server
        self.answer = ChunkedBody()

    async def run(self) -> None:
        directions = [self._pump(self.client_reader, self.server), self._pump(self.server_reader, self.client, self.answer)]
        tasks = [asyncio.create_task(direction) for direction in directions]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        self.client.close()
        self.server.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: "ChunkedBody | None" = None) -> None:
        try:
            while data := await reader.read(65536):
                if answer:
                    answer.saw(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    def reset(self) -> None:
        for writer in (self.client, self.server):
            raw = writer.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        if self.answer.open:
            self.client.write(_LAST_CHUNK)
        self.client.close()
        self.server.close()


class ChunkedBody:
    """Whether an answer in chunks is in progress, at a place where it may end: our server sends whole chunks."""

    def __init__(self) -> None:
        self.open = False

    def saw(self, data: bytes) -> None:
        if b"transfer-encoding: chunked" in data[:2048].lower():
            self.open = True
        if data.endswith(_LAST_CHUNK):
            self.open = False


@contextmanager
def cutting(target: int) -> Iterator[Cutter]:
    """A cutter before a port of this machine, for as long as the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    cutter = Cutter(target, loop)
    server = asyncio.run_coroutine_threadsafe(cutter.listen(), loop).result(_CALL_SECONDS)
    try:
        yield cutter
    finally:
        cutter.cut("reset")
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CALL_SECONDS)
