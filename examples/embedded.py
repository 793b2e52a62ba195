"""A server inside an asyncio program, beside other tasks of the same loop.

Run:  python examples/embedded.py [PORT]
Ask:  curl http://127.0.0.1:8000/
"""

import asyncio
import signal
import sys

from bridge.core.httpserver import HTTPServer
from bridge.core.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from bridge.core.netutil import bind_sockets

ticks = 0


async def tick() -> None:
    """Stand for the other work of the program."""
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.1)


def answer(request: HTTPServerRequest) -> None:
    content = f"The program has ticked {ticks} times\n".encode()
    headers = HTTPHeaders({"Content-Type": "text/plain", "Content-Length": str(len(content))})
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, content)
    request.connection.finish()


async def main(port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    server = HTTPServer(answer)
    sockets = bind_sockets(port, "127.0.0.1")
    server.add_sockets(sockets)
    print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)

    ticking = asyncio.create_task(tick())
    await stop.wait()
    server.stop()  # no new connections
    await server.drain(10)  # requests in progress have 10 seconds at most
    ticking.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
