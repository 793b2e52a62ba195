"""The process whose instructions are counted: it serves what it says, or nothing."""

import asyncio
import sys
import time

import pytest

from benchmarks import instructions


@pytest.fixture
def written(monkeypatch):
    """Return what is written to the transport."""
    found = []
    write = instructions.Transport.write

    def noted(self, data):
        found.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(instructions.Transport, "write", noted)
    return found


@pytest.fixture(autouse=True)
def switch_interval():
    """Keep the interpreter's own."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("what", ["plaintext", "browser", "mixed", "wsgi", "wsgi-mixed"])
@pytest.mark.parametrize("metrics", [False, True])
@pytest.mark.parametrize("idle", [False, True])
async def test_every_request_is_answered_or_none_is_sent(what, idle, metrics, written):
    await instructions.run(what, 50, idle, metrics)  # of the mixed ones some have content
    assert len(written) == (0 if idle else 50)
    assert all(answer.endswith(b"\r\n\r\nHello, World!") for answer in written)


@pytest.mark.parametrize("idle", [False, True])
async def test_every_message_comes_back_or_none_is_sent(idle, written):
    await instructions.run("websocket", 3, idle)
    handshake, *echoes = written
    assert handshake.startswith(b"HTTP/1.1 101 ")
    assert echoes == ([] if idle else [b"\x81\x40" + instructions.MESSAGE] * 3)


@pytest.mark.parametrize("what", instructions.HTTP2)
@pytest.mark.parametrize("metrics", [False, True])
@pytest.mark.parametrize("idle", [False, True])
async def test_every_stream_is_answered_or_none_is_opened(what, idle, metrics):
    await instructions.run(what, 50, idle, metrics)  # two reads, the second of which is shorter


async def test_a_stream_without_an_answer_is_an_error(monkeypatch):
    monkeypatch.setattr(instructions.CountingTransport, "write", lambda self, data: None)
    with pytest.raises(SystemExit, match="0 answers to 40 requests"):
        await instructions.run("h2-plaintext", 40, False)


async def test_a_missing_answer_is_an_error(monkeypatch):
    monkeypatch.setattr(instructions.Transport, "write", lambda self, data: None)
    with pytest.raises(SystemExit, match="0 answers to 3 requests"):
        await instructions.run("plaintext", 3, False)


def test_no_timer_runs_out():
    rang = []

    async def main():
        asyncio.get_running_loop().call_later(0.0, rang.append, True)
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.02)

    with asyncio.Runner(loop_factory=instructions.new_loop) as runner:
        runner.run(main())
    assert not rang
