"""Start a server on one core and a load on another, and be sure that both end."""

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from benchmarks import http2, mixed
from benchmarks.answers import UPLOAD_SIZE
from benchmarks.machine import process_tree, tree_cpu, tree_memory
from benchmarks.servers import HOST, Target, command_of, commit_of, server_of
from tests.support import ROOT

START_LIMIT = 20.0  # seconds until a server must answer
STOP_LIMIT = 3.0  # seconds between SIGTERM and SIGKILL
PR_SET_PDEATHSIG = 1  # prctl(2)
# Settings of the caller that would change what is measured.
FOREIGN = ("BRIDGE_", "GRANIAN_", "UVICORN_", "GUNICORN_", "WEB_CONCURRENCY", "ASGI_THREADS", "PYTHON")


class BenchmarkError(Exception):
    """A server or a load did not do what the scenario asks; the text says what."""


def environment(more: dict[str, str]) -> dict[str, str]:
    """Return the environment of a child: the caller's, without settings of servers and of Python, and *more*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def child_setup(core: int | None, parent: int, mask: Iterable[int]) -> None:
    """Bind the child to *core* and to our life: it is killed when this process dies, however that happens."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def held_back() -> Iterator[set[int]]:
    """Hold SIGINT and SIGTERM back, so that no child is started and then forgotten; yields the mask before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def child(
    command: list[str],
    core: int | None,
    output: int | IO[bytes],
    errors: int | IO[bytes],
    patience: float = 0.0,
    more: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* in a session of its own, with *more* in its environment; at the end the tree is ended: end()."""
    process = None
    parent = os.getpid()
    try:
        with held_back() as mask:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(more or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it
                preexec_fn=lambda: child_setup(core, parent, mask),
            )
        yield process
    finally:
        if process is not None:
            end(process, patience)


