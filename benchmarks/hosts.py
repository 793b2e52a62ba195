"""Three hosts behind HAProxy, as network namespaces: one is killed, one is drained, all are deployed anew, under load.

``python -m benchmarks.hosts`` (as root) makes a namespace for each host and one for HAProxy and Redis, joined by veth
pairs. Each host runs two workers. HAProxy has the configuration of examples/haproxy, with these hosts. Clients ask
for pages, send uploads, count up sessions that are kept in Redis, and talk in a room of Channels (its layer in Redis),
whose members are on all hosts. Then, one after the other:

* a host is killed as by a loss of power: its network goes silent, and its processes are gone without a word;
* it comes back;
* a host is drained with ``bridge drain --wait``, and taken back with ``bridge undrain``;
* all hosts are deployed anew, one after the other: ``bridge drain --wait``, ``bridge stop --wait``, a new start.

Nothing may fail that HAProxy can ask again: a GET. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import WebSocketException

from benchmarks.machine import process_tree
from benchmarks.process import environment
from benchmarks.proxies import Missing, Runtime, haproxy, program, running
from benchmarks.steady import Load, Mix, answer, connect, loaded
from tests.support import ROOT

HOSTS = ("one", "two", "three")
EXAMPLE = ROOT / "examples" / "haproxy" / "haproxy.cfg"
DRAIN = "3s"
SAID = 1.0  # seconds between two messages of a member
PATIENCE = 60.0  # seconds for a step


class NotAllowed(Exception):
    """This process may not make network namespaces; the text says why."""


def ip(*words: str) -> None:
    """Run ``ip``.

    Raises:
        NotAllowed: it fails.
    """
    done = subprocess.run([program("ip"), *words], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise NotAllowed(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """A namespace for each host, and one for the balancer, which all hosts reach: 10.77.N.1 there, 10.77.N.2 here."""

    def __init__(self, stack: ExitStack) -> None:
        self.mark = f"b{os.getpid() % 100_000}"
        for name in ("front", *HOSTS):
            ip("netns", "add", self.space(name))
            stack.callback(subprocess.run, [program("ip"), "netns", "del", self.space(name)], check=False)
            ip("-n", self.space(name), "link", "set", "lo", "up")
        for number, name in enumerate(HOSTS):
            ip("link", "add", f"{self.mark}-{number}", "netns", self.space("front"), "type", "veth",
               "peer", "name", "eth0", "netns", self.space(name))  # fmt: skip
            ip("-n", self.space("front"), "addr", "add", f"10.77.{number}.1/24", "dev", f"{self.mark}-{number}")
            ip("-n", self.space("front"), "link", "set", f"{self.mark}-{number}", "up")
            self.plug(name, "add")
            ip("-n", self.space(name), "link", "set", "eth0", "up")

    def space(self, name: str) -> str:
        return f"{self.mark}-{name}"

    def inside(self, name: str) -> list[str]:
        """Return the words that run a command in a namespace."""
        return [program("ip"), "netns", "exec", self.space(name)]

    def plug(self, name: str, state: str) -> None:
        """Let a host answer or not ("add" or "del"): without its address it is silent, and the link stays up.

        With the link down, what HAProxy's side sends is dropped there, and the system does not count it as sent.
        """
        ip("-n", self.space(name), "addr", state, f"10.77.{HOSTS.index(name)}.2/24", "dev", "eth0")


class Host:
    """A machine with a server."""

    def __init__(self, network: Network, name: str, directory: Path) -> None:
        self.network, self.name, self.number = network, name, HOSTS.index(name)
        self.log = directory / f"{name}.log"
        self.control = directory / f"{name}.ctl"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        front = f"10.77.{self.number}.1"
        options = [
            "--workers", "2", "--bind", ":8000", "--admin-bind", f"10.77.{self.number}.2:9000", "--no-access-log",
            "--drain-delay", DRAIN, "--forwarded-allow-ips", front, "--control-socket", str(self.control),
        ]  # fmt: skip
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.network.inside(self.name), sys.executable, "-m", "bridge", "run", "benchmarks.apps.shared:app",
                 *options],
                cwd=ROOT,
                env=environment({"CHAT_REDIS": f"redis://{front}:6379"}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def lose_power(self) -> None:
        """Go silent, and end."""
        self.network.plug(self.name, "del")
        self.kill()

    def kill(self) -> None:
        if self.process is None:
            return
        for stat in process_tree(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(stat.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        self.control.unlink(missing_ok=True)

    async def command(self, *words: str) -> None:
        """Run a command of bridge for this host's server.

        Raises:
            RuntimeError: it fails.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bridge", *words, "--socket", str(self.control),
            cwd=ROOT, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said = (await asyncio.wait_for(process.communicate(), PATIENCE))[0]
        if process.returncode:
            raise RuntimeError(f"bridge {' '.join(words)} on {self.name}: {said.decode()}")


