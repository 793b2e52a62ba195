"""The same in Tornado's style."""

import asyncio
import os

from bridge.core.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    ResponseStartLine,
)


def _write(connection):
    content = str(os.getpid()).encode()
    fields = HTTPHeaders({"Content-Length": str(len(content))})
    connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), fields, content)
    connection.finish()


async def callable_app(request):
    if request.path.startswith("/sleep/"):
        await asyncio.sleep(float(request.path[7:]))
    _write(request.connection)


class _Message(HTTPMessageDelegate):
    def __init__(self, connection):
        self.connection = connection

    def headers_received(self, start_line, headers):
        self.path = start_line.path

    def finish(self):
        delay = float(self.path[7:]) if self.path.startswith("/sleep/") else 0
        asyncio.get_running_loop().call_later(delay, _write, self.connection)


class _Delegate(HTTPServerConnectionDelegate):
    def start_request(self, server_conn, request_conn):
        return _Message(request_conn)


delegate = _Delegate()
