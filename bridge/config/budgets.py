"""The settings for what all clients of a process may use together, a part of the table in `bridge.config.settings`."""

from __future__ import annotations

from typing import Literal

from bridge.config.kinds import SIZE, off_or, whole
from bridge.config.output import OutputConfig
from bridge.config.table import setting

__all__ = ["BUDGETS", "BudgetsConfig"]

BUDGETS = "Budgets of a process"

MIB = 1 << 20


class BudgetsConfig(OutputConfig):
    """What all clients of one process together may make it hold and do."""

    limit_unfinished: int | None = setting(
        BUDGETS,
        off_or(SIZE),
        32 * MIB,
        "how much memory of a process all clients together may use for unfinished heads, small content and"
        " WebSocket messages; beyond that, the clients that hold the most for the longest time get 503 or close code"
        " 1013",
    )
    limit_unsent: int | None = setting(
        BUDGETS,
        off_or(SIZE),
        24 * MIB,
        "how much memory of a process may hold responses that clients have not read yet; beyond that, applications"
        " wait until their clients have read, and clients that read next to nothing in 5 s are reset; beyond this"
        " limit and a quarter of it, also clients that read nothing in 1 s",
    )
    limit_spool: int | None = setting(
        BUDGETS,
        off_or(SIZE),
        256 * MIB,
        "how much a process may keep in temporary files for uploads and responses of WSGI, and in memory for"
        " uploads to functions; beyond that, uploads are answered 503, and threads wait for their clients",
    )
    threads_slow: int | Literal["auto"] | None = setting(
        BUDGETS,
        off_or(whole(1)),
        "auto",
        "how many WSGI threads may wait for slow clients while requests wait for a thread; beyond that, bridge cuts"
        " off the clients that threads have waited for longest, at least 5 s, and clients that have read nothing of a"
        " response in a temporary file for 1 s",
        shown="half of --threads",
    )
    limit_turn: int = setting(
        BUDGETS,
        whole(1),
        4096,
        "how many chunks, frames and similar pieces a process reads in one turn of its event loop, about a"
        " microsecond each; the rest waits for the next turn, so that a flood of them does not delay other clients",
    )
    rate_request_body: int | None = setting(
        BUDGETS,
        off_or(SIZE),
        240,
        "how many bytes of content a client must send in a second, on average over --timeout-request-body; if it"
        " sends less, it is answered 408; with off, any byte counts as progress",
    )
