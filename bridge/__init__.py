"""bridge: one HTTP server for ASGI, WSGI and Tornado-style applications.

``bridge.run(app, port=8080)`` serves until a signal says stop; ``bridge.Server`` serves inside a program that has an
event loop of its own. Both are imported when they are first asked for.
"""

from bridge._version import __version__

TYPE_CHECKING = False  # typing is heavy
if TYPE_CHECKING:
    from bridge.config import Config as Config
    from bridge.serving.embedding import Server as Server
    from bridge.serving.embedding import run as run

__all__ = ["Config", "Server", "__version__", "run"]


def __getattr__(name: str) -> object:
    if name == "Config":
        from bridge.config import Config

        return Config
    if name in {"Server", "run"}:
        from bridge.serving import embedding

        return getattr(embedding, name)
    raise AttributeError(f"module 'bridge' has no attribute {name!r}")
