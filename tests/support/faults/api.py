"""A proxy before a Prefect server that changes its answers."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

Change = Callable[[str, httpx.Response], httpx.Response]  # of a request, such as "GET /flow_runs/…", and its answer
HOP_BY_HOP = {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}


@contextmanager
def serve_changed(api_url: str, change: Change) -> Iterator[str]:
    """Serve an API with its answers changed, and have Prefect's clients of this process use it; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if self.headers.get("Upgrade") == "websocket":
                self.pass_on()
                return
            path = self.path.removeprefix("/api")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            answer = httpx.request(
                self.command, api_url + path, content=body, headers=headers, timeout=30.0, trust_env=False
            )
            reply = change(f"{self.command} {path}", answer)
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        def pass_on(self) -> None:
            self.close_connection = True
            head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            with socket.create_connection(("127.0.0.1", urlsplit(api_url).port)) as upstream:
                upstream.sendall(f"{self.requestline}\r\n{head}\r\n".encode())
                threading.Thread(target=copy, args=(upstream, self.connection), daemon=True).start()
                copy(self.connection, upstream)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815 (http.server's names)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/api"
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes until one of the two closes."""
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