@dataclass
class Room:
    """What the members of the room have seen."""

    sent: int = 0
    received: int = 0
    missed: int = 0  # messages that were sent while a member was there, and never came
    joined: int = 0
    closes: dict[str, int] = field(default_factory=dict)


async def listen(peer: ClientConnection, room: Room) -> None:
    """Take what the members say, and count the numbers that do not come."""
    seen: dict[str, int] = {}
    async for text in peer:
        who, what = json.loads(text)["text"].split()
        if who in seen:
            room.missed += int(what) - seen[who] - 1
        seen[who] = int(what)
        room.received += 1


async def member(place: str, number: int, room: Room, stop: asyncio.Event) -> None:
    """Say a number each second, and look that the numbers of all members come without a gap."""
    said = 0
    while not stop.is_set():
        try:
            async with unix_connect(
                place, "ws://hosts/room/all", open_timeout=10, close_timeout=5, ping_interval=2, ping_timeout=6
            ) as peer:
                room.joined += 1
                listener = asyncio.create_task(listen(peer, room))
                try:
                    while not stop.is_set() and not listener.done():
                        said += 1
                        # A new name after each time of joining: what is lost with a connection is no gap.
                        await peer.send(json.dumps({"text": f"{number}/{room.joined} {said}"}))
                        room.sent += 1
                        await asyncio.sleep(SAID)
                    await asyncio.sleep(1.0 if stop.is_set() else 0)
                finally:
                    listener.cancel()
                    with contextlib.suppress(asyncio.CancelledError, WebSocketException):
                        await listener
                if not stop.is_set():
                    words = str(peer.close_code)
                    room.closes[words] = room.closes.get(words, 0) + 1
        except (OSError, WebSocketException, TimeoutError) as exc:
            words = type(exc).__name__
            if isinstance(exc, WebSocketException) and getattr(exc, "rcvd", None):
                words = str(exc.rcvd.code)
            room.closes[words] = room.closes.get(words, 0) + 1
            await asyncio.sleep(0.1)


@dataclass
class Sessions:
    """What the owners of sessions have seen."""

    asked: int = 0
    failed_posts: int = 0
    failed_gets: int = 0
    forgotten: int = 0  # a count that was less than one that had been said before


