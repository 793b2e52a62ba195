"""The same application under another server and under bridge with the same words: the same requests, answers compared.

What differs has a row in DIFFERENCES, with the reason.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import Running

#: Words of each server; both are started with them, on free ports.
SERVERS = {
    "gunicorn": ["gunicorn", "-b", "127.0.0.1:{port}", "echoes:wsgi"],
    "waitress": ["waitress-serve", "--listen=127.0.0.1:{port}", "echoes:wsgi"],
    "uvicorn": ["uvicorn", "--port", "{port}", "echoes:asgi"],
    "hypercorn": ["hypercorn", "-b", "127.0.0.1:{port}", "echoes:asgi"],
    "daphne": ["daphne", "-b", "127.0.0.1", "-p", "{port}", "echoes:asgi"],
    "granian": ["granian", "--interface", "asginl", "--port", "{port}", "echoes:asgi"],
}
APPLICATION = """
import json

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    told = {
        "keys": sorted(scope),
        "method": scope["method"], "path": scope["path"], "query": scope["query_string"].decode(),
        "root": scope.get("root_path"), "scheme": scope["scheme"], "version": scope["http_version"],
        "client": scope["client"][0] if scope.get("client") else None,
        "fields": sorted(name.decode() for name, _ in scope["headers"]), "body": len(body),
    }
    await answer(scope["path"], told, send)

