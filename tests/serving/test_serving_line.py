"""The line that says what is served where."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from bridge.config import Config
from bridge.serving.server import serving_line


class Site:
    """An application given in a program."""


MOUNTS = (("", "/api", "api:app"), ("", "", "site:app"))


@pytest.mark.parametrize(
    ("settings", "app", "names"),
    [
        ({"target": "site:app"}, None, "site:app"),
        ({}, Site(), "Site"),
        ({"mount": MOUNTS}, None, "api:app, site:app"),
        ({"target": "old:app", "mount": MOUNTS}, None, "old:app, api:app, site:app"),
        ({"mount": MOUNTS[:1]}, Site(), "Site, api:app"),
    ],
)
def test_all_applications_are_named(settings: dict[str, Any], app: Any, names: str) -> None:
    config = Config(**settings)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        line = serving_line(config, app, "2 workers, ASGI", [sock])
        assert line == f"bridge: serving {names} (2 workers, ASGI) on http://127.0.0.1:{sock.getsockname()[1]}"