async def session(place: str, number: int, sessions: Sessions, stop: asyncio.Event) -> None:
    """Count up with POST and read with GET, each on a connection of its own, so on any host."""
    known = 0
    while not stop.is_set():
        for method in ("POST", "GET"):
            writer = None
            sessions.asked += 1
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await connect(place)
                    length = "Content-Length: 0\r\n" if method == "POST" else ""
                    writer.write(f"{method} /session/{number} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode())
                    status, _, content = await answer(reader)
                if status != 200:
                    raise ConnectionError(str(status))
                sessions.forgotten += int(content) < known + (method == "POST")
                known = int(content)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                if method == "POST":
                    sessions.failed_posts += 1
                else:
                    sessions.failed_gets += 1
            finally:
                if writer is not None:
                    writer.close()
            await asyncio.sleep(0.1)


@dataclass
class Step:
    """What happened in one part."""

    name: str
    requests: int
    failed_gets: int
    failed_posts: int
    longest: float  # seconds
    took: float  # seconds
    missed: int  # messages of the room


@dataclass
class Outcome:
    """All of it."""

    steps: list[Step] = field(default_factory=list)
    room: Room = field(default_factory=Room)
    sessions: Sessions = field(default_factory=Sessions)
    reasons: str = "-"

    def failed_gets(self) -> int:
        return sum(step.failed_gets for step in self.steps) + self.sessions.failed_gets


def configuration(directory: Path, network: Network) -> str:
    """Return the example's configuration with these hosts."""
    text = EXAMPLE.read_text(encoding="utf-8")
    text = re.sub(r"^ +bind .*$", f"    bind unix@{directory}/front.sock", text, flags=re.MULTILINE)
    options = re.findall(r"^ +server \S+ \S+(.*)$", text, flags=re.MULTILINE)[0]
    text = re.sub(r"^ +server .*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^global\n +maxconn .*$", "    maxconn 4000", text, count=1, flags=re.MULTILINE)
    return (
        text.rstrip() + "".join(f"\n    server {name} 10.77.{n}.2:8000{options}" for n, name in enumerate(HOSTS)) + "\n"
    )


async def until(runtime: Runtime, name: str, *states: str) -> None:
    """Wait until HAProxy sees a host in one of *states*."""
    async with asyncio.timeout(PATIENCE):
        while runtime.states()[name] not in states:
            await asyncio.sleep(0.1)


class Play:
    """The parts, each under the same load."""

    def __init__(self, hosts: dict[str, Host], runtime: Runtime, load: Load, outcome: Outcome, rest: float) -> None:
        self.hosts, self.runtime, self.load, self.outcome, self.rest = hosts, runtime, load, outcome, rest

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        requests, failures, began = self.load.total, len(self.load.failures), time.monotonic()
        missed = self.outcome.room.missed
        self.load.longest = 0.0
        yield
        new = self.load.failures[failures:]
        gets = sum(failure.method == "GET" for failure in new)
        self.outcome.steps.append(
            Step(
                name,
                self.load.total - requests,
                gets,
                len(new) - gets,
                self.load.longest,
                time.monotonic() - began,
                self.outcome.room.missed - missed,
            )
        )

    async def run(self) -> None:
        one, two = self.hosts["one"], self.hosts["two"]
        with self.step("nothing happens"):
            await asyncio.sleep(self.rest)
        with self.step("a host loses its power"):
            one.lose_power()
            await until(self.runtime, "one", "DOWN")
            await asyncio.sleep(max(self.rest, 8.0))  # until the last request that was there has been asked elsewhere
        with self.step("it comes back"):
            one.network.plug("one", "add")
            one.start()
            await until(self.runtime, "one", "UP")
            await asyncio.sleep(self.rest)
        with self.step("a host is drained"):
            await two.command("drain", "--wait")
            await until(self.runtime, "two", "DOWN")
            await asyncio.sleep(self.rest)
        with self.step("it is taken back"):
            await two.command("undrain")
            await until(self.runtime, "two", "UP")
            await asyncio.sleep(self.rest)
        with self.step("all hosts are deployed anew"):
            for name, host in self.hosts.items():
                await host.command("drain", "--wait")
                await until(self.runtime, name, "DOWN")
                await host.command("stop", "--wait")
                host.kill()
                host.start()
                await until(self.runtime, name, "UP")
            await asyncio.sleep(self.rest)


async def play(rest: float = 3.0) -> Outcome:
    """Make the network, and run all parts, with *rest* seconds after each change.

    Raises:
        Missing: a program is not installed.
        NotAllowed: namespaces cannot be made.
    """
    for name in ("ip", "haproxy", "redis-server"):
        program(name)
    outcome = Outcome()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hosts-")))
        network = Network(stack)
        redis = [program("redis-server"), "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "",
                 "--unixsocket", f"{directory}/redis.sock", "--dir", str(directory)]  # fmt: skip
        stack.enter_context(
            running([*network.inside("front"), *redis], directory / "redis.log", directory / "redis.sock")
        )
        hosts = {name: Host(network, name, directory) for name in HOSTS}
        for host in hosts.values():
            host.start()
            stack.callback(host.kill)
        runtime = stack.enter_context(haproxy(directory, configuration(directory, network), network.inside("front")))
        try:
            for name in HOSTS:
                await until(runtime, name, "UP")
        except TimeoutError:
            raise RuntimeError("".join(host.log.read_text(errors="replace") for host in hosts.values())) from None
        place, stop = f"{directory}/front.sock", asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for number in range(6):
                tasks.create_task(member(place, number, outcome.room, stop))
                tasks.create_task(session(place, random.randrange(10**9), outcome.sessions, stop))
            try:
                async with loaded(place, Mix(kept=8, fresh=4)) as load:
                    await Play(hosts, runtime, load, outcome, rest).run()
            finally:
                stop.set()
        outcome.reasons = load.reasons()
    return outcome


def report(outcome: Outcome) -> str:
    """Return the tables."""
    lines = [
        "| what happens | seconds | requests | GET failed | POST failed | longest answer | messages missed |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {step.name} | {step.took:.0f} | {step.requests:,} | {step.failed_gets} | {step.failed_posts} |"
        f" {step.longest:.1f} s | {step.missed} |"
        for step in outcome.steps
    ]
    room, sessions = outcome.room, outcome.sessions
    closes = ", ".join(f"{number} with {words}" for words, number in room.closes.items()) or "none"
    lines += [
        "",
        f"Failures: {outcome.reasons}.",
        f"Sessions: {sessions.asked:,} requests, {sessions.failed_gets} GET and {sessions.failed_posts} POST failed,"
        f" {sessions.forgotten} counts forgotten.",
        f"Room: {room.sent:,} messages sent, {room.received:,} received, {room.missed} missed by members that were"
        f" there; {room.joined} times joined; closes: {closes}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rest", type=float, default=10.0, help="seconds after each change [10]")
    args = parser.parse_args()
    try:
        outcome = asyncio.run(play(args.rest))
    except (Missing, NotAllowed) as exc:
        sys.exit(f"cannot be run here: {exc}")
    print(report(outcome))
    sys.exit(1 if outcome.failed_gets() or outcome.sessions.forgotten else 0)


if __name__ == "__main__":
    main()