def end(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a tree of processes: SIGTERM and *patience* seconds, SIGKILL for what is left, whatever its group."""
    family = [stat.pid for stat in process_tree(process.pid)]
    if patience and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for its connections; what follows ends it
            process.wait(patience)
    for pid in family[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # nobody left, as it should be
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


PATHS = [f"/articles/{number * 7919}?page={number % 9}" for number in range(500)]


def free_port() -> int:
    """Return a port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def paths() -> bytes:
    """Return 500 addresses for h2load, which takes the paths of them."""
    return b"".join(b"http://127.0.0.1%b\n" % path.encode() for path in PATHS)


CONTENTS = {"templates": mixed.file_text, "paths": paths, "upload": lambda: b"u" * UPLOAD_SIZE}


class Files:
    """What a run needs on the disk, in a temporary directory: each file is made when first asked for."""

    def __init__(self) -> None:
        self.directory: tempfile.TemporaryDirectory[str] | None = None

    def path(self, name: str) -> Path:
        if self.directory is None:
            self.directory = tempfile.TemporaryDirectory(prefix="bridge-benchmarks-")
        return Path(self.directory.name, name)

    def certificate(self) -> tuple[str, str]:
        """Return the paths of a certificate chain for the loopback address, and of its key (PKCS #8, for granian)."""
        chain, key = self.path("cert.pem"), self.path("key.pem")
        if not key.exists():
            import trustme
            from cryptography.hazmat.primitives import serialization

            issued = trustme.CA().issue_cert(HOST)
            chain.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
            private = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
            key.write_bytes(
                private.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
        return str(chain), str(key)

    def named(self, name: str) -> str:
        """Return the path of one of the files that a load generator reads: templates, paths or upload."""
        file = self.path(name)
        if not file.exists():
            file.write_bytes(CONTENTS[name]())
        return str(file)

    def checkout(self, commit: str) -> str:
        """Return the path of a folder with the package bridge as it was at *commit*, and nothing else.

        Raises:
            BenchmarkError: git has no such commit.
        """
        folder = self.path(f"at-{commit}")
        if not folder.exists():
            archive = subprocess.run(
                ["git", "archive", commit, "bridge"], cwd=ROOT, capture_output=True, timeout=60, check=False
            )
            if archive.returncode:
                raise BenchmarkError(f"git archive {commit}: {archive.stderr.decode().strip()}")
            folder.mkdir()
            subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, timeout=60, check=True)
        return str(folder)

    def remove(self) -> None:
        if self.directory is not None:
            self.directory.cleanup()
            self.directory = None


class ServerProcess:
    """A running server as a context manager; it and all its descendants are gone at the end.

    Args:
        name: One of SERVERS, perhaps with options ("bridge+--threads=4").
        target: What it serves.
        core: The core for all its threads and processes, None for any.
        files: Where a TLS scenario's certificate comes from.
        wrap: Words that take the place of "-m" in the command: what runs the server's module instead.
    """

    def __init__(self, name: str, target: Target, core: int | None, files: Files, wrap: Sequence[str] = ()) -> None:
        self.name = name
        self.target = target
        self.core = core
        self.files = files
        self.wrap = wrap
        self.port = 0
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        self.port = free_port()
        words = {"{port}": str(self.port)}
        if self.target.tls:
            words["{cert}"], words["{key}"] = self.files.certificate()
        command = command_of(self.name, self.target)
        for word, value in words.items():
            command = [argument.replace(word, value) for argument in command]
        if self.wrap:
            command[1:2] = self.wrap
        surroundings = dict(server_of(self.name).environment)
        commit = commit_of(self.name)
        if commit:
            surroundings["PYTHONPATH"] = os.pathsep.join([self.files.checkout(commit), str(ROOT)])
            command.insert(1, "-P")  # the working directory has a bridge too
        command[0] = sys.executable
        self.running = child(command, self.core, self.output, self.output, STOP_LIMIT, surroundings)
        self.process = self.running.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.running.__exit__(kind, exception, trace)
        finally:
            self.output.close()

    def cpu(self) -> float:
        """Return the processor seconds that the tree has used."""
        return tree_cpu(self.process.pid)

    def memory(self) -> int:
        """Return the tree's resident bytes."""
        return tree_memory(self.process.pid)

    def last_words(self) -> str:
        """Return the end of what the server printed, on one line."""
        size = self.output.seek(0, os.SEEK_END)
        self.output.seek(max(0, size - 2000))
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        self.output.seek(0, os.SEEK_END)
        return " / ".join(line.strip() for line in lines[-2:])[-300:]

    def check_alive(self) -> None:
        """Raise BenchmarkError when the server has ended by itself."""
        if self.process.poll() is not None:
            raise BenchmarkError(f"ended with code {self.process.returncode}: {self.last_words()}")

    def wait_until_connects(self, pause: float = 0.02) -> socket.socket:
        """Return a connection to the server as soon as it accepts one."""
        deadline = time.monotonic() + START_LIMIT
        while True:
            self.check_alive()
            try:
                return socket.create_connection((HOST, self.port), timeout=START_LIMIT)
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"no answer in {START_LIMIT:.0f} s: {self.last_words()}") from None
            time.sleep(pause)

    def check_answer(self, content: bytes, upload: bytes | None = None) -> None:
        """Ask once and raise BenchmarkError unless the answer is 200 with *content*."""
        self.wait_until_connects().close()
        if self.target.tls:
            connection = http.client.HTTPSConnection(HOST, self.port, timeout=START_LIMIT, context=trusting_context())
        else:
            connection = http.client.HTTPConnection(HOST, self.port, timeout=START_LIMIT)
        try:
            connection.request("GET" if upload is None else "POST", "/", body=upload)
            response = connection.getresponse()
            answered = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchmarkError(f"no right answer: {error!r}; {self.last_words()}") from error
        finally:
            connection.close()
        check(response.status, answered, content)

    def check_answers(self, content: bytes, requests: list[bytes]) -> None:
        """Send *requests* and raise BenchmarkError unless each answer is 200 with *content*.

        All go over one connection, or over more where the server ends them.
        """
        connection = None
        try:
            for number, request in enumerate(requests):
                try:
                    connection = connection or self.connected()
                    connection.sendall(request)
                    response = http.client.HTTPResponse(connection)
                    response.begin()
                    answered = response.read()
                except (OSError, http.client.HTTPException) as error:
                    raise BenchmarkError(f"request {number}: {error!r}; {self.last_words()}") from error
                check(response.status, answered, content)
                if response.will_close:
                    connection.close()
                    connection = None
        finally:
            if connection is not None:
                connection.close()

    def check_streams(self, content: bytes, requests: list[bytes]) -> None:
        """Send *requests* over HTTP/2, on streams 1, 3, ..., and raise BenchmarkError as check_answers does."""
        try:
            with self.connected() as connection:
                connection.sendall(http2.opening() + b"".join(requests))
                answers = http2.read_answers(connection, range(1, 2 * len(requests), 2))
        except OSError as error:
            raise BenchmarkError(f"no right answer: {error!r}; {self.last_words()}") from error
        for block, answered in answers.values():
            check(200 if http2.says_200(block) else 0, answered, content)

    def connected(self) -> socket.socket:
        """Return a connection, after the handshake where there is TLS."""
        connection = self.wait_until_connects()
        if not self.target.tls:
            return connection
        context = trusting_context()
        if self.target.http2:
            context.set_alpn_protocols(["h2"])
        return context.wrap_socket(connection)


def check(status: int, answered: bytes, content: bytes) -> None:
    """Raise BenchmarkError unless an answer is 200 with *content*."""
    if status != 200 or answered != content:
        raise BenchmarkError(f"status {status}, {len(answered)} bytes, for 200, {len(content)} bytes")


def trusting_context() -> ssl.SSLContext:
    """Return a client's context for TLS 1.3 that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def run_on_core(command: list[str], core: int | None, limit: float) -> str:
    """Run *command* on *core* and return its output; it is killed after *limit* seconds.

    Raises:
        BenchmarkError: it took too long or ended with an error.
    """
    with child(command, core, subprocess.PIPE, subprocess.PIPE) as process:
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"the load did not end in {limit:.0f} s") from None
    if process.returncode:
        raise BenchmarkError(f"the load ended with code {process.returncode}: {errors.decode().strip()[-300:]}")
    return output.decode()
