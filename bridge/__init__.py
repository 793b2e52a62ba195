"""bridge: one HTTP server for ASGI, WSGI and Tornado-style applications.

``bridge.run(app, port=8080)`` serves until a signal asks for a stop. ``bridge.Server`` serves inside a program that
runs its own event loop. Each name is imported when it is first used, so that ``import bridge`` is quick.
"""

from bridge._version import __version__

TYPE_CHECKING = False  # importing typing would take longer than the rest of this module
if TYPE_CHECKING:
    from bridge.config import Config as Config
    from bridge.serving.embedding import Server as Server
    from bridge.supervisor.embedding import run as run

__all__ = ["Config", "Server", "__version__", "run"]


def __getattr__(name: str) -> object:
    if name == "Config":
        from bridge.config import Config

        return Config
    if name == "Server":
        from bridge.serving.embedding import Server

        return Server
    if name == "run":
        from bridge.supervisor.embedding import run

        return run
    raise AttributeError(f"module 'bridge' has no attribute {name!r}")
