"""The lifespan: applications with one, without one, and with a broken one."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

import pytest

from bridge.adapters.asgi.lifespan import Lifespan
from bridge.apps.lifecycle import ASGIApplication
from bridge.config import Config
from bridge.errors import LifespanFailed, LocalProtocolError

COMPLETE = {"type": "lifespan.startup.complete"}


async def test_messages_and_state() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append({key: scope[key] for key in ("type", "asgi", "extensions")})
        scope["state"]["pool"] = "open"
        seen.append(await receive())
        await send(COMPLETE)
        seen.append(await receive())
        await send({"type": "lifespan.shutdown.complete"})
        seen.append("end")

    lifespan = Lifespan(app, "on")
    await lifespan.startup()
    assert (lifespan.supported, lifespan.state) == (True, {"pool": "open"})
    lifespan.notify()  # not asked for
    await lifespan.shutdown(5)
    assert seen == [
        {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "extensions": {"lifespan.shutdown.notice": {}},
        },
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
        "end",
    ]


async def raises_at_once(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("no such scope")


async def raises_later(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("no database")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    pass


async def answers_http(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200})


@pytest.mark.parametrize(
    ("app", "level"),
    [
        (raises_at_once, "DEBUG"),
        (raises_later, "WARNING"),
        (answers_http, "WARNING"),
        (returns, ""),
    ],
)
async def test_applications_without_one(app: Any, level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bridge")
    lifespan = Lifespan(app, "auto")
    await lifespan.startup()
    assert not lifespan.supported
    await lifespan.shutdown(5)
    assert [record.levelname for record in caplog.records] == [level] * bool(level)

    caplog.clear()
    with pytest.raises(LifespanFailed):
        await Lifespan(app, "on").startup()


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_an_application_that_says_that_it_cannot_start(mode: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(LifespanFailed, match="no database"):
        await Lifespan(app, mode).startup()


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_an_application_that_exits_cannot_start(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise SystemExit("no settings")

    with pytest.raises(LifespanFailed, match="no settings"):
        await Lifespan(app, mode).startup()
    assert len(caplog.records) == 1


async def test_an_application_that_is_cancelled() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await receive()
        await asyncio.sleep(0)

    with pytest.raises(LifespanFailed, match="cancelled"):
        await asyncio.wait_for(Lifespan(app, "auto").startup(), 5)


async def test_messages_out_of_place() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(LocalProtocolError, match="lifespan startup"):
            await send({"type": "lifespan.shutdown.complete"})
        with pytest.raises(LocalProtocolError, match="an ASGI message is a dictionary, not None"):
            await send(None)
        with pytest.raises(LocalProtocolError, match="ASGI message without 'type'"):
            await send({})
        with pytest.raises(LocalProtocolError, match="unexpected ASGI message"):
            await send({"type": ["lifespan.startup.complete"]})
        await send(COMPLETE)
        for second in (COMPLETE, {"type": "lifespan.startup.failed"}):
            with pytest.raises(LocalProtocolError, match="after another answer to lifespan"):
                await send(second)
        await receive()
        await receive()
        with pytest.raises(LocalProtocolError, match="lifespan shutdown"):
            await send(COMPLETE)
        await send({"type": "lifespan.shutdown.complete"})

    lifespan = Lifespan(app, "on")
    await lifespan.startup()
    await lifespan.shutdown(5)


@pytest.mark.parametrize("end", ["failed", "raise", "hang"])
async def test_a_shutdown_that_fails(end: str, caplog: pytest.LogCaptureFixture) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(COMPLETE)
        await receive()
        if end == "failed":
            await send({"type": "lifespan.shutdown.failed", "message": "still busy"})
        elif end == "raise":
            raise RuntimeError("still busy")
        else:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

    lifespan = Lifespan(app, "auto")
    await lifespan.startup()
    await lifespan.shutdown(0.05)
    assert cancelled.is_set() == (end == "hang")
    assert ("longer than 0.05 s" if end == "hang" else "still busy") in caplog.text


async def test_an_error_between_startup_and_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(COMPLETE)
        await go.wait()
        raise RuntimeError("broken")

    lifespan = Lifespan(app, "auto")
    await lifespan.startup()
    go.set()
    await asyncio.sleep(0.01)
    await lifespan.shutdown(5)
    assert "Exception in the application's lifespan" in caplog.text


async def test_notice_for_who_asks() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({**COMPLETE, "shutdown_notice": "lifespan.shutdown.notice" in scope["extensions"]})
        seen.append((await receive())["type"])
        seen.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    application = ASGIApplication(app, Config(), "ASGI", "")
    await application.startup()
    application.stop(restart=False)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == ["lifespan.shutdown.notice"]
    await application.shutdown(5)
    assert seen == ["lifespan.shutdown.notice", "lifespan.shutdown"]


async def test_requests_get_the_context_and_the_state_of_the_startup() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        variable.set("set at startup")
        scope["state"]["a"] = 1
        await send(COMPLETE)
        await receive()
        variable.set("later")
        await send({"type": "lifespan.shutdown.complete"})

    application = ASGIApplication(app, Config(), "ASGI", "")
    await application.startup()
    assert application.delegate.context[variable] == "set at startup"
    assert application.delegate.state == {"a": 1}
    await application.shutdown(5)
    assert application.delegate.context[variable] == "set at startup"
    with pytest.raises(LookupError):
        variable.get()


@pytest.mark.parametrize("mode", ["auto", "off"])
async def test_without_a_lifespan_there_is_no_state(mode: str) -> None:
    application = ASGIApplication(raises_at_once, Config(lifespan=mode), "ASGI", "")
    await application.startup()
    assert application.delegate.state is None
    application.stop(restart=False)
    await application.shutdown(5)
