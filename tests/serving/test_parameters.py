"""What a server's connections may take, by what is served."""

from __future__ import annotations

import pytest

from bridge.config.sources import load
from bridge.serving.server import _parameters


@pytest.mark.parametrize(
    ("wsgi", "late", "most"), [(False, False, None), (True, False, 1 << 30), (False, True, 100 << 20)]
)
def test_content_that_is_kept_in_memory_is_limited(wsgi: bool, late: bool, most: int | None) -> None:
    params = _parameters(load([], {}), [], wsgi=wsgi, late=late)
    assert (params.max_body_size, params.limit_after_start) == (most, late)
