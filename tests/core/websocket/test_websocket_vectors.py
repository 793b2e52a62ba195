"""The shared samples of hostile and odd handshakes and frames, answered by the pure layer alone."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import pytest

from bridge.core.http.limits import Limits
from bridge.core.http1.request import parse_head
from bridge.core.websocket.extensions import DeflateOptions
from bridge.core.websocket.handshake import Handshake, check_handshake
from bridge.core.websocket.receiver import NO_STATUS, Close, Receiver
from bridge.errors import RemoteProtocolError
from tests.support.websocket_peer import CUTS, frame, read

VECTORS = Path(__file__).parents[4] / "shared" / "wire" / "vectors.json"


def cases(category: str) -> list[object]:
    """Return the vectors of one category; a single skipped case when they are not there."""
    if not VECTORS.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no {VECTORS.name} beside the repository"))]
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    return [pytest.param(vector, id=vector["id"]) for vector in vectors if vector["category"] == category]


def answer(wire: bytes) -> Handshake | int:
    """Return the handshake, or the status that refuses the request; 200 for a request that asks for no upgrade."""
    try:
        head = parse_head(wire, 0, Limits())
    except RemoteProtocolError as exc:
        return exc.status
    assert head is not None
    outcome = check_handshake(head, DeflateOptions())
    if outcome is None:
        return 200
    return outcome if isinstance(outcome, Handshake) else outcome.status


@pytest.mark.parametrize("vector", cases("wshs"))
def test_handshakes(vector):
    outcome = answer(vector["raw_request"].encode("latin-1"))
    assert (101 if isinstance(outcome, Handshake) else outcome) in vector["expect"]["status"]


def bomb(match: re.Match[str]) -> str:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = coder.compress(bytes(int(match[1]))) + coder.flush(zlib.Z_SYNC_FLUSH)
    return frame(0xC1, content[:-4]).decode("latin-1")


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("vector", cases("ws"))
def test_frames(vector, cut):
    request, sent = vector["raw_request"].split("{{ws101}}")
    handshake = answer(request.encode("latin-1"))
    assert isinstance(handshake, Handshake)
    wire = re.sub(r"\{\{wsdeflate:(\d+)\}\}", bomb, sent).encode("latin-1")
    events, code = read(Receiver(deflate=handshake.deflate), cut(wire))
    outcomes: list[object] = [code] if code else []
    for event in events:
        if isinstance(event, Close):
            outcomes.append("empty" if event.code == NO_STATUS else event.code)
        elif isinstance(event, str):
            outcomes.append("echo:" + event.encode().decode("latin-1"))
    assert len(outcomes) == 1
    assert outcomes[0] in vector["expect"]["ws"]
