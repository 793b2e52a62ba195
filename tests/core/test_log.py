from __future__ import annotations

import logging

import pytest

from bridge.core.log import access_log, app_log, gen_log


@pytest.mark.parametrize(
    ("logger", "name"), [(access_log, "bridge.access"), (app_log, "bridge.application"), (gen_log, "bridge.general")]
)
def test_the_loggers_have_one_parent(logger: logging.Logger, name: str) -> None:
    parent = logging.getLogger("bridge")
    assert logger.name == name
    assert logger.parent is parent
