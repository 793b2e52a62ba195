"""Start what has no command line of its own: the floor, and the Tornado interface on bridge and on Tornado.

Both Tornado-style servers run on the same loop (uvloop when installed) with the same callable or the same
``tornado.web.Application``; only the module that ``HTTPServer`` comes from differs.
"""

import argparse
import asyncio
import importlib
import signal
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import floor
from benchmarks.answers import PLAINTEXT
from benchmarks.loops import fastest

HTTP_SERVERS = {"bridge": "bridge.core.httpserver", "tornado": "tornado.httpserver"}


def raw_callable(httputil: Any) -> Callable[[Any], None]:
    """Return the plainest request callback: it writes through the connection, as Tornado's documentation shows."""
    start_line = httputil.ResponseStartLine("HTTP/1.1", 200, "OK")

    def answer(request: Any) -> None:
        headers = httputil.HTTPHeaders({"Content-Type": "text/plain", "Content-Length": str(len(PLAINTEXT))})
        request.connection.write_headers(start_line, headers, PLAINTEXT)
        request.connection.finish()

    return answer


def tornado_application() -> Any:
    """Return a tornado.web.Application of one handler, without its access log."""
    import tornado.web

    class Hello(tornado.web.RequestHandler):
        def get(self) -> None:
            self.set_header("Content-Type", "text/plain")
            self.write(PLAINTEXT)

    return tornado.web.Application([("/", Hello)], log_function=lambda handler: None)


async def serve_tornado_style(kind: str, application: str, port: int) -> None:
    """Serve *application* ("callable" or "web") through *kind*'s HTTPServer until cancelled."""
    module = importlib.import_module(HTTP_SERVERS[kind])
    if application == "callable":
        target = raw_callable(importlib.import_module(HTTP_SERVERS[kind].replace("httpserver", "httputil")))
    else:
        target = tornado_application()
    server = module.HTTPServer(target)
    server.listen(port, address="127.0.0.1")
    try:
        await asyncio.Event().wait()
    finally:
        server.stop()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* on uvloop when it is installed, until SIGINT or SIGTERM."""

    async def until_signal() -> None:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    with asyncio.Runner(loop_factory=fastest()) as runner:
        runner.run(until_signal())


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("server", choices=["floor", *HTTP_SERVERS])
    parser.add_argument("what", help="callable or web for an HTTPServer; " + ", ".join(floor.KINDS) + " for the floor")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ssl-certfile")
    parser.add_argument("--ssl-keyfile")
    options = parser.parse_args(arguments)
    if options.server == "floor":
        context = None
        if options.ssl_certfile:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
        run(floor.serve(options.what, options.port, context))
    else:
        run(serve_tornado_style(options.server, options.what, options.port))


if __name__ == "__main__":
    main()
