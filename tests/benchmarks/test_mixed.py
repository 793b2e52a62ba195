"""Requests of many clients: no head twice, each of them right, and wrk sends the very same."""

import itertools
import json
import shutil
import socket
import subprocess
import threading

import pytest

from benchmarks import client, measure, mixed
from benchmarks.process import Files
from benchmarks.scenarios import SCENARIOS
from tests.support import ROOT

NUMBER = 20_000


def heads(requests):
    return [request.partition(b"\r\n\r\n")[0] for request in requests]


def test_no_head_and_no_section_of_fields_comes_twice():
    made = [*itertools.islice(mixed.requests(0), NUMBER), *itertools.islice(mixed.requests(1), NUMBER)]
    whole = heads(made)
    assert len(set(whole)) == 2 * NUMBER
    assert len({head.partition(b"\r\n")[2] for head in whole}) == 2 * NUMBER
    assert len({head.partition(b"\r\n")[0] for head in whole}) == 2 * NUMBER


def test_the_number_is_in_query_cookie_and_request_id():
    for template in mixed.templates():
        line, *fields = template.partition(b"\r\n\r\n")[0].split(b"\r\n")
        values = [(name.lower(), value) for name, _, value in (field.partition(b": ") for field in fields)]
        assert mixed.NUMBER in line.partition(b"?")[2]
        assert any(mixed.NUMBER in value for name, value in values if name == b"cookie")
        assert any(mixed.NUMBER in value for name, value in values if name == b"x-request-id")


def test_clients_differ_in_sets_orders_and_values():
    whole = heads(mixed.templates())
    names = [tuple(line.partition(b":")[0] for line in head.split(b"\r\n")[1:]) for head in whole]
    assert len(set(whole)) == mixed.COUNT
    assert len(set(names)) > 1000
    assert len({frozenset(one) for one in names}) > 300
    assert len({head.partition(b"?")[0] for head in whole}) > mixed.COUNT / 2
    assert 12 < sum(map(len, names)) / mixed.COUNT < 16


def test_content_is_as_long_as_it_says():
    made = [template.split(mixed.NUMBER) for template in mixed.templates()]
    posts = 0
    for request in (mixed.digits(7).join(parts) for parts in made):
        head, _, content = request.partition(b"\r\n\r\n")
        lengths = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
        assert lengths == ([str(len(content)).encode()] if head.startswith(b"POST ") else [])
        posts += head.startswith(b"POST ")
        if b"application/json" in head and content.startswith(b"{"):
            json.loads(content)
    assert 0.03 < posts / mixed.COUNT < 0.09


def test_the_seed_decides():
    first = list(itertools.islice(mixed.requests(3), 50))
    assert first == list(itertools.islice(mixed.requests(3), 50))
    assert first != list(itertools.islice(mixed.requests(3, seed=15), 50))
    assert mixed.templates(seed=15, count=10) != mixed.templates(count=10)
    with pytest.raises(ValueError, match="part 100: 0 to 99"):
        next(mixed.requests(mixed.PARTS))


def test_the_own_client_sends_them():
    requests = client.Requests("mixed", 2)
    assert [requests.next() for _ in range(20)] == list(itertools.islice(mixed.requests(2), 20))


def test_the_checked_requests_have_content_too():
    made = mixed.checked_requests()
    assert len(set(made)) == 35
    assert sum(request.startswith(b"POST ") for request in made) >= 5


def answer_all(listener: socket.socket, number: int, received: list[bytes]) -> None:
    """Answer *number* requests on one connection, and keep them; before it, wrk makes one that it does not use."""
    listener.accept()[0].close()
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(20)
        data = b""
        while len(received) < number:
            piece = connection.recv(65536)
            if not piece:
                return
            data += piece
            head, end, content = data.partition(b"\r\n\r\n")
            length = [
                int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")
            ]
            if end and len(content) >= sum(length):
                received.append(data)
                data = b""
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_wrk_sends_the_same_requests():
    files = Files()
    settings = measure.Settings(1, 0, 1, "wrk", None, files)
    received: list[bytes] = []
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            command = measure.load_command(SCENARIOS["asgi-mixed"], settings, str(listener.getsockname()[1]), 1, part=4)
            command[command.index("{templates}")] = files.named("templates")
            server = threading.Thread(target=answer_all, args=(listener, 500, received))
            server.start()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=30)
            server.join(30)
    finally:
        files.remove()
    # Of each part wrk makes the first request only to look at it.
    assert received == list(itertools.islice(mixed.requests(4), 1, 501))
