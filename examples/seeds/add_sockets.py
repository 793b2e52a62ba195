"""``add_sockets``: advanced multi-process.

Run:  python examples/seeds/add_sockets.py 8888
Ask:  curl http://127.0.0.1:8888/
"""

import sys

from single_process import app

import bridge.core.netutil
import bridge.core.process
from bridge.core.httpserver import HTTPServer
from bridge.core.ioloop import IOLoop

if __name__ == "__main__":
    sockets = bridge.core.netutil.bind_sockets(int(sys.argv[1]))
    bridge.core.process.fork_processes(0)
    server = HTTPServer(app)
    server.add_sockets(sockets)
    IOLoop.current().start()
