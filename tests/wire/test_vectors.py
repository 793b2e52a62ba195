"""The vectors beside the repository: the same answers however the bytes are cut, and behind another request."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.cuts import around_each_crlf, at_random, bytewise, cut_at
from tests.support.echo import Echo
from tests.support.link import GET, linked
from tests.support.responses import read_responses

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "wire" / "vectors.json"
TOKEN = re.compile(r"\{\{(rep|hdrs|pause|fin|rst)(?::(.*?))?\}\}", re.DOTALL)
CATEGORIES = {
    "base",
    "line",
    "target",
    "field",
    "host",
    "cl",
    "te",
    "chunk",
    "expect",
    "conn",
    "size",
    "resp",
    "environ",
}

pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason="there is no ../shared/wire/vectors.json")


def vectors() -> list[Any]:
    if not VECTORS.exists():
        return []
    return [
        pytest.param(vector, id=vector["id"])
        for vector in json.loads(VECTORS.read_text())
        if vector["category"] in CATEGORIES and "{{rst" not in vector["raw_request"]
    ]


def expand(raw: str) -> tuple[bytes, bool]:
    """Return the bytes, and whether the client half-closes behind them; pauses are what cuts are made at."""

    def token(match: re.Match[str]) -> str:
        kind, argument = match.groups()
        if kind == "rep":
            text, _, count = argument.rpartition(":")
            return str(text) * int(count)
        if kind == "hdrs":
            return "".join(f"X-H{number}: v\r\n" for number in range(int(argument)))
        return ""

    return TOKEN.sub(token, raw).encode("latin-1"), "{{fin" in raw


def answers(pieces: list[bytes], half_close: bool, methods: list[str]) -> list[tuple[int, bytes]]:
    with linked(Echo()) as link:
        link.send(*pieces)
        if half_close:
            link.send_eof()
        # Whether a 100 was sent depends on whether the content was already there.
        return [
            (response.status, response.content)
            for response in read_responses(link.received, methods, ended=link.transport.eof)
        ]


@pytest.mark.parametrize("vector", vectors())
def test_the_same_answers_however_the_bytes_arrive(vector: dict[str, Any]) -> None:
    wire, half_close = expand(vector["raw_request"])
    wire = wire[:1_100_000]
    methods = vector.get("methods") or ["HEAD" if wire.startswith(b"HEAD") else "GET"]
    whole = answers([wire], half_close, methods)
    if len(wire) < 5000:
        cuts = [bytewise(wire), around_each_crlf(wire), at_random(wire)]
    else:
        cuts = [cut_at(wire, range(0, len(wire), 1459)), at_random(wire)]
    for pieces in cuts:
        assert answers(pieces, half_close, methods) == whole
    # ... and behind another request, in one read with it
    glued = answers([GET + wire], half_close, ["GET", *methods])
    assert glued == [(200, b"GET /|"), *whole]
    # What is allowed as the first outcome is what came, where the application has no say in it.
    allowed = vector["expect"].get("status")
    if allowed is not None and vector["category"] not in {"resp", "environ"}:
        if whole:
            assert whole[0][0] in allowed
        else:
            assert {"close", "wait"} & set(allowed)
