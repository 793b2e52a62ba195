"""Content from files: http.response.pathsend and http.response.zerocopysend."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import LocalProtocolError
from tests.support.asgi import connect, served
from tests.support.protocols import BOTH_PROTOCOLS

pytestmark = BOTH_PROTOCOLS

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
CONTENT = bytes(range(256)) * 4096 + b"end"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


def start(length: int) -> dict[str, Any]:
    return {**START, "headers": [(b"content-length", b"%d" % length)]}


@pytest.mark.parametrize("chunked", [False, True])
async def test_pathsend(file: Path, chunked: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START if chunked else start(len(CONTENT)))
        await send({"type": "http.response.pathsend", "path": str(file)})
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    async with served(app) as server, connect(server.port) as client:
        for _ in range(2):
            client.get()
            if chunked:
                await client.head()
                content = b""
                while size := int(await client.reader.readuntil(b"\r\n"), 16):
                    content += (await client.reader.readexactly(size + 2))[:-2]
                await client.reader.readexactly(2)
            else:
                content = (await client.response())[2]
            assert content == CONTENT


#: Files with another size than they say: none, and a whole page.
UNSIZED = [
    pytest.param(path, marks=pytest.mark.skipif(not os.path.exists(path), reason="there is no such file"))
    for path in ("/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled")
]


@pytest.mark.parametrize("path", UNSIZED)
async def test_a_file_that_does_not_tell_its_size(path: str) -> None:
    content = Path(path).read_bytes()
    errors: list[LocalProtocolError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(len(content)))
        if scope["path"] == "/copy":
            with open(path, "rb") as file:
                try:
                    await send({"type": "http.response.zerocopysend", "file": file})
                except LocalProtocolError as exc:
                    errors.append(exc)
            await send({"type": "http.response.body", "body": content})
        else:
            await send({"type": "http.response.pathsend", "path": path})

    async with served(app) as server, connect(server.port) as client:
        for target in ("/", "/copy"):
            client.get(target)
            assert (await client.response())[2] == content
    assert [str(exc).partition(":")[2] for exc in errors] == [" the file does not tell its size; send its content"]


async def test_a_file_without_a_size_that_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.adapters.asgi.files._MOST", 3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "hole")})

    with open(tmp_path / "hole", "wb") as hole:
        hole.truncate(100)  # no block either
    async with served(app, raises=LocalProtocolError) as server, connect(server.port) as client:
        client.get()
        assert (await client.response())[0] == 500


async def test_pathsend_to_head(file: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(len(CONTENT)))
        await send({"type": "http.response.pathsend", "path": str(file)})

    async with served(app) as server, connect(server.port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        wire = await client.rest()
    assert wire.count(b"content-length: %d\r\n" % len(CONTENT)) == 2
    assert wire.endswith(b"\r\n\r\n")


async def test_pathsend_with_trailers(file: Path) -> None:
    file.write_bytes(b"short")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        await send({"type": "http.response.pathsend", "path": str(file)})
        await send({"type": "http.response.trailers", "headers": [(b"x", b"1")]})

    async with served(app) as server, connect(server.port) as client:
        client.get("/", "TE: trailers")
        await client.head()
        assert await client.reader.readuntil(b"x: 1\r\n\r\n") == b"5\r\nshort\r\n0\r\nx: 1\r\n\r\n"


@pytest.mark.parametrize("what", ["missing", "directory", "fifo", "bytes", "number"])
async def test_what_cannot_be_sent(tmp_path: Path, what: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    path: Any = {
        "missing": str(tmp_path / "missing"),
        "directory": str(tmp_path),
        "fifo": str(tmp_path / "fifo"),
        "bytes": "nul\0",
        "number": [],
    }[what]
    errors: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await send({"type": "http.response.pathsend", "path": path})
        except LocalProtocolError as exc:
            errors.append(exc)
            raise

    async with served(app, raises=LocalProtocolError) as server, connect(server.port) as client:
        client.get()
        assert (await client.response())[0] == 500
    assert len(errors) == 1
    assert not isinstance(errors[0], OSError)


async def test_pathsend_does_not_mix(file: Path) -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = {"type": "http.response.pathsend", "path": str(file)}
        for step in (message, START, {"type": "http.response.body", "body": b"x", "more_body": True}, message):
            try:
                await send(step)
            except LocalProtocolError as exc:
                errors.append(str(exc))
        await send({"type": "http.response.body"})

    async with served(app) as server, connect(server.port) as client:
        client.get()
        await client.head()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"1\r\nx\r\n0\r\n\r\n"
    assert len(errors) == 2
    assert "before http.response.start" in errors[0]
    assert "after other content" in errors[1]


async def test_a_file_shorter_than_declared(file: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(len(CONTENT) + 1))
        await send({"type": "http.response.pathsend", "path": str(file)})

    async with served(app, raises=LocalProtocolError) as server, connect(server.port) as client:
        client.get()
        assert len((await client.rest()).partition(b"\r\n\r\n")[2]) <= len(CONTENT)


async def test_zerocopysend_in_parts(file: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with file.open("rb") as opened:
            opened.read(2)  # a buffered reader is ahead of its position

            def part(**keys: Any) -> Any:
                return send({"type": "http.response.zerocopysend", "file": opened, "more_body": True, **keys})

            await part(count=3)
            await part(count=2)
            await send({"type": "http.response.body", "body": b"|", "more_body": True})
            await part(offset=len(CONTENT) - 3)
            await part(offset=1, count=2, file=opened.fileno())
            assert opened.tell() == 7
            await part(offset=0, count=0, more_body=False)

    async with served(app) as server, connect(server.port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        content = (await client.rest()).partition(b"\r\n\r\n")[2]
    assert content == bytes(range(2, 7)) + b"|end" + b"\x01\x02"


@pytest.mark.parametrize("loop", ["large", "rest"])
async def test_zerocopysend_of_much(file: Path, loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(len(CONTENT)))
        with file.open("rb") as opened:
            keys = {} if loop == "rest" else {"offset": 0, "count": len(CONTENT)}
            await send({"type": "http.response.zerocopysend", "file": opened, **keys})

    async with served(app) as server, connect(server.port) as client:
        for _ in range(3):
            client.get()
            assert (await client.response())[2] == CONTENT


@pytest.mark.parametrize(
    "keys",
    [
        {"file": None},
        {"file": -1},
        {"offset": -1},
        {"offset": 0, "count": len(CONTENT) + 1},
        {"offset": len(CONTENT) + 1, "count": 0},
        {"count": -1},
    ],
)
async def test_ranges_that_are_none(file: Path, keys: dict[str, Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with file.open("rb") as opened, pytest.raises(LocalProtocolError):
            await send({"type": "http.response.zerocopysend", "file": opened, **keys})
        with os.fdopen(os.pipe()[0]) as pipe, pytest.raises(LocalProtocolError):
            await send({"type": "http.response.zerocopysend", "file": pipe, "count": 1})
        await send({"type": "http.response.body"})

    async with served(app) as server, connect(server.port) as client:
        client.get()
        assert (await client.response())[0] == 200


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_leaving_during_a_file_is_no_error(leave: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 256 << 20)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(256 << 20))
        await send({"type": "http.response.pathsend", "path": str(path)})

    async with served(app) as server:
        for _ in range(10):
            async with connect(server.port) as client:
                client.get()
                await client.head()
                if leave == "close":
                    client.writer.close()
                else:
                    client.reset()
        await server.delegate.wait(5)
    assert not caplog.records


@pytest.mark.http1("a stream has no half-closed client that may still read")
async def test_a_half_closed_client_gets_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.touch()
    size = 64 << 20
    os.truncate(path, size)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(size))
        await send({"type": "http.response.pathsend", "path": str(path)})

    async with served(app, grace=0.6) as server, connect(server.port) as client:
        client.get()
        client.writer.write_eof()
        await client.head()
        for _ in range(64):
            await asyncio.sleep(0.03)  # three times the grace, of which none passes without progress
            await client.reader.readexactly(1 << 20)


async def test_nothing_else_is_sent_meanwhile_and_a_client_that_leaves_ends_it() -> None:
    errors: list[BaseException] = []
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with tempfile.TemporaryFile() as opened:
            opened.truncate(256 << 20)
            await send(start(256 << 20))
            message = {"type": "http.response.zerocopysend", "file": opened, "offset": 0}
            sending = asyncio.ensure_future(send(message))
            await asyncio.sleep(0.01)
            for second in (message, {"type": "http.response.body", "body": b"x", "more_body": True}):
                with pytest.raises(LocalProtocolError):
                    await send(second)
            await asyncio.wait([sending])
            errors.append(sending.exception())  # type: ignore[arg-type]
            done.set()

    async with served(app) as server, connect(server.port) as client:
        client.writer.transport.pause_reading()
        client.get()
        await asyncio.sleep(0.1)
        client.reset()
        await asyncio.wait_for(done.wait(), 5)
    assert isinstance(errors[0], OSError)
