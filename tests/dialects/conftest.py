"""What the tests of other servers' command lines share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, of which no module stays behind that a configuration was."""
    monkeypatch.chdir(tmp_path)
    before = sys.path[:]
    yield tmp_path
    sys.path[:] = before
    for name in ("__config__", "hypercorn_config", "lying"):
        sys.modules.pop(name, None)
