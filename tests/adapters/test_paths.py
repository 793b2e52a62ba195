"""Which paths lie below a place."""

from __future__ import annotations

import pytest

from bridge.adapters.paths import is_below


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/api/x", "/api"),
        ("/api//x", "/api"),
        ("/api/x/y", "/api/x"),
        ("/", ""),
        ("/x", ""),
        ("", ""),
    ],
)
def test_below(path: str, root: str) -> None:
    assert is_below(path, root)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/apix", "/api"),
        ("/ap", "/api"),
        ("/", "/api"),
        ("", "/api"),
        ("/API", "/api"),
        ("/x/api", "/api"),
        ("//api", "/api"),
        ("*", ""),
        ("*", "/api"),
    ],
)
def test_not_below(path: str, root: str) -> None:
    assert not is_below(path, root)
