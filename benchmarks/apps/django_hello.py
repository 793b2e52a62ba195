"""Django: one view for every path, no middleware, no database; by WSGI and by ASGI."""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path


def hello(request: HttpRequest) -> HttpResponse:
    """Take the content, where there is some, and answer."""
    if request.method == "POST":
        _ = request.body
    return HttpResponse(b"Hello, World!", content_type="text/plain")


urlpatterns = [path("", hello), re_path("", hello)]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        DEBUG=False,
        LOGGING_CONFIG=None,
        MIDDLEWARE=[],
        ROOT_URLCONF=__name__,
        SECRET_KEY="only for measuring",
    )
    django.setup()

wsgi = get_wsgi_application()
asgi = get_asgi_application()
