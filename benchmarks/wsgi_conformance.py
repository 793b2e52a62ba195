"""PEP 3333 and its corners, asked of several servers: ``python -m benchmarks.wsgi_conformance``.

Each row sends the same bytes to the same application behind each server and judges what comes back. Markdown goes to
standard output.
"""

import argparse
import contextlib
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.machine import version
from benchmarks.process import child, free_port
from benchmarks.servers import HOST, SERVERS, Target, command_of

MODULE = "benchmarks.apps.wsgi_conformance"
LIMIT = 4.0  # seconds for an answer
KNOWN = {
    "bridge": ("bridge", "wsgi", "app"),
    "bridge, streaming": ("bridge+--wsgi-buffer-requests+off", "wsgi", "app"),
    "gunicorn gthread": ("gunicorn", "wsgi", "app"),
    "waitress": ("waitress", "wsgi", "app"),
    "granian": ("granian", "wsgi", "app"),
    "a2wsgi on uvicorn": ("uvicorn", "asgi", "by_a2wsgi"),
    "asgiref on uvicorn": ("uvicorn", "asgi", "by_asgiref"),
}


class Answer:
    """What came back, taken apart as far as it goes."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/") else 0
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.complete = True
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while True:
                size, _, body = body.partition(b"\r\n")
                if re.fullmatch(b"[0-9a-fA-F]+", size) is None:
                    self.complete = False
                    break
                length = int(size, 16)
                if not length:
                    break
                parts.append(body[:length])
                body = body[length + 2 :]
            self.body = b"".join(parts)
        else:
            self.body = body
            if "content-length" in self.headers:
                self.complete = len(body) == int(self.headers["content-length"])

    @property
    def value(self):
        return json.loads(self.body)


class Client:
    """Asks one server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=LIMIT)

    def raw(self, wire: bytes, seconds: float = LIMIT) -> bytes:
        """Send bytes, and return all that comes until the server closes or *seconds* have passed."""
        received = b""
        with self.connect() as sock, contextlib.suppress(OSError):
            sock.sendall(wire)
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                sock.settimeout(left)
                data = sock.recv(65536)
                if not data:
                    break
                received += data
        return received

    def ask(self, path: str, *lines: str, method: str = "GET", content: bytes = b"", protocol: str = "1.1") -> Answer:
        head = [f"{method} {path} HTTP/{protocol}", "Host: example.test", "Connection: close", *lines]
        if content:
            head.append(f"Content-Length: {len(content)}")
        return Answer(self.raw("\r\n".join([*head, "", ""]).encode("latin-1") + content))

    def report(self, name: str):
        return self.ask(f"/report?{name}").value


@dataclass(frozen=True)
class Row:
    """One row: what is asked, and what is right."""

    title: str
    check: Callable[[Client], object]
    right: Callable[[object], bool]


def equal(expected: object) -> Callable[[object], bool]:
    return lambda value: value == expected


def refused(value: object) -> bool:
    return value == 500


def status(path: str) -> Callable[[Client], object]:
    return lambda client: client.ask(path).status


def fact(name: str, *lines: str, protocol: str = "1.1") -> Callable[[Client], object]:
    return lambda client: client.ask("/facts", *lines, protocol=protocol).value[name]


def empty(client: Client) -> object:
    answer = client.ask("/empty")
    return (answer.status, answer.body.decode(), "transfer-encoding" in answer.headers)


def closed(client: Client) -> object:
    client.ask("/closing")
    time.sleep(0.1)
    return client.report("closing")


def closed_after_fault(client: Client) -> object:
    answer = client.ask("/closing_fails")
    time.sleep(0.1)
    return client.report("closing_fails")["closed"], "looks complete" if answer.complete else "cut"


def cookies(client: Client) -> object:
    return client.ask("/facts", "Cookie: a=1", "Cookie: b=2").value["HTTP_COOKIE"]


