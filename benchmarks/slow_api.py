"""Prefect's API, farther away: passes on what comes to a port to another one, each request so many seconds later."""

import asyncio
import sys


async def serve(port: int, target: int, seconds: float) -> None:
    """Take connections on 127.0.0.1 until the process ends."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, onward_writer, seconds), copy(onward_reader, writer, 0.0))

    server = await asyncio.start_server(pass_on, "127.0.0.1", port)
    await server.serve_forever()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Write what is read, each piece so many seconds after it came, until there is no more."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def read() -> None:
        while data := await reader.read(65_536):
            pieces.put_nowait((loop.time() + seconds, data))
        pieces.put_nowait((0.0, b""))

    reading = asyncio.ensure_future(read())
    while (piece := await pieces.get())[1]:
        await asyncio.sleep(piece[0] - loop.time())
        writer.write(piece[1])
    await reading
    writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
