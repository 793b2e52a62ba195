"""OpenTelemetry's automatic instrumentation: in every process that serves an application, and in no other.

``opentelemetry-instrument COMMAND`` instruments the process that COMMAND begins with. With workers that is the master:
its threads, which send what is measured, would not be in the workers, and all workers would have one name for their
series. So a master starts itself again without instrumentation. Each worker instruments itself, after the fork and
before it imports the application.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import NoReturn

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.serving.process import at_origin

__all__ = ["instrument", "start_again", "wanted", "wrapped"]

_VARIABLE = "BRIDGE_OTEL"
_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
_WRAPPER = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")


def wrapped() -> bool:
    """Tell whether ``opentelemetry-instrument`` has instrumented this process."""
    return _WRAPPER in (getattr(sys.modules.get("sitecustomize"), "__file__", None) or "")


def wanted(config: Config) -> bool:
    """Tell whether processes that serve are to be instrumented.

    Raises:
        ConfigError: The application would be imported before that.
    """
    asked = config.otel or os.environ.get(_VARIABLE) == "on"
    if asked and config.preload:
        raise ConfigError(
            "--preload: the application would be imported before OpenTelemetry instruments it; leave out one of the two"
        )
    return asked


def start_again() -> NoReturn:
    """Become a process that is not instrumented and whose workers will be. Call it before anything has begun."""
    os.environ[_VARIABLE] = "on"
    words = [sys.executable, *sys.orig_argv[1:]]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if _WRAPPER not in path)
    if not os.environ["PYTHONPATH"]:
        del os.environ["PYTHONPATH"]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    at_origin(lambda: os.execv(sys.executable, words))  # noqa: S606 - this interpreter, with its own words
    raise AssertionError("the process is another one")


def instrument() -> None:
    """Instrument this process, under a name of its own.

    Raises:
        ConfigError: OpenTelemetry is not installed, or cannot be set up as its variables say.
    """
    try:
        from opentelemetry.instrumentation.auto_instrumentation import initialize
    except ImportError:
        raise ConfigError(
            "--otel: OpenTelemetry's instrumentation is not installed; `pip install opentelemetry-distro"
            " opentelemetry-exporter-otlp`, or install bridge with the extra bridge[otel]; and then"
            " `opentelemetry-bootstrap -a install`"
        ) from None
    given = os.environ.get(_ATTRIBUTES, "")
    pairs = [pair for pair in given.split(",") if pair.strip()]
    names = {pair.partition("=")[0].strip() for pair in pairs}
    own = {
        "service.instance.id": str(uuid.uuid4()),  # one series for each process
        "process.pid": str(os.getpid()),
        "bridge.worker": os.environ.get("BRIDGE_WORKER", "0"),
    }
    os.environ[_ATTRIBUTES] = ",".join([*pairs, *(f"{name}={own[name]}" for name in own if name not in names)])
    try:
        initialize(swallow_exceptions=False)
    except Exception as exc:
        raise ConfigError(f"--otel: OpenTelemetry cannot be set up: {type(exc).__name__}: {exc}") from exc
    finally:
        os.environ[_ATTRIBUTES] = given  # children of the application are processes of their own
        if not given:
            del os.environ[_ATTRIBUTES]
