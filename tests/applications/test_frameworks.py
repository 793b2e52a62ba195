"""Frameworks that people use, served by the command and used by clients that others have written."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.test_examples import Running, started

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def run(*words: str):  # type: ignore[no-untyped-def]
    return started("-m", "bridge", "run", *words, "--app-dir", str(HERE), "--port", "0", "--no-access-log")


def dial(running: Running, path: str, **options: object) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{running.port}{path}", proxy=None, **options)  # type: ignore[arg-type]


def clean(running: Running) -> None:
    """Nothing was logged but the line that says what is served, and how the stop went."""
    lines = [line for line in running.output if "ERROR" in line or "Traceback" in line or "WARNING" in line]
    assert not lines, "".join(running.output)


@needs("fastapi", "sse_starlette", "flask", "tornado")
def test_three_frameworks_on_one_port() -> None:
    with run(
        "--mount", "/api=fastapi_api:app", "--mount", "/=flask_site:app", "--mount", "/legacy=tornado_legacy:app"
    ) as running:
        status, _, content = running.ask("GET", "/api/where")
        assert (status, json.loads(content)) == (
            200,
            {
                "root_path": "/api",
                "path": "/api/where",
                "url": f"http://127.0.0.1:{running.port}/api/where",
                "started": "yes",
            },
        )
        assert running.ask("GET", "/page")[2] == b"flask |/page|/x"
        assert running.ask("GET", "/apix")[2] == b"flask |/apix|/x"
        assert running.ask("GET", "/legacy/page")[2] == b"tornado /legacy/page"
        with dial(running, "/api/ws", subprotocols=["echo"]) as fastapi, dial(running, "/legacy/ws") as tornado:
            assert fastapi.subprotocol == "echo"
            for number in range(10):
                fastapi.send(str(number))
                tornado.send(str(number))
                tornado.send(b"binary")
                assert json.loads(fastapi.recv()) == {"got": str(number)}
                assert tornado.recv() == str(number)
                assert tornado.recv() == b"binary"
    clean(running)


@needs("fastapi", "sse_starlette")
def test_fastapi() -> None:
    with run("fastapi_api:app", "--timeout-drain-streams", "0.2", "--timeout-drain-websockets", "0.2") as running:
        boundary = "b" * 20
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'.encode()
            + bytes(300_000)
            + f"\r\n--{boundary}--\r\n".encode()
        )
        form = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        assert json.loads(running.ask("POST", "/upload", body, form)[2]) == {"size": 300_000}
        assert running.ask("GET", "/background")[0] == 200
        with pytest.raises(InvalidStatus, match="403"), dial(running, "/denied"):
            pass
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as events:
            events.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            data = b""
            while b"data: 5\r\n" not in data:
                data += events.recv(65536)
        assert json.loads(running.ask("GET", "/background")[2]) == ["task"]
        # One more stream, and a WebSocket, that are open when the server is told to stop.
        with (
            socket.create_connection(("127.0.0.1", running.port), timeout=10) as events,
            dial(running, "/ws", subprotocols=["echo"]) as client,
        ):
            events.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            assert events.recv(65536)
            start = time.monotonic()
            stopping = threading.Thread(target=running.stop)
            stopping.start()
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=10)
            assert (client.close_code, client.close_reason) == (1001, "server is stopping")
            data = b""
            while piece := events.recv(65536):
                data += piece
            assert not data.endswith(b"\r\n0\r\n\r\n")  # the framework stops without the end of its response
            stopping.join(10)
            assert time.monotonic() - start < 5
    clean(running)


@needs("starlette")
def test_starlette() -> None:
    with run("starlette_app:app") as running:
        assert running.ask("POST", "/echo", b"x" * 100_000)[2] == b"x" * 100_000
        status, fields, content = running.ask("GET", "/file")
        assert (status, fields["x-stamp"]) == (200, "1")
        assert content == (HERE / "starlette_app.py").read_bytes()
        for target in ("/file?read", "/static/starlette_app.py?read"):  # a middleware reads the content
            status, _, content = running.ask("GET", target)
            assert (status, content) == (200, (HERE / "starlette_app.py").read_bytes())
        status, fields, content = running.ask("GET", "/file", headers={"Accept-Encoding": "gzip"})
        assert (status, fields["content-encoding"]) == (200, "gzip")
        assert gzip.decompress(content) == (HERE / "starlette_app.py").read_bytes()
        status, fields, content = running.ask("GET", "/static/starlette_app.py", headers={"Range": "bytes=3-9"})
        assert (status, content) == (206, (HERE / "starlette_app.py").read_bytes()[3:10])
        assert running.ask("GET", "/stream")[2].count(b"\n") == 1000
        with socket.create_connection(("127.0.0.1", running.port)) as half:
            half.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome")
        deadline = time.monotonic() + 5
        while json.loads(running.ask("GET", "/gone")[2]) != ["upload"]:
            assert time.monotonic() < deadline
        with pytest.raises(InvalidStatus) as caught, dial(running, "/ws"):
            pass
        assert (caught.value.response.status_code, caught.value.response.body) == (401, b'{"error":"token"}')
        with dial(running, "/ws?token=yes") as client:
            assert client.response is not None
            assert client.response.headers["x-own"] == "1"
            client.send("text")
            assert client.recv() == "TEXT"
    clean(running)


@needs("django", "channels")
def test_django_and_channels() -> None:
    with run("channels_chat:application") as running:
        assert running.ask("POST", "/hello", b"abc")[2] == b"django POST /hello 3"
        assert running.ask("GET", "/blocking")[2] == b"abc"
        with dial(running, "/room/a") as one, dial(running, "/room/a") as two, dial(running, "/threaded") as three:
            one.send('{"text": "hi"}')
            assert json.loads(one.recv()) == json.loads(two.recv()) == {"text": "hi"}
            two.send('{"text": "ho"}')
            assert json.loads(one.recv()) == json.loads(two.recv()) == {"text": "ho"}
            three.send(b"bytes")
            assert three.recv() == b"bytes"


REDIS = shutil.which("redis-server")


@pytest.mark.skipif(REDIS is None, reason="no redis-server")
@needs("django", "channels", "channels_redis")
def test_channels_over_redis_in_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REDIS is not None
    place = tmp_path / "redis"
    command = [REDIS, "--port", "0", "--unixsocket", str(place), "--dir", str(tmp_path), "--save", ""]
    monkeypatch.setenv("CHAT_REDIS", f"unix://{place}")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as redis:
        try:
            deadline = time.monotonic() + 10
            while not place.exists():
                assert redis.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            with run("channels_chat:application") as here, run("channels_chat:application") as there:
                with dial(here, "/room/a") as one, dial(there, "/room/a") as two, dial(there, "/room/b") as other:
                    for number in range(20):
                        sender = (one, two)[number % 2]
                        sender.send(json.dumps({"text": number}))
                        assert json.loads(one.recv(10)) == json.loads(two.recv(10)) == {"text": number}
                    with pytest.raises(TimeoutError):
                        other.recv(0)
                with dial(here, "/room/a") as one:  # those who left are in no room any more
                    one.send('{"text": "alone"}')
                    assert json.loads(one.recv(10)) == {"text": "alone"}
            for running in (here, there):
                clean(running)
        finally:
            redis.terminate()


@needs("datasette")
def test_datasette() -> None:
    with run("datasette_app:make", "--factory") as running:
        status, fields, content = running.ask("GET", "/_memory.json?sql=select+6*7+as+n&_shape=array")
        assert (status, json.loads(content)) == (200, [{"n": 42}])
        assert fields["content-type"].startswith("application/json")
        assert b"<html" in running.ask("GET", "/")[2]
        rows = running.ask(
            "GET",
            "/_memory.csv?sql=with+recursive+c(x)+as+(select+1+union+all+select+x%2B1+from+c+limit+900)+select+x+from+c&_stream=1",
        )[2]
        assert rows.split()[-1] == b"900"
        assert running.ask("GET", "/-/static/app.css")[0] == 200
    clean(running)


@needs("litestar")
def test_litestar() -> None:
    with run("litestar_app:app") as running:
        assert json.loads(running.ask("GET", "/hello/you")[2]) == {"hello": "you"}
        assert running.ask("GET", "/stream")[2] == b"part part part "
        with dial(running, "/ws") as client:
            client.send(b"bytes")
            assert client.recv() == b"bytes"
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert client.close_code == 4003
    clean(running)


@needs("quart")
def test_quart() -> None:
    with run("quart_app:app") as running:
        assert running.ask("GET", "/hello")[2] == f"quart http 127.0.0.1:{running.port}".encode()
        assert json.loads(running.ask("POST", "/upload", bytes(1_000_000))[2]) == {"size": 1_000_000}
        with dial(running, "/ws") as client:
            client.send("text")
            assert client.recv() == "text"
    clean(running)


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_a_page_in_a_browser(tmp_path: Path) -> None:
    assert BROWSER is not None
    with run("browser_page:app", "--lifespan", "off") as running:
        found = subprocess.run(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                f"--user-data-dir={tmp_path}",
                "--dump-dom",
                f"http://127.0.0.1:{running.port}/",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    title = found.stdout.partition("<title>")[2].partition("</title>")[0]
    deflate = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
    assert title == f"text ☃|0,255|large|chat|{deflate}|4004|true", found.stderr
    clean(running)


def test_a_second_signal_ends_what_a_first_one_waits_for() -> None:
    options = ["--lifespan", "off", "--timeout-drain-websockets", "off"]
    with run("browser_page:app", *options) as running, dial(running, "/ws", subprotocols=["chat"]) as client:
        client.send("text")
        assert client.recv() == "text"
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.5)
        client.send("still served")
        assert client.recv() == "still served"
        start = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=10)
        running.process.wait(10)
        assert time.monotonic() - start < 5
