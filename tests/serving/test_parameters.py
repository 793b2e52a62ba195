"""How much content a request may have, by the interface of the application."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.apps.detection import Interface
from bridge.apps.lifecycle import MountedApplications, adapt_application
from bridge.config import Config
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.serving.parameters import connection_parameters


class Native:
    def start_exchange(self, exchange: object) -> object:
        return NULL_DELEGATE


def app(*_: object) -> None: ...


@pytest.mark.parametrize("limit", ["auto", None, 7])
@pytest.mark.parametrize(
    ("interface", "target", "most", "late"),
    [
        (Interface.ASGI3, app, None, False),
        (Interface.WSGI, app, 1 << 30, False),
        (Interface.DELEGATE, Native(), None, False),
        (Interface.CALLABLE, app, 100 << 20, True),
    ],
)
def test_the_interface_decides_unless_the_settings_do(
    interface: Interface, target: Any, most: int | None, late: bool, limit: Any
) -> None:
    config = Config(limit_request_body=limit)
    application = adapt_application(target, interface, config)
    params = connection_parameters(config, application, [], timed=False, answers=False)
    assert (params.max_body_size, params.limit_after_start) == (most if limit == "auto" else limit, late)


def test_mounted_applications_have_the_limit_of_the_strictest_interface_before_their_own() -> None:
    application = MountedApplications([], Config())
    assert (application.default_body_limit, application.limit_after_start) == (100 << 20, True)
