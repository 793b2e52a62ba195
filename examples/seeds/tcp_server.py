"""TCPServer, whose subclass takes streams; the three ways to start it are those of HTTPServer.

Run:  python examples/seeds/tcp_server.py 8888 listen    (or: start, add_sockets)
Ask:  echo hello | nc 127.0.0.1 8888
"""

import os
import sys

from bridge.core.ioloop import IOLoop
from bridge.core.iostream import StreamClosedError
from bridge.core.netutil import bind_sockets
from bridge.core.process import fork_processes
from bridge.core.tcpserver import TCPServer


class EchoServer(TCPServer):
    async def handle_stream(self, stream, address):
        try:
            while True:
                line = await stream.read_until(b"\n")
                await stream.write(b"%d: %s" % (os.getpid(), line))
        except StreamClosedError:
            pass


if __name__ == "__main__":
    port = int(sys.argv[1])
    if sys.argv[2] == "listen":
        server = EchoServer()
        server.listen(port)
    elif sys.argv[2] == "start":
        server = EchoServer()
        server.bind(port)
        server.start(0)  # Forks multiple sub-processes
    else:
        sockets = bind_sockets(port)
        fork_processes(0)
        server = EchoServer()
        server.add_sockets(sockets)
    IOLoop.instance().start()
