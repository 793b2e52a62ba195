from __future__ import annotations

import pytest

from bridge.core.http2 import hpack


@pytest.fixture(params=["python", "compiled"])
def either_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test twice: with the compiled decoder of field blocks, if there is one, and with its Python twin."""
    if request.param == "python":
        monkeypatch.setattr(hpack, "_decode_fields", None)
        monkeypatch.setattr(hpack, "_read_request", None)
    elif hpack._decode_fields is None:
        pytest.skip("bridge._speedups is not built, or BRIDGE_SPEEDUPS=0")
