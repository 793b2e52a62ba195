from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from bridge.core import httputil
from bridge.core.httputil import encode_username_password, format_timestamp, qs_to_qsl, responses, url_concat

#: What programs written for Tornado's httputil may import.
DOCUMENTED = [
    "HTTPConnection",
    "HTTPFile",
    "HTTPHeaders",
    "HTTPInputError",
    "HTTPMessageDelegate",
    "HTTPOutputError",
    "HTTPServerConnectionDelegate",
    "HTTPServerRequest",
    "ParseBodyConfig",
    "ParseMultipartConfig",
    "ParseUrlEncodedConfig",
    "RequestStartLine",
    "ResponseStartLine",
    "encode_username_password",
    "format_timestamp",
    "parse_body_arguments",
    "parse_cookie",
    "parse_multipart_form_data",
    "parse_request_start_line",
    "parse_response_start_line",
    "qs_to_qsl",
    "responses",
    "set_parse_body_config",
    "split_host_and_port",
    "url_concat",
]


def test_the_documented_names_are_here() -> None:
    assert sorted(httputil.__all__) == DOCUMENTED
    assert all(hasattr(httputil, name) for name in DOCUMENTED)


URLS: list[tuple[str, Any, str]] = [
    ("http://a/b", {"c": "d"}, "http://a/b?c=d"),
    ("http://a/b?", [("c", "d"), ("c", "e")], "http://a/b?c=d&c=e"),
    ("http://a/b?x=1&y", (("c", "d"),), "http://a/b?x=1&y=&c=d"),
    ("http://a/b#f", {"c": "d"}, "http://a/b?c=d#f"),
    ("/b;p", {"c": "/ &é"}, "/b;p?c=%2F+%26%C3%A9"),
    ("http://a/b?x=%2F", {}, "http://a/b?x=%2F"),
    ("http://a/b?x", None, "http://a/b?x"),
    ("", {"a": "b"}, "?a=b"),
]


@pytest.mark.parametrize(("url", "arguments", "expected"), URLS)
def test_url_concat(url: str, arguments: Any, expected: str) -> None:
    assert url_concat(url, arguments) == expected


@pytest.mark.parametrize("arguments", ["a=b", 3, {"a"}])
def test_url_concat_refuses_other_arguments(arguments: Any) -> None:
    with pytest.raises(TypeError, match="is no mapping, list or tuple"):
        url_concat("/", arguments)


STAMP = 784111777
TIMES: list[Any] = [
    STAMP,
    STAMP + 0.7,
    time.gmtime(STAMP),
    tuple(time.gmtime(STAMP)),
    datetime.datetime(1994, 11, 6, 8, 49, 37),
    datetime.datetime(1994, 11, 6, 8, 49, 37, 999999, datetime.UTC),
    datetime.datetime(1994, 11, 6, 3, 49, 37, tzinfo=datetime.timezone(datetime.timedelta(hours=-5))),
]


@pytest.mark.parametrize("moment", TIMES)
def test_a_timestamp_is_an_imf_fixdate(moment: Any) -> None:
    assert format_timestamp(moment) == "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("moment", ["1994", None, [1994]])
def test_no_timestamp(moment: Any) -> None:
    with pytest.raises(TypeError, match="is no timestamp"):
        format_timestamp(moment)


def test_pairs_of_a_parsed_query() -> None:
    assert list(qs_to_qsl({"a": ["1", "2"], "b": [], "c": ["3"]})) == [("a", "1"), ("a", "2"), ("c", "3")]


@pytest.mark.parametrize(
    ("username", "password", "expected"),
    [
        ("a", "b", b"a:b"),
        (b"\xff", "\u0301e\u0301", b"\xff:\xcc\x81\xc3\xa9"),
        ("e\u0301", b"e\xcc\x81", b"\xc3\xa9:e\xcc\x81"),
    ],
)
def test_credentials(username: str | bytes, password: str | bytes, expected: bytes) -> None:
    assert encode_username_password(username, password) == expected


def test_reason_phrases() -> None:
    assert responses[404] == "Not Found"
