"""A connection delegate, Tornado's documented interface. This one counts the bytes of content and keeps none.

Run:  bridge run raw_delegate:application --app-dir examples
Ask:  curl http://127.0.0.1:8000/  and  curl -T FILE http://127.0.0.1:8000/
"""

from bridge.core.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)


class Counter(HTTPMessageDelegate):
    """One request: head, content piece by piece, end."""

    def __init__(self, connection: HTTPConnection) -> None:
        self.connection = connection
        self.size = 0

    def headers_received(self, start_line: RequestStartLine, headers: HTTPHeaders) -> None:
        self.start_line = start_line

    def data_received(self, chunk: bytes) -> None:
        self.size += len(chunk)

    def finish(self) -> None:
        content = f"{self.start_line.method} {self.start_line.path} with {self.size} bytes\n".encode()
        headers = HTTPHeaders({"Content-Type": "text/plain", "Content-Length": str(len(content))})
        self.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, content)
        self.connection.finish()

    def on_connection_close(self) -> None:
        """The content will not come in full: the client has left, for example. A counter has nothing to clean up."""


class Application(HTTPServerConnectionDelegate):
    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return Counter(request_conn)


application = Application()
