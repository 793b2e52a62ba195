"""A function that takes a whole request: the shortest application for bridge.

Run:  bridge run raw_callable:application --app-dir examples
Ask:  curl 'http://127.0.0.1:8000/?name=Ada'
"""

from bridge.core.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine


def application(request: HTTPServerRequest) -> None:
    name = request.arguments.get("name", [b"world"])[0].decode(errors="replace")
    content = f"Hello {name}, this is {request.path}\n".encode()
    headers = HTTPHeaders({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(content))})
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, content)
    request.connection.finish()
