"""Each sample of Tornado's documentation is started as its header says, and asked over a real socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

SAMPLES = Path(__file__).resolve().parent.parent / "examples" / "seeds"
LIMIT = 30.0  # seconds for a start on a busy machine

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="the samples fork")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextmanager
def started(name: str, *arguments: object) -> Iterator[int]:
    """Run a sample while the block runs; the value is its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(SAMPLES / name), str(port), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SAMPLES.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + LIMIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"{name} does not listen") from None
                time.sleep(0.02)
        yield port
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the sample and what it has forked
        output, _ = process.communicate(timeout=LIMIT)
    assert "Traceback" not in output, output


def ask(port: int, context: ssl.SSLContext | None = None, target: str = "/") -> bytes:
    """Send a request and return the content of the answer."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as plain:
        sock = plain if context is None else context.wrap_socket(plain, server_hostname="localhost")
        with sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    return content


def test_echo() -> None:
    with started("echo.py") as port:
        assert ask(port, target="/some/where?a=b") == b"You requested /some/where?a=b\n"


def test_single_process() -> None:
    with started("single_process.py") as port:
        first = ask(port)
        assert re.fullmatch(rb"process \d+\n", first)
        assert ask(port) == first


@pytest.mark.parametrize("sample", ["multi_process.py", "add_sockets.py"])
def test_several_processes(sample: str) -> None:
    with started(sample) as port:
        answers = {ask(port) for _ in range(200)}
        assert all(re.fullmatch(rb"process \d+\n", answer) for answer in answers)
        assert len(answers) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("form", ["context", "dictionary"])
def test_tls(form: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "mydomain.key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "mydomain.crt")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with started("tls.py", tmp_path, form) as port:
        assert ask(port, context).startswith(b"process ")


def test_client_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("localhost"), authority.issue_cert("ada@example.org", common_name="Ada")
    server.private_key_pem.write_to_path(tmp_path / "foo.key")
    server.cert_chain_pems[0].write_to_path(tmp_path / "foo.crt")
    authority.cert_pem.write_to_path(tmp_path / "cacert.crt")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with started("client_certificates.py", tmp_path) as port:
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):  # in TLS 1.3 the refusal comes late
            ask(port, context)
        client.configure_cert(context)
        assert re.search(rb"'commonName', 'Ada'.*, \d\d\d+ bytes\n", ask(port, context))


@pytest.mark.parametrize("form", ["listen", "start", "add_sockets"])
def test_tcp_server(form: str) -> None:
    with started("tcp_server.py", form) as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), LIMIT) as sock, sock.makefile("rb") as lines:
                for word in (b"hello\n", b"again\n"):
                    sock.sendall(word)
                    assert re.fullmatch(rb"\d+: " + word, lines.readline())


def test_every_sample_has_a_test_and_says_how_to_run_it() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in SAMPLES.glob("*.py"):
        if path.name != "__init__.py":
            assert f"Run:  python examples/seeds/{path.name} 8888" in path.read_text(encoding="utf-8")
            assert f'"{path.name}"' in tests
