"""bridge: one HTTP server for ASGI, WSGI and Tornado-style applications.

``bridge.run(app, port=8080)`` serves until a signal says stop; ``bridge.Server`` serves inside a program that has an
event loop of its own. Both are imported when they are first asked for.
"""

TYPE_CHECKING = False  # typing is heavy
if TYPE_CHECKING:
    from bridge.config import Config as Config
    from bridge.supervisor.embedding import Server as Server
    from bridge.supervisor.embedding import run as run

__version__ = "0.1.0.dev0"

__all__ = ["Config", "Server", "__version__", "run"]


def __getattr__(name: str) -> object:
    if name == "Config":
        from bridge.config import Config

        return Config
    if name in {"Server", "run"}:
        from bridge.supervisor import embedding

        return getattr(embedding, name)
    raise AttributeError(f"module 'bridge' has no attribute {name!r}")