def file_wrapper(client: Client) -> object:
    if not client.ask("/facts").value["wrapper"]:
        return "none"
    answer = client.ask("/wrapper")
    with open(sys.modules[__name__].__file__.replace("/wsgi_conformance", "/apps/wsgi_conformance"), "rb") as file:
        return "sends the file" if answer.body == file.read() else f"{answer.status}, {len(answer.body)} bytes"


def arriving(client: Client) -> object:
    with client.connect() as sock:
        sock.sendall(b"POST /arriving HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabcde")
        time.sleep(0.3)
        before = client.report("arriving")
        sock.sendall(b"fghij")
        sock.recv(65536)
    # Neither is wrong; a server that calls the application first lets a slow client hold a thread.
    return {"abcde": "while it arrives", None: "when it is complete"}.get(before, "called, but it has to wait for all")


def leaving(client: Client) -> object:
    with client.connect() as sock:
        sock.sendall(b"POST /leaving HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabcde")
        time.sleep(0.3)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.3)
    return client.report("leaving") or "not called"


def chunked(client: Client) -> object:
    wire = b"POST /chunked HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Answer(client.raw(wire + b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")).value


def variable(client: Client) -> object:
    return sorted({client.ask("/variable").value for _ in range(20)})


def wrong_length(path: str) -> Callable[[Client], object]:
    def check(client: Client) -> object:
        raw = client.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 1.0)
        answer = Answer(raw)
        with client.connect() as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            sock.settimeout(1.0)
            ended = False
            with contextlib.suppress(OSError):
                while True:
                    if not sock.recv(65536):
                        ended = True
                        break
        return answer.body.decode(), "closed" if ended else "left open"

    return check


def raw_target(client: Client) -> object:
    value = client.ask("/facts?x=%2F").value
    return value["REQUEST_URI"] or value["RAW_URI"]


def head(client: Client) -> object:
    answer = client.ask("/head", method="HEAD")
    return answer.headers.get("content-length"), answer.body.decode()


def length_of_one(client: Client) -> object:
    return client.ask("/one").headers.get("content-length")


def content_of(path: str) -> Callable[[Client], object]:
    def check(client: Client) -> object:
        answer = client.ask(path)
        return answer.status, answer.body.decode()

    return check


def lines(path: str) -> Callable[[Client], object]:
    def check(client: Client) -> object:
        answer = client.ask(path, method="POST", content=b"ab\ncd\nef")
        return answer.value if answer.status == 200 else answer.status

    return check


ROWS = [
    Row("`readline()` three times on `ab\\ncd\\nef`", lines("/readlines"), equal(["ab\n", "cd\n", "ef"])),
    Row("`for line in wsgi.input`", lines("/iterate"), equal(["ab\n", "cd\n", "ef"])),
    Row("`start_response()` returns `write()`", content_of("/write"), equal((200, "written, returned"))),
    Row("empty iterable, 204", empty, equal((204, "", False))),
    Row("`exc_info` before the content replaces the status", content_of("/replace"), equal((500, "replaced"))),
    Row("the same after an empty chunk", content_of("/late"), equal((500, "replaced"))),
    Row("`close()` is called, one thread from the call to it", closed, equal({"closed": True, "threads": 1})),
    Row("`close()` after a fault in the middle; the response", closed_after_fault, equal((True, "cut"))),
    Row("`SERVER_PROTOCOL` on HTTP/1.0", fact("SERVER_PROTOCOL", protocol="1.0"), equal("HTTP/1.0")),
    Row("`SERVER_PORT` and all CGI variables are str", fact("types"), equal(["str"])),
    Row("two `Cookie` fields", cookies, equal("a=1; b=2")),
    Row("two fields of one name", fact("HTTP_X_Y", "X-Y: 1", "X-Y: 2"), lambda v: v in {"1, 2", "1,2"}),
    Row("`X_Y` does not pass for `X-Y`", fact("HTTP_X_Y", "X_Y: 1"), equal(None)),
    Row("`wsgi.file_wrapper`", file_wrapper, equal("sends the file")),
    Row("chunked content", chunked, equal("abcdef")),
    Row("content reaches the application", arriving, bool),
    Row("the client leaves in its content", leaving, lambda v: v == "not called" or str(v).startswith("raises")),
    Row("the application can ask whether the client left", fact("disconnect"), bool),
    Row("context variables of one request in the next", variable, equal(["unset"])),
    Row("`os.environ` in environ", fact("foreign"), equal([])),
    Row("`wsgi.input_terminated`", fact("terminated"), equal(True)),
    Row("the target as received", raw_target, equal("/facts?x=%2F")),
    Row("a list of one: Content-Length", length_of_one, equal("5")),
    Row("HEAD", head, equal(("5", ""))),
    Row("content shorter than Content-Length", wrong_length("/short"), equal(("12345", "closed"))),
    Row("content longer than Content-Length", wrong_length("/long"), lambda v: v[0] == "12345"),
    Row("hop-by-hop header from the application", status("/hop"), refused),
    Row("CR LF in a header", status("/split"), refused),
    Row("`start_response` twice without `exc_info`", status("/twice"), refused),
    Row("`start_response` never called", status("/never"), refused),
    Row("str in place of bytes", status("/words"), refused),
]


