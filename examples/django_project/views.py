"""A page, a streamed answer, an upload."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_POST

LINES = [f"line {number}\n" for number in range(5)]


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<!doctype html><title>bridge</title><h1>Hello from Django</h1><p>Served by bridge.</p>\n")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    # Django wants an asynchronous iterator under ASGI and a plain one under WSGI.
    lines = async_lines() if isinstance(request, ASGIRequest) else plain_lines()
    return StreamingHttpResponse(lines, content_type="text/plain")


def plain_lines() -> Iterator[str]:
    for line in LINES:
        yield line
        time.sleep(0.1)  # each line reaches the client at once: curl -N shows it


async def async_lines() -> AsyncIterator[str]:
    for line in LINES:
        yield line
        await asyncio.sleep(0.1)


@require_POST
def upload(request: HttpRequest) -> JsonResponse:
    """Answer size and digest of the form's file; Django keeps a large one in a temporary file."""
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for piece in file.chunks():
        digest.update(piece)
    return JsonResponse({"size": file.size, "sha256": digest.hexdigest()})
