"""A Jupyter server without any change: the HTTPServer that it starts is bridge's after one line."""

import os
import sys

directory = sys.argv[1]
for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
    os.environ[name] = os.path.join(directory, ".jupyter", name.lower())

from bridge.adapters.tornado import install  # noqa: E402

install()

from jupyter_server.serverapp import ServerApp  # noqa: E402

from bridge.core.httpserver import HTTPServer  # noqa: E402


def main() -> None:
    app = ServerApp.instance()
    app.initialize(
        [
            "--ServerApp.log_level=WARN",  # its own line with an address comes before it listens
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port=0",
            "--ServerApp.open_browser=False",
            "--ServerApp.allow_root=True",
            "--ServerApp.jpserver_extensions={}",
            "--IdentityProvider.token=secret",
            f"--ServerApp.root_dir={directory}",
        ]
    )
    assert isinstance(app.http_server, HTTPServer)
    app.io_loop.add_callback(lambda: print(f"http://127.0.0.1:{app.port}", flush=True))
    app.start()


if __name__ == "__main__":
    main()
