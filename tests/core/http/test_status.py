from __future__ import annotations

from http import HTTPStatus

import pytest

from bridge.core.http.status import HAS_NO_CONTENT, HAS_NO_LENGTH, PHRASES, check_status, is_bodiless
from bridge.errors import LocalProtocolError
from tests.support.hostile import CONTROLS


def test_the_registered_phrases() -> None:
    assert PHRASES[200] == b"OK"
    assert PHRASES[404] == b"Not Found"
    assert {*PHRASES} == {status.value for status in HTTPStatus}


def test_a_status_is_a_plain_number() -> None:
    for status in (100, 200, 299, 999, HTTPStatus.NOT_FOUND):
        assert check_status(status) == status
        assert type(check_status(status, b"Fine \xe9")) is int


@pytest.mark.parametrize("status", [0, 1, 99, 1000, -200, 10**9, True, "200", b"200", None, 299.5])
def test_what_is_no_status(status: object) -> None:
    with pytest.raises(LocalProtocolError):
        check_status(status)


@pytest.mark.parametrize("reason", [bytes([octet]) for octet in CONTROLS])
def test_what_is_no_reason(reason: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        check_status(200, b"OK" + reason)


@pytest.mark.parametrize(
    ("method", "status", "bodiless"),
    [
        (b"GET", 200, False),
        (b"HEAD", 200, True),
        (b"head", 200, False),
        (b"GET", 204, True),
        (b"GET", 304, True),
        (b"GET", 101, True),
        (b"GET", 205, False),
        (b"HEAD", 404, True),
    ],
)
def test_what_has_no_content_by_definition(method: bytes, status: int, bodiless: bool) -> None:
    assert is_bodiless(method, status) is bodiless


def test_what_has_no_length_has_no_content_either() -> None:
    assert HAS_NO_LENGTH < HAS_NO_CONTENT
