"""What an application raises reaches the test that serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.asgi import connect, served
from tests.support.faults import application_errors
from tests.support.link import GET, Recorder, linked
from tests.support.serving import Client
from tests.support.serving import serving as serving_natively
from tests.support.tornadostyle import serving as serving_tornado
from tests.support.wsgi import serving as serving_wsgi


def no(*_: Any) -> Any:
    raise AssertionError("no")


def failed(*_: Any) -> Any:
    with pytest.raises(ValueError):
        pass


async def on_asgi(error: Callable[..., Any], raises: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        error()

    async with served(app, raises=raises) as server, connect(server.port) as client:
        client.get()
        await client.rest()


async def on_wsgi(error: Callable[..., Any], raises: Any) -> None:
    async with serving_wsgi(error, raises=raises) as server:
        assert (await server.get()).status == 500


async def on_callable(error: Callable[..., Any], raises: Any) -> None:
    async with serving_tornado(error, raises=raises) as port, connect(port) as client:
        client.get()
        await client.rest()


async def on_delegate(error: Callable[..., Any], raises: Any) -> None:
    async with serving_natively(Recorder(on_finish=error), raises=raises) as server:
        async with await Client.connect(server) as client:
            await client.send(GET)
            await client.read_to_the_end()


async def on_link(error: Callable[..., Any], raises: Any) -> None:
    def run() -> None:  # in a thread: it has a loop of its own
        with linked(Recorder(on_finish=error), raises=raises) as link:
            link.send(GET)

    await asyncio.to_thread(run)


WAYS = pytest.mark.parametrize("way", [on_asgi, on_wsgi, on_callable, on_delegate, on_link])


@WAYS
async def test_an_assertion_of_the_application_fails_the_test(way: Callable[..., Awaitable[None]]) -> None:
    for raises in ((), Exception):
        with pytest.raises(AssertionError, match="no"):
            await way(no, raises)


@WAYS
async def test_an_error_that_is_expected_fails_nothing(way: Callable[..., Awaitable[None]]) -> None:
    await way(lambda *_: {}["x"], KeyError)
    with pytest.raises(KeyError):
        await way(lambda *_: {}["x"], ValueError)


@pytest.mark.parametrize("way", [on_asgi, on_wsgi])
async def test_an_error_that_does_not_come_fails_the_application(way: Callable[..., Awaitable[None]]) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await way(failed, ())


def test_an_error_that_is_expected_must_come() -> None:
    with pytest.raises(AssertionError, match="none of"), application_errors(ValueError):
        pass