async def answer(path, told, send):
    status = int(path.rpartition("/")[2]) if path.startswith("/status/") else 200
    text = b"" if status in (204, 304) else json.dumps(told).encode()
    fields = [(b"content-type", b"application/json"), (b"x-a", b"1"), (b"x-a", b"2")]
    if not path.startswith("/chunked"):
        fields.append((b"content-length", str(len(text)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": text})

def wsgi(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    path = environ["PATH_INFO"]
    told = {
        "keys": sorted(key for key in environ if key.isupper() or key.startswith("wsgi.")),
        "method": environ["REQUEST_METHOD"], "path": path, "query": environ["QUERY_STRING"],
        "root": environ["SCRIPT_NAME"], "scheme": environ["wsgi.url_scheme"], "version": environ["SERVER_PROTOCOL"],
        "client": environ["REMOTE_ADDR"], "body": len(body),
        "values": {key: environ[key] for key in environ if key.startswith("HTTP_") and key != "HTTP_HOST"},
    }
    status = int(path.rpartition("/")[2]) if path.startswith("/status/") else 200
    text = b"" if status in (204, 304) else json.dumps(told).encode()
    fields = [("Content-Type", "application/json"), ("X-A", "1"), ("X-A", "2")]
    if not path.startswith("/chunked"):
        fields.append(("Content-Length", str(len(text))))
    start_response(f"{status} Something", fields)
    return [text]
"""

#: method, target, fields, content
REQUESTS: list[tuple[str, str, dict[str, str], bytes]] = [
    *(("GET", path, {}, b"") for path in (
        "/", "/a", "/a/b/", "/a%20b", "/%C3%A9", "/a+b", "/a?b=c", "/?a=1&a=2", "/a?", "/a?b=%20", "/a;b=c", "/a//b",
        "/%2Fa", "/a%2fb", "/~a", "/a?b?c", "/chunked", "/a%25b", "/a:b",
    )),
    *((method, "/m", {}, b"") for method in ("HEAD", "OPTIONS", "DELETE")),
    *((method, "/m", {"Content-Type": "text/plain"}, b"content") for method in ("POST", "PUT", "PATCH", "DELETE")),
    ("POST", "/big", {}, b"x" * 200_000),
    ("POST", "/empty", {"Content-Length": "0"}, b""),
    *(("GET", f"/status/{status}", {}, b"") for status in (201, 204, 302, 304, 404, 418, 500, 503)),
    ("GET", "/", {"X-Forwarded-Proto": "https"}, b""),
    ("GET", "/", {"X-Forwarded-For": "203.0.113.9"}, b""),
    ("GET", "/", {"X-Forwarded-Ssl": "on"}, b""),
    ("GET", "/", {"X-Forwarded-Protocol": "ssl"}, b""),
    ("GET", "/", {"X-Forwarded-Scheme": "https", "X-Scheme": "https"}, b""),
    ("GET", "/a/b%20c?q", {"SCRIPT_NAME": "/a"}, b""),
    ("GET", "/a", {"SCRIPT_NAME": "/a"}, b""),
    ("GET", "/", {"X-Under_Score": "1", "Accept": "text/html", "Cookie": "a=b; c=d"}, b""),
    ("GET", "/", {"Connection": "close"}, b""),
]  # fmt: skip

#: What is not the same on purpose: a pattern of "request: what", and why.
LENGTH = (
    r"^GET /chunked: Transfer-Encoding, here Content-Length$",
    "the response is complete at once, so its size is known",
)
STATE = (r": keys \['state'\], here \[('extensions')?\]$", "no state without a lifespan; extensions of ASGI")
DIFFERENCES: dict[str, list[tuple[str, str]]] = {
    "gunicorn": [
        (
            r": keys (\['HTTP_SCRIPT_NAME'\]|\[\]), here \['GATEWAY_INTERFACE', ('HTTPS', )?'REQUEST_URI'\]$",
            "variables that CGI has (RFC 3875)",
        ),
        (r" SCRIPT_NAME: values .*'HTTP_SCRIPT_NAME'.*, here ", "it stands in SCRIPT_NAME already"),
        LENGTH,
    ],
    "waitress": [
        (
            r": keys \['REMOTE_HOST'\], here \['GATEWAY_INTERFACE', 'RAW_URI', 'wsgi.early_hints'\]$",
            "an address is no name",
        ),
        (r"^GET /%2Fa: path /a, here //a$", "the path is what the client has sent"),
        (
            r"^GET / X-Forwarded-(Ssl|Protocol|Scheme).*: (keys|values) .*'HTTP_X_(FORWARDED_|SCHEME)",
            "nobody is trusted, so no report of a proxy reaches the application",
        ),
    ],
    "uvicorn": [STATE, LENGTH],
    "hypercorn": [STATE, LENGTH],
    "daphne": [
        (r": keys \[\], here \['extensions'\]$", "extensions of ASGI"),
        (
            r": fields \[\], here \['(x-under_score|script_name)'\]$",
            "ASGI passes every name on; Django drops such names itself",
        ),
        LENGTH,
    ],
    "granian": [STATE],
}


def ask(port: int) -> list[tuple[str, int, dict[str, Any], str, list[str]]]:
    """Return (request, status, what the application was told, framing, values of X-A) of each answer."""
    found = []
    for method, target, fields, content in REQUESTS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, target, content or None, fields)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        name = f"{method} {target} {' '.join(fields)}".strip()
        framing = "Transfer-Encoding" if answer.getheader("Transfer-Encoding") else "Content-Length"
        told = json.loads(text) if text else {}
        found.append((name, answer.status, told, framing, answer.headers.get_all("X-A") or []))
    return found


def port_of(server: Running, port: int) -> int:
    import time
    from socket import create_connection

    end = time.monotonic() + 60
    while True:
        try:
            create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert server.process.poll() is None, server.messages.text
            assert time.monotonic() < end, server.messages.text
            time.sleep(0.05)  # other servers have no common sign that they listen
        else:
            assert server.process.poll() is None, server.messages.text  # or somebody else has got the port
            return port


def free_port() -> int:
    from socket import create_server

    with create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def differences(name: str, place: Path) -> list[str]:
    words = SERVERS[name]
    answers = []
    for command in ([str(Path(sys.executable).parent / words[0])], [sys.executable, "-m", "bridge", words[0]]):
        port = free_port()
        rest = [word.format(port=port) for word in words[1:]]
        with Running(
            command=[*command, *rest], cwd=place, environ={"PYTHONPATH": str(Path(__file__).parents[2])}
        ) as one:
            answers.append(ask(port_of(one, port)))
    found = []
    for theirs, ours in zip(*answers, strict=True):
        request = theirs[0]
        if theirs[1] != ours[1]:
            found.append(f"{request}: status {theirs[1]}, here {ours[1]}")
        if theirs[3] != ours[3] and theirs[1] not in {204, 304} and not request.startswith("HEAD"):
            found.append(f"{request}: {theirs[3]}, here {ours[3]}")
        if theirs[4] != ours[4]:
            found.append(f"{request}: X-A {theirs[4]}, here {ours[4]}")
        for key in theirs[2].keys() | ours[2].keys():
            one, other = theirs[2].get(key), ours[2].get(key)
            if one != other:
                found.append(f"{request}: {key} {_less(one, other)}, here {_less(other, one)}")
    return found


def _less(value: object, other: object) -> object:
    if isinstance(value, list) and isinstance(other, list):
        return sorted(set(value) - set(other))
    return value


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", SERVERS)
def test_the_answers_are_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed (extra dev)")
    (tmp_path / "echoes.py").write_text(APPLICATION)
    explained = [pattern for pattern, _ in DIFFERENCES[name]]
    found = differences(name, tmp_path)
    assert [line for line in found if not any(re.search(pattern, line) for pattern in explained)] == []
