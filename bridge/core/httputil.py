"""Tornado's documented names for servers, delegates and applications, and a few small helpers.

The classes are in ``bridge.core.tornado``: ``headers``, ``startline``, ``interfaces``, ``request``, ``forms`` and
``cookies``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, AnyStr

from bridge.core.tornado.cookies import parse_cookie
from bridge.core.tornado.forms import (
    HTTPFile,
    ParseBodyConfig,
    ParseMultipartConfig,
    ParseUrlEncodedConfig,
    parse_body_arguments,
    parse_multipart_form_data,
    set_parse_body_config,
)
from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.interfaces import HTTPConnection, HTTPMessageDelegate, HTTPServerConnectionDelegate
from bridge.core.tornado.request import HTTPServerRequest, split_host_and_port
from bridge.core.tornado.startline import (
    HTTPInputError,
    HTTPOutputError,
    RequestStartLine,
    ResponseStartLine,
    parse_request_start_line,
    parse_response_start_line,
)

if TYPE_CHECKING:
    import datetime
    import time

__all__ = [
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

# Status code -> reason phrase. It equals http.client.responses, but the import of http.client takes 15 ms.
responses = {status.value: status.phrase for status in HTTPStatus}


def url_concat(url: str, args: Mapping[str, str] | list[tuple[str, str]] | tuple[tuple[str, str], ...] | None) -> str:
    """Return *url* with *args* added to its query.

    Args:
        url: A URL, with or without query and fragment.
        args: A mapping, or a list or tuple of pairs; None adds nothing.

    Raises:
        TypeError: *args* is something else.
    """
    if args is None:
        return url
    if not isinstance(args, Mapping | list | tuple):
        raise TypeError(f"args {args!r:.80} is no mapping, list or tuple")
    from urllib.parse import parse_qsl, urlencode, urlsplit

    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    pairs.extend(args.items() if isinstance(args, Mapping) else args)
    return parts._replace(query=urlencode(pairs)).geturl()


def format_timestamp(
    ts: float | tuple[int, ...] | time.struct_time | datetime.datetime,
) -> str:
    """Return *ts* in the form of a date field (RFC 9110 section 5.6.7), such as ``Sun, 06 Nov 1994 08:49:37 GMT``.

    Args:
        ts: Seconds since the epoch; or a tuple as ``time.gmtime`` returns it; or a datetime, which is in UTC if it has
            no time zone.

    Raises:
        TypeError: *ts* is something else.
    """
    import calendar
    import datetime
    from email.utils import formatdate

    if isinstance(ts, datetime.datetime):
        ts = calendar.timegm(ts.utctimetuple())
    elif isinstance(ts, tuple):
        ts = calendar.timegm(ts)
    elif not isinstance(ts, int | float):
        raise TypeError(f"{ts!r} is no timestamp, time tuple or datetime")
    return formatdate(ts, usegmt=True)


def qs_to_qsl(qs: Mapping[str, list[AnyStr]]) -> Iterable[tuple[str, AnyStr]]:
    """Yield (name, value) for every value in *qs*, a mapping as ``urllib.parse.parse_qs`` returns it."""
    for name, values in qs.items():
        for value in values:
            yield name, value


def encode_username_password(username: str | bytes, password: str | bytes) -> bytes:
    """Return ``username:password`` for the Basic scheme, before base64 (RFC 7617 section 2.1).

    Text is normalized (NFC) and encoded in UTF-8.
    """
    import unicodedata

    return b":".join(
        unicodedata.normalize("NFC", text).encode() if isinstance(text, str) else text for text in (username, password)
    )
