"""gunicorn's worker classes: which interface and which threads each of them stands for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from bridge.dialects.table import Fate, Translation

__all__ = ["imported", "worker_class"]

_GREEN = (
    "bridge patches no sockets; threads do the same for applications that wait (-k gthread --threads N), and"
    " an ASGI application needs neither"
)
_KINDS = {
    "sync": "sync",
    "gunicorn.workers.sync.SyncWorker": "sync",
    "gthread": "gthread",
    "gunicorn.workers.gthread.ThreadWorker": "gthread",
    "asgi": "asgi",
    "gunicorn.workers.gasgi.ASGIWorker": "asgi",
    "tornado": "tornado",
    "gunicorn.workers.gtornado.TornadoWorker": "tornado",
    "meinheld.gmeinheld.MeinheldWorker": "gthread",
    "egg:meinheld#gunicorn_worker": "gthread",
    "aiohttp.worker.GunicornWebWorker": "aiohttp",
    "aiohttp.GunicornWebWorker": "aiohttp",
    "aiohttp.GunicornUVLoopWebWorker": "aiohttp",
    "aiohttp.worker.GunicornUVLoopWebWorker": "aiohttp",
    "sanic.worker.GunicornWorker": "asgi",
    "sanic.worker.gunicorn.GunicornWorker": "asgi",
}
_GREEN_NAMES = re.compile(r"gevent|eventlet|(^|\.)g(gevent|eventlet)\b")
_UVICORN = re.compile(r"(egg:)?uvicorn(\.workers\.|_worker\.|_worker\.workers\.|-worker#)\w*")
#: Modules whose classes say what a subclass is.
_BASES = {
    "gunicorn.workers.sync": "sync",
    "gunicorn.workers.gthread": "gthread",
    "gunicorn.workers.gasgi": "asgi",
    "gunicorn.workers.gtornado": "tornado",
    "gunicorn.workers.ggevent": "gevent",
    "gunicorn.workers.geventlet": "eventlet",
    "uvicorn.workers": "uvicorn",
    "uvicorn_worker": "uvicorn",
    "bridge.compat.gunicorn": "gthread",
    "bridge.compat.uvicorn": "uvicorn",
}


def worker_class(value: Any, t: Translation) -> tuple[Fate, str] | None:
    """Convert the name of a worker class, or the class."""
    if isinstance(value, str):
        name = value.strip()
        kind = _KINDS.get(name) or ("uvicorn" if _UVICORN.fullmatch(name) else None)
        if kind is None and _GREEN_NAMES.search(name):
            kind = "gevent"
        if kind is not None:
            return _settle(kind, {}, t)
        found = imported(name)
        if isinstance(found, str):
            return Fate.REFUSED, found
        value = found
    if not isinstance(value, type):
        raise TypeError("not a class")
    kind = next((_BASES[base] for base in map(_module_of, value.__mro__) if base in _BASES), None)
    if kind is None:
        return Fate.REFUSED, f"{value.__qualname__} derives from no worker class that bridge knows"
    changed = [method for method in vars(value) if callable(vars(value)[method]) and not method.startswith("__")]
    verdict = _settle(kind, getattr(value, "CONFIG_KWARGS", {}), t)
    if changed and verdict is None:
        return Fate.NEAR, f"{value.__qualname__}: its methods {', '.join(changed)} are not called"
    return verdict


def _module_of(cls: type) -> str:
    module = cls.__module__
    return "uvicorn_worker" if module.startswith("uvicorn_worker") else module


def imported(name: str) -> Any:
    """Return the class *name*, or in words why there is none."""
    module, _, attribute = name.rpartition(".") if ":" not in name else name.partition(":")
    if not module:
        return f"there is no worker class {name!r}"
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as exc:
        return f"{name} cannot be imported: {type(exc).__name__}: {exc}"
    return found if isinstance(found, type) else f"{name} is no class"


def _settle(kind: str, options: Mapping[str, Any], t: Translation) -> tuple[Fate, str] | None:
    facts = t.dialect
    if kind in {"gevent", "eventlet"}:
        return Fate.REFUSED, _GREEN
    if kind == "aiohttp":
        return Fate.REFUSED, "an aiohttp application speaks none of bridge's interfaces; it brings a server of its own"
    facts["kind"] = "asgi" if kind == "uvicorn" else kind
    if kind == "uvicorn":
        facts["is_uvicorn"] = True
        t.set("interface", "asgi3")
        t.default("forwarded_fields", "x-forwarded-for,x-forwarded-proto", "UvicornWorker")
        return _uvicorn_options(options, t)
    if kind == "asgi":
        t.set("interface", "asgi3")
    return None


def _uvicorn_options(options: Mapping[str, Any], t: Translation) -> tuple[Fate, str] | None:
    """Take the arguments that a subclass gives to uvicorn's Config."""
    from bridge.dialects.uvicorn import keywords

    remarks = keywords(options, t)
    return (Fate.NEAR, "; ".join(remarks)) if remarks else None