@contextlib.contextmanager
def running(server: str, interface: str, attribute: str) -> Iterator[Client]:
    port = free_port()
    target = Target(interface, f"{MODULE}:{attribute}")
    command = [part.format(port=port) for part in command_of(server, target)]
    command[0] = sys.executable
    with child(command, None, subprocess.DEVNULL, subprocess.DEVNULL, 3.0):
        client = Client(port)
        end = time.monotonic() + 20
        while True:
            try:
                if client.ask("/one").status == 200:
                    break
            except OSError:
                pass
            if time.monotonic() > end:
                raise SystemExit(f"{server} does not start: {' '.join(command)}")
            time.sleep(0.1)
        yield client


def judge(client: Client, row: Row) -> tuple[bool, str]:
    try:
        value = row.check(client)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        return False, f"no proper answer ({type(exc).__name__})"
    text = json.dumps(value) if not isinstance(value, str) else value
    return bool(row.right(value)), text.replace("|", "\\|")


def cell(good: bool, text: str) -> str:
    """Return what a cell of the table says; what is wrong is bold."""
    return f"`{text}`" if good else f"**wrong:** `{text}`"


def main() -> int:
    """Ask, and print the table; the exit status tells whether bridge is right in every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", help="comma-separated; default: all of " + ", ".join(KNOWN))
    options = parser.parse_args()
    names = options.servers.split(",") if options.servers else list(KNOWN)
    table: dict[str, dict[str, tuple[bool, str]]] = {}
    for name in names:
        with running(*KNOWN[name]) as client:
            table[name] = {row.title: judge(client, row) for row in ROWS}
        right = sum(good for good, _ in table[name].values())
        print(f"{name}: {right} of {len(ROWS)} right", file=sys.stderr)
    print("| Check | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    for row in ROWS:
        cells = [cell(*table[name][row.title]) for name in names]
        print(f"| {row.title} | " + " | ".join(cells) + " |")
    sums = [sum(good for good, _ in table[name].values()) for name in names]
    print("| **right** | " + " | ".join(f"{number} of {len(ROWS)}" for number in sums) + " |")
    found = {d: version(d) for n in names for d in SERVERS[KNOWN[n][0].split("+")[0]].distributions}
    found |= {d: version(d) for d in ("a2wsgi", "asgiref")}
    print("\n" + ", ".join(f"{name} {number}" for name, number in sorted(found.items()) if number))
    return 0 if all(good for name in names if name.startswith("bridge") for good, _ in table[name].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
