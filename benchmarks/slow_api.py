"""A TCP proxy that delays requests, to place Prefect's API farther away: `slow_api PORT TARGET_PORT SECONDS`."""

import asyncio
import sys


async def serve(port: int, target: int, seconds: float) -> None:
    """Forward connections from 127.0.0.1:port to 127.0.0.1:target until the process ends."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, target_writer, seconds), copy(target_reader, writer, 0.0))

    server = await asyncio.start_server(forward, "127.0.0.1", port)
    await server.serve_forever()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Write each chunk after the delay, and close the writer when the reader ends."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(65_536):
        loop.call_later(seconds, writer.write, data)
    loop.call_later(seconds, writer.close)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
