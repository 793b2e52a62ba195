"""The connection delegate that serves a WSGI application."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from bridge.adapters.wsgi.application import Application
from bridge.adapters.wsgi.environ import EnvironTemplate, environ_template, ssl_variables
from bridge.adapters.wsgi.exchange import WSGIExchange
from bridge.adapters.wsgi.filethreads import FileThreads
from bridge.adapters.wsgi.filewrapper import FileWrapper
from bridge.adapters.wsgi.lanes import Lane, Lanes
from bridge.adapters.wsgi.loopcalls import LoopCalls
from bridge.adapters.wsgi.receivers import ContentReceiver, StreamReceiver
from bridge.adapters.wsgi.request_content import ReceivedContent, StreamedContent
from bridge.adapters.wsgi.threadpool import ThreadPool
from bridge.core.log import app_log, gen_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import WSGIApplication

    from bridge.adapters.wsgi.response_buffer import ResponseBuffer
    from bridge.adapters.wsgi.threadpool import Worker
    from bridge.core.connection.interfaces import Connection, Exchange, ExchangeDelegate

__all__ = ["WSGIDelegate"]

# A lower mark than usual (bytes): a slow client holds this much in the transport's memory; the rest is in a file.
_HIGH_WATER = 16384
# Seconds. A client for which a thread has waited longer is slow.
_SLOW_CLIENT = 5.0
# Seconds after which a client that reads nothing of a stored response is cut off, while threads wait for clients.
_UNREAD = 1.0
# Seconds that a stop waits for threads whose clients have all left, and seconds between two checks.
_GONE_TIME = 3.0
_LOOK = 0.5
# Seconds in which an application whose connection is ended may still send a farewell.
_FAREWELL = 2.0
# Bound once: CPython 3.13 has no fast look-up for a static method of a class.
_open_request = WSGIExchange.open
# The most addresses of the server for which a part of the environ is kept.
_TEMPLATES_MAX = 64


class WSGIDelegate:
    """Serves a WSGI application (PEP 3333) on a pool of threads.

    Args:
        app: The application.
        threads: Most threads; 1 for applications that are not thread-safe.
        threads_min: Threads that stay when there is no work.
        threads_idle: Seconds after which an idle thread beyond *threads_min* ends.
        queue: Most requests that wait for a thread; the next one is answered 503.
        queue_timeout: Seconds that a request may wait for a thread; then 503.
        threads_slow: How many threads may wait for slow clients while requests wait for a thread. If more do, clients
            are cut off: those that were waited for longest, five seconds at least, and those with a stored response
            that have read nothing for a second. ``auto`` is half of the threads, None no limit.
        buffer_requests: Bytes of request content that are kept in memory; the rest goes to a temporary file. The
            application is called when the content is complete. None streams the content to the application.
        buffer_responses: Most bytes of one response in a temporary file; then the thread waits for the client.
        max_body: Most bytes of request content: 413; None for no limit of the delegate's own.
        timeout: Seconds for the application's answer; then 504, or the connection ends if the answer has begun. None
            for no limit.
        root_path: Where the application is mounted (``SCRIPT_NAME``); percent-decoded, without a slash at the end.
        outer_path: The part of *root_path* that a proxy removes from the paths it passes on; None for all of it. Paths
            that begin with *root_path* are accepted as well.
        multiprocess: Whether other processes run the same application (``wsgi.multiprocess``).

    Attributes:
        pool: The threads.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        threads: int = 8,
        threads_min: int = 1,
        threads_idle: float = 30.0,
        queue: int = 1024,
        queue_timeout: float = 30.0,
        threads_slow: int | Literal["auto"] | None = "auto",
        buffer_requests: int | None = 65536,
        buffer_responses: int = 64 << 20,
        max_body: int | None = None,
        timeout: float | None = None,
        root_path: str = "",
        outer_path: str | None = None,
        multiprocess: bool = False,
    ) -> None:
        self.app = app
        self.app_name = _name_of(app)
        self.queue_timeout = queue_timeout
        self.threads_slow = threads // 2 if threads_slow == "auto" else threads_slow
        self.buffer_requests = buffer_requests
        self.response_file = buffer_responses
        self.max_body = max_body
        self.timeout = timeout
        self.root_path = root_path
        self.outer_path = root_path if outer_path is None else outer_path
        self.multiprocess = multiprocess
        self.pool = ThreadPool(
            threads, minimum=threads_min, idle_timeout=threads_idle, queue_limit=queue, on_jobs=self._check_times
        )
        self.context = contextvars.copy_context()
        self._application: Application | None = None  # made when the loop is known
        self._file_threads = FileThreads()
        self._stopping = 0.0  # when a stop was asked for, by the loop's clock
        self._templates: dict[tuple[str, Any], dict[str, Any]] = {}
        self._lanes: dict[Connection, Lane] = {}  # of connections that have many requests at once
        self._shares: Lanes | None = None  # made with the first of these
        self._shown = False
        # What the clients of stored responses had read, and since when: see _end_unread().
        self._unread: dict[ResponseBuffer, tuple[tuple[int, int], float]] = {}

    def observe(self, on_websocket: Callable[[Any], None]) -> None:
        """Note the environ of each request in the ``times`` of its exchange, for observers; before the first request.

        Args:
            on_websocket: Not used: an application that has taken a connection speaks to its client itself.
        """
        self._shown = True

    @property
    def collects(self) -> bool:
        """The application is called when a request's content is complete."""
        return self.buffer_requests is not None

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Take a request; a thread answers it when its content is complete."""
        application = self._application
        if application is None:
            application = self._start(exchange)
        environs = exchange.templates.get(self)
        if environs is None:
            environs = self._environs_for(exchange)
            exchange.keep_template(self, environs)
        request = _open_request(application, exchange, environs)
        length = exchange.head.content_length
        return request if length == 0 else self._receive(application, request, length)

    def _receive(self, application: Application, request: WSGIExchange, length: int | None) -> ExchangeDelegate:
        """Return what receives the content: all of it first, or for a thread that starts now."""
        exchange = request.exchange
        limit = self.max_body
        if limit is not None and length is not None and length > limit:
            exchange.fail(413)
            return request
        if self.buffer_requests is None:
            stream = request.content = StreamedContent(exchange, application.post)
            request.finish()
            return StreamReceiver(request, stream, limit)
        content = request.content = ReceivedContent()
        if exchange.head.expect_continue:
            exchange.send_continue()
        return ContentReceiver(request, content, self.buffer_requests, limit, self._file_threads, application.loop)

    def on_close(self, connection: Connection) -> None:
        """Forget a connection; its exchanges were told."""
        self._lanes.pop(connection, None)

    def _check_times(self) -> None:
        """Look for requests whose time is over, queued or in threads. Look again later while there are requests."""
        now = time.monotonic()
        timeout, pool = self.timeout, self.pool
        pool.forget_blocked_time(now)
        shortest = self.queue_timeout if timeout is None else min(self.queue_timeout, timeout)
        for job in pool.queue.copy():  # threads take jobs out of it meanwhile
            if not isinstance(job, WSGIExchange) or now - job.queued <= shortest:
                break
            if timeout is not None and now - job.queued > timeout:
                job.expire(None, timeout)
            elif job.withdraw():
                job.refuse()
        if pool.queue and self.threads_slow is not None:
            self._end_slow(self.threads_slow)
        busy = False
        for worker in pool.workers() if timeout is not None else ():
            running = worker.job
            if isinstance(running, WSGIExchange) and not worker.abandoned:
                busy = True
                if timeout is not None and now - running.queued > timeout:
                    running.expire(worker, timeout)
        if not busy and not pool.queue:
            pool.on_jobs = self._check_times
        else:
            asyncio.get_running_loop().call_later(min(max(shortest / 10, 0.01), 1.0), self._check_times)

    def _end_slow(self, most: int) -> None:
        """Cut off the clients that were waited for longest, since requests wait and too many threads wait for clients.

        Args:
            most: How many threads may wait.
        """
        pool = self.pool
        if pool.idle or pool.count < pool.maximum:
            self._unread = {}
            return
        slow = [worker for worker in pool.workers() if worker.waits and isinstance(worker.job, WSGIExchange)]
        if len(slow) > most:
            self._end_unread(slow)
        slow.sort(key=lambda worker: worker.waited)
        for worker in slow[most:]:
            job = worker.job
            if worker.waited < _SLOW_CLIENT or not isinstance(job, WSGIExchange):
                continue
            gen_log.warning(
                "%d threads wait for slow clients, %d requests for a thread (--threads-slow): ended %s after %.0f s",
                *(len(slow), len(pool.queue), job.describe(), worker.waited),
            )
            if job.exchange.times is not None:
                job.exchange.times.refused = "budget"
            job.exchange.fail(408)

    def _end_unread(self, slow: list[Worker]) -> None:
        """Cut off the clients of stored responses that read nothing, so that threads can store theirs and be free.

        That includes responses of which a part is stored. If none of them ended, all could wait for one another's room
        on the disk.

        Args:
            slow: The threads that wait for clients.
        """
        now = time.monotonic()
        waiting = len(self.pool.queue)
        before, self._unread = self._unread, {}
        ended = 0
        for buffer in () if self._application is None else tuple(self._application.stored):
            exchange = buffer.exchange
            seen = (exchange.content_sent, exchange.writer.unread)
            last, since = before.get(buffer, (seen, now))
            # A client for which nothing waits has read everything. It waits for the loop, which may have been blocked.
            if seen != last or not exchange.writer.unread:
                since = now
            if now - since < _UNREAD:
                self._unread[buffer] = (seen, since)
            else:
                ended += 1
                if exchange.times is not None:
                    exchange.times.refused = "budget"
                exchange.fail(408)
        if ended:
            gen_log.warning(
                "%d threads wait for slow clients, %d requests for a thread (--threads-slow): ended %d whose clients"
                " have read nothing of a stored response",
                *(len(slow), waiting, ended),
            )
            for worker in slow:
                worker.notify()

    def stop(self, websockets: float | None = None) -> None:
        """Take notice that the server is about to stop; requests go on.

        The stop waits only a moment for requests whose client has left. A client that sends nothing more has left, or
        still reads. Only sending to it shows which, as for ASGI.

        Args:
            websockets: Seconds until the connections that the application has taken (``werkzeug.socket``) are ended:
                first what the application receives, and after two seconds the rest. None to leave them.
        """
        loop = asyncio.get_running_loop()
        self._stopping = loop.time()
        self._end_for_nobody(loop, {})
        if websockets is not None:
            loop.call_later(websockets, self._end_detached, socket.SHUT_RD)
            loop.call_later(websockets + _FAREWELL, self._end_detached, socket.SHUT_RDWR)

    def _end_for_nobody(self, loop: asyncio.AbstractEventLoop, before: dict[WSGIExchange, int]) -> None:
        jobs = [worker.job for worker in self.pool.workers()]
        left = [job for job in jobs if isinstance(job, WSGIExchange) and job.client_left and not job.exchange.finished]
        for job in left:
            if before.get(job) == job.exchange.content_sent:
                job.exchange.fail()
        if jobs:
            sent = {job: job.exchange.content_sent for job in left}
            loop.call_later(_GONE_TIME, self._end_for_nobody, loop, sent)

    def _end_detached(self, how: int) -> None:
        for sock in () if self._application is None else tuple(self._application.detached):
            with suppress(OSError):  # it was closed
                sock.shutdown(how)  # the application sees an end, and can still send a farewell after SHUT_RD

    async def close(self, timeout: float | None = None) -> int:
        """End the threads, after they have answered the requests that there are.

        Call this when no more requests come: after the server's ``drain``. Threads whose clients have all left get
        three seconds, as ASGI applications do: no client reads what they answer.

        Args:
            timeout: Seconds to wait for the threads; None for no limit.

        Returns:
            How many threads are still busy. They do not keep the interpreter from exiting.
        """
        self._end_detached(socket.SHUT_RD)
        detached = self._application is not None and bool(self._application.detached)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed: close() does not wait any more
                loop.call_soon_threadsafe(ended.set)

        self.pool.stop(wake)
        now = loop.time()
        end = float("inf") if timeout is None else now + timeout
        enough = max((self._stopping or now) + _GONE_TIME, now + (_FAREWELL if detached else 0.0))
        enough = min(end, enough)
        while self.pool.alive and now < end and not (now >= enough and self._serves_nobody()):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(end, max(enough, now + _LOOK))):
                    await ended.wait()
            ended.clear()
            now = loop.time()
        for worker in self.pool.workers() if self.pool.alive else ():
            if worker.job is None:
                continue  # it has just become free, and will end
            app_log.warning("%s does not end; it is here:\n%s", worker.name, worker.stack())
        self._file_threads.stop()
        return self.pool.count

    def _serves_nobody(self) -> bool:
        """Tell whether all requests that are still in the threads have lost their client."""
        jobs = [worker.job for worker in self.pool.workers()]
        return not self.pool.queue and all(isinstance(job, WSGIExchange) and job.response.gone for job in jobs if job)

    async def wait(self, timeout: float | None) -> int:
        """Do the same as :meth:`close`, by the name that all adapters have."""
        return await self.close(timeout)

    def _start(self, exchange: Exchange) -> Application:
        """Connect the application with the event loop that runs, at the first request."""
        self._application = application = Application(
            self.app,
            name=self.app_name,
            context=self.context,
            pool=self.pool,
            file_threads=self._file_threads,
            loop=exchange.loop,
            post=LoopCalls(exchange.loop, exchange.clock).post,
            queue_timeout=self.queue_timeout,
            timeout=self.timeout,
            response_file=self.response_file,
            shows_environ=self._shown,
        )
        return application

    def _environs_for(self, exchange: Exchange) -> EnvironTemplate:
        """Return the template of the environs of a connection's requests."""
        context = exchange.connection_context
        local = context.local_address
        key = (context.protocol, local)
        base = self._templates.get(key)
        if base is None:
            if len(self._templates) >= _TEMPLATES_MAX:  # a PROXY header can name any address
                self._templates.clear()
            base = self._templates[key] = environ_template(
                context,
                root_path=self.root_path,
                multithread=self.pool.maximum > 1,
                multiprocess=self.multiprocess,
                extra={"wsgi.file_wrapper": FileWrapper, "wsgi.early_hints": None, "bridge.deadline": None},
            )
        exchange.lower_high_water(_HIGH_WATER)
        tls = exchange.tls
        if tls is not None:
            base = base | ssl_variables(tls)
        lane = None
        if exchange.head.line.version == b"2":
            lane = self._lanes.get(exchange.connection)
            if lane is None:
                if self._shares is None:
                    self._shares = Lanes(self.pool, exchange.loop)
                lane = self._lanes[exchange.connection] = Lane(self._shares)
        return EnvironTemplate(base, context, self.outer_path, lane)


def _name_of(app: object) -> str:
    named = app if hasattr(app, "__qualname__") else type(app)
    return f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', '?')}"
