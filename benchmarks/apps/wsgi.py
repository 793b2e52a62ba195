"""WSGI applications of the scenarios."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.answers import CHUNK, CHUNKS, PLAINTEXT

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

PLAINTEXT_FIELDS = [("Content-Type", "text/plain"), ("Content-Length", str(len(PLAINTEXT)))]
STREAM_FIELDS = [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(CHUNK) * CHUNKS))]


def plaintext(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", PLAINTEXT_FIELDS)
    return [PLAINTEXT]


def taking(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Take the content, where there is some, and answer 13 bytes."""
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", PLAINTEXT_FIELDS)
    return [PLAINTEXT]


def sleep(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer after 10 ms, blocking the thread."""
    time.sleep(0.01)
    start_response("200 OK", PLAINTEXT_FIELDS)
    return [PLAINTEXT]


def stream(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Answer 1 MiB in 64 KiB pieces."""
    start_response("200 OK", STREAM_FIELDS)
    for _ in range(CHUNKS):
        yield CHUNK


def stream_made(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Answer 1 MiB in 64 KiB pieces, each of which is an object of its own, as templates and files are."""
    start_response("200 OK", STREAM_FIELDS)
    for _ in range(CHUNKS):
        yield bytes(bytearray(CHUNK))
