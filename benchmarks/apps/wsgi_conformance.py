"""One small application for every row of the WSGI conformance table; it reports what it saw under /report."""

import contextvars
import json
import sys
import threading
import time

PLAIN = [("Content-Type", "text/plain")]
SEEN = {}
VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Noted:
    """An iterable that notes which threads used it and whether it was closed."""

    def __init__(self, name, chunks):
        self.name = name
        self.chunks = iter(chunks)
        self.threads = {threading.get_ident()}
        SEEN[name] = {"closed": False, "threads": 1}

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.get_ident())
        time.sleep(0.01)  # lets other threads run, and servers that change threads change them
        return next(self.chunks)

    def close(self):
        self.threads.add(threading.get_ident())
        SEEN[self.name] = {"closed": True, "threads": len(self.threads)}


def text(start_response, value, headers=()):
    body = json.dumps(value).encode()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body))), *headers])
    return [body]


def app(environ, start_response):
    return ROUTES[environ["PATH_INFO"].strip("/")](environ, start_response)


def readlines(environ, start_response):
    stream = environ["wsgi.input"]
    return text(start_response, [stream.readline().decode() for _ in range(3)])


def iterate(environ, start_response):
    return text(start_response, [line.decode() for line in environ["wsgi.input"]])


def write(environ, start_response):
    send = start_response("200 OK", PLAIN)
    send(b"written, ")
    return [b"returned"]


def empty(environ, start_response):
    start_response("204 No Content", [])
    return []


def replace(environ, start_response):
    start_response("200 OK", PLAIN)
    try:
        raise ValueError
    except ValueError:
        start_response("500 Replaced", PLAIN, sys.exc_info())
    return [b"replaced"]


def late(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b""
    try:
        raise ValueError
    except ValueError:
        start_response("500 Replaced", PLAIN, sys.exc_info())
    yield b"replaced"


def closing(environ, start_response):
    start_response("200 OK", PLAIN)
    return Noted("closing", [b"x"] * 5)


def closing_fails(environ, start_response):
    start_response("200 OK", PLAIN)
    return Noted("closing_fails", failing())


def failing():
    yield b"begun"
    raise ValueError("in the middle")


def facts(environ, start_response):
    value = {
        name: environ.get(name)
        for name in ("SERVER_PROTOCOL", "SERVER_PORT", "HTTP_COOKIE", "HTTP_X_Y", "REQUEST_URI", "RAW_URI", "PATH_INFO")
    }
    value["types"] = sorted({type(v).__name__ for k, v in environ.items() if k.isupper()})
    value["foreign"] = sorted(name for name in ("PATH", "HOME", "PYTHONPATH") if name in environ)
    value["terminated"] = environ.get("wsgi.input_terminated")
    value["disconnect"] = [
        name for name in ("bridge.client_disconnected", "waitress.client_disconnected") if name in environ
    ]
    value["wrapper"] = "wsgi.file_wrapper" in environ
    return text(start_response, value)


def wrapper(environ, start_response):
    file = open(__file__, "rb")  # noqa: SIM115 -- the server closes it
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](file)


def arriving(environ, start_response):
    SEEN["arriving"] = "called"
    data = environ["wsgi.input"].read(5)
    SEEN["arriving"] = data.decode()
    return text(start_response, len(environ["wsgi.input"].read()))


def leaving(environ, start_response):
    SEEN["leaving"] = "called"
    try:
        data = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    except Exception as exc:
        SEEN["leaving"] = f"raises {type(exc).__name__}"
        raise
    SEEN["leaving"] = f"returns {len(data)} of 100 bytes"
    return text(start_response, len(data))


def chunked(environ, start_response):
    data = (
        environ["wsgi.input"].read()
        if environ.get("wsgi.input_terminated")
        else environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    )
    return text(start_response, data.decode())


def variable(environ, start_response):
    before = VARIABLE.get()
    VARIABLE.set("leaked")
    return text(start_response, before)


def short(environ, start_response):
    start_response("200 OK", [*PLAIN, ("Content-Length", "10")])
    return iter([b"12345"])


def long(environ, start_response):
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    return iter([b"1234567890"])


def hop(environ, start_response):
    start_response("200 OK", [*PLAIN, ("Transfer-Encoding", "chunked")])
    return [b"hello"]


def split(environ, start_response):
    start_response("200 OK", [*PLAIN, ("X-Evil", "a\r\nInjected: yes")])
    return [b"hello"]


def twice(environ, start_response):
    start_response("200 OK", PLAIN)
    start_response("201 Created", PLAIN)
    return [b"hello"]


def never(environ, start_response):
    return [b"hello"]


def words(environ, start_response):
    start_response("200 OK", PLAIN)
    return ["text"]


def head(environ, start_response):
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    return [b"hello"]


def one(environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"hello"]


def report(environ, start_response):
    return text(start_response, SEEN.get(environ["QUERY_STRING"]))


ROUTES = {
    function.__name__: function
    for function in (
        readlines, iterate, write, empty, replace, late, closing, closing_fails, facts, wrapper, arriving, leaving,
        chunked, variable, short, long, hop, split, twice, never, words, head, one, report,
    )
} | {"": one}  # fmt: skip


def __getattr__(name):
    """The same as an ASGI application, by a2wsgi or asgiref, when it is asked for."""
    if name == "by_a2wsgi":
        from a2wsgi import WSGIMiddleware

        return WSGIMiddleware(app)
    if name == "by_asgiref":
        from asgiref.wsgi import WsgiToAsgi

        return WsgiToAsgi(app)
    raise AttributeError(name)
