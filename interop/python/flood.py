"""Clients that show no credentials and mean no good, and a client who is to notice nothing of them."""

import asyncio
import itertools
import json
import multiprocessing
import os
import resource
import socket
import struct
import threading
import time
from pathlib import Path

import httpx
from server import PATIENCE, Server
from websockets.sync.client import connect

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# The addresses that they come from: all of 127.0.0.0/8 is this host.
SOURCES = [f"127.0.0.{last}" for last in range(2, 10)]


def h2(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


SETTINGS, PING, HEADERS, RST_STREAM, DATA = 4, 6, 1, 3, 0
# `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a` (RFC 7541, appendix A).
GET_ROOT = b"\x82\x86\x84\x41\x01a"
H2_START = PREFACE + h2(SETTINGS)

CONNECTIONS = int(os.environ.get("SPLENGINE_TEST_CONNECTIONS", "10000"))
MAX_WAIT = 0.1
MAX_MEMORY = 256 << 20


def field(name: int, value: str) -> bytes:
    """A header field whose name is in HPACK's static table (RFC 7541, section 6.2.2)."""
    index = bytes([name]) if name < 15 else bytes([15, name - 15])
    return index + bytes([len(value)]) + value.encode()


def head(token: str, path: str = "/api/v1/executions", post: bool = False) -> bytes:
    """The fields of a request that shows this token."""
    fields = b"\x83" if post else b"\x82"
    fields += b"\x86" + field(4, path) + field(1, "a") + field(23, f"Bearer {token}")
    return fields + (field(31, "application/json") if post else b"")


# What each kind of connection sends at its start, and then again and again.
HELD = {
    "says nothing": (b"", b""),
    "half a request": (b"GET /health HTTP/1.1\r\nHost: a\r\nX: ", b"y"),
    "slow body": (b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                  b"Content-Length: 2000\r\n\r\n{", b" "),
    "slow body of a command": (b"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                               b"Content-Length: 2000\r\n\r\n{", b" "),
    "endless body": (b"POST /logout HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                     b"400\r\n" + b" " * 1024 + b"\r\n"),
    "pings of HTTP/2": (H2_START, h2(PING, payload=b"8 bytes!")),
    "half a ClientHello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0"),
    "a frame of Netty's in the making": (struct.pack(">III", 1, 1, 200_000), b"\0" * 1024),
    "an SSH client's first line": (b"SSH-2.0-slow\r\n", b"\0"),
    "wrong frames": (b"\xff" * 64, b"\xff" * 64),
}


def held_by(token: str) -> dict[str, tuple[bytes, bytes]]:
    """The same of a caller who may run commands."""
    shown = f" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n".encode()
    known = b"GET /api/v1/executions" + shown + b"\r\n"
    command = b"POST /execute" + shown + b"Content-Type: application/json\r\n"
    started = H2_START + h2(HEADERS, 5, 1, head(token))
    return {
        "says nothing more": (known, b""),
        "half a request": (known + b"GET /health HTTP/1.1\r\nHost: a\r\nX: ", b"y"),
        "slow body": (command + b"Content-Length: 2000\r\n\r\n{", b" "),
        "large body": (command + b"Content-Length: 16000000\r\n\r\n{", b" " * 4096),
        "endless body": (command + b"Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b" " * 1024 + b"\r\n"),
        "slow body of a batch": (b"POST /api/v1/batches" + shown + b"Content-Type: application/json\r\n"
                                 b"Content-Length: 2000\r\n\r\n{", b" "),
        "slow message of Avro": (b"POST /avro" + shown + b"Content-Type: avro/binary\r\nContent-Length: 2000\r\n\r\n",
                                 b"\0"),
        "pings of HTTP/2": (started, h2(PING, payload=b"8 bytes!")),
        "slow body over HTTP/2": (started + h2(HEADERS, 4, 3, head(token, "/execute", post=True)),
                                  h2(DATA, 0, 3, b" ")),
    }


class Flood:
    """Many connections of these kinds, held by another process for some seconds or until the server closes them."""

    def __init__(self, targets: list[tuple[str, int]], held: dict[str, tuple[bytes, bytes]], count: int,
                 seconds: float):
        context = multiprocessing.get_context("spawn")
        self.told, tell = context.Pipe(duplex=False)
        self.process = context.Process(target=_hold_all, args=(targets, held, count, seconds, tell))

    def __enter__(self):
        self.process.start()
        return self

    def result(self) -> dict:
        assert self.told.poll(PATIENCE * 4), "the flood has no end"
        return self.told.recv()

    def __exit__(self, *_):
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _hold_all(targets, held, count, seconds, tell):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tell.send(asyncio.run(_hold_many(targets, held, count, seconds)))


async def _hold_many(targets, held, count, seconds) -> dict:
    seen = {"opened": 0, "refused": 0, "closed": 0}
    until = time.monotonic() + seconds
    at_once = asyncio.Semaphore(200)

    async def hold(number: int, kind: str, target: tuple[str, int]):
        first, again = held[kind]
        async with at_once:
            try:
                source = (SOURCES[number % len(SOURCES)], 0)
                reader, writer = await asyncio.open_connection(*target, local_addr=source)
            except OSError:
                seen["refused"] += 1
                return
        seen["opened"] += 1
        try:
            writer.write(first)
            while (left := until - time.monotonic()) > 0:
                try:
                    if not await asyncio.wait_for(reader.read(1 << 16), min(2, left)):
                        seen["closed"] += 1
                        return
                except TimeoutError:
                    writer.write(again)
        except OSError:
            seen["closed"] += 1
        finally:
            writer.transport.abort()

    kinds = itertools.cycle(itertools.product(held, targets))
    async with asyncio.TaskGroup() as group:
        for number, (kind, target) in zip(range(count), kinds):
            group.create_task(hold(number, kind, target))
            if number % 50 == 0:
                await asyncio.sleep(0)
    return seen


class Probe:
    """A legitimate client, who asks for the health, runs commands and types into a terminal all the
    while, and measures how long each takes."""

    def __init__(self, server: Server, token: str):
        self.server, self.token = server, token
        self.over = threading.Event()
        self.times: dict[str, list[float]] = {"health": [], "execute": [], "terminal": []}
        self.failures: list[BaseException] = []
        loops = [self._health, self._execute, self._terminal]
        self.threads = [threading.Thread(target=self._guarded, args=(loop,), daemon=True) for loop in loops]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE * 2)
        if kind is None:
            assert not any(thread.is_alive() for thread in self.threads), "the client hangs"
            assert not self.failures, self.failures

    def percentile(self, what: str, share: float) -> float:
        times = sorted(self.times[what])
        assert len(times) >= 100, f"only {len(times)} of {what}"
        return times[min(len(times) - 1, int(len(times) * share))]

    def _guarded(self, loop):
        try:
            loop()
        except BaseException as failure:
            self.failures.append(failure)

    def _measure(self, what: str, work, pause: float):
        while not self.over.is_set():
            begun = time.perf_counter()
            work()
            self.times[what].append(time.perf_counter() - begun)
            time.sleep(pause)

    def _health(self):
        # A new connection each time, as a load balancer's.
        host, port = self.server.address

        def health():
            with socket.create_connection((host, port), timeout=PATIENCE) as wire:
                wire.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := wire.recv(4096):
                    answer += piece
            assert answer.startswith(b"HTTP/1.1 200") and b"healthy" in answer, answer

        self._measure("health", health, 0.02)

    def _execute(self):
        with self.server.client(self.token) as client:
            def execute():
                answer = client.post("/execute", json={"command": "true"})
                assert answer.status_code == 200 and answer.json()["success"], answer.text

            self._measure("execute", execute, 0.02)

    def _terminal(self):
        headers = {"Authorization": f"Bearer {self.token}"}
        with connect(self.server.ws_url, additional_headers=headers, proxy=None, compression=None,
                     open_timeout=PATIENCE) as terminal:
            json.loads(terminal.recv(timeout=PATIENCE))
            # Echo alone answers, and what is typed is no command.
            terminal.send(json.dumps({"type": "input", "data": "exec cat\n"}))
            numbers = itertools.count(1)

            def echo():
                wanted, seen = f"<{next(numbers)}>", ""
                terminal.send(json.dumps({"type": "input", "data": wanted}))
                while wanted not in seen:
                    frame = json.loads(terminal.recv(timeout=PATIENCE))
                    seen += frame.get("data", "") if frame["type"] == "output" else ""

            self._measure("terminal", echo, 0.02)


def peak_memory(server: Server) -> int:
    """The most memory that the server has had, in bytes."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def rejected(answer: httpx.Response | bytes) -> bool:
    """Whether an answer, whole or as bytes, refuses for want of credentials."""
    if isinstance(answer, bytes):
        return answer.startswith(b"HTTP/1.1 401")
    return answer.status_code == 401


def address(server, name: str) -> tuple[str, int]:
    host, port = server.ready[name].rsplit(":", 1)
    return host, int(port)


def dial(server, name: str, source: str = "127.0.0.2") -> socket.socket:
    wire = socket.create_connection(address(server, name), timeout=PATIENCE, source_address=(source, 0))
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return wire


def closed_within(wire: socket.socket, seconds: float) -> bytes:
    """What comes until the server closes, which it has to in time."""
    until, data = time.monotonic() + seconds, b""
    while True:
        wire.settimeout(max(0.01, until - time.monotonic()))
        try:
            piece = wire.recv(1 << 16)
        except ConnectionError:
            return data
        except TimeoutError:
            raise AssertionError(f"still open after {seconds} s: {data[:200]!r}") from None
        if not piece:
            return data
        data = (data + piece)[-4096:]


def flood_http2(server, name: str, request: bytes):
    """Streams that are opened with this head and reset at once, pings and settings, for a second each."""
    def reset(number):
        stream = 2 * number + 3
        return h2(HEADERS, 5, stream, request) + h2(RST_STREAM, 0, stream, struct.pack(">I", 8))

    frames = [
        lambda number: h2(PING, payload=struct.pack(">Q", number)),
        lambda _: h2(SETTINGS),
        reset,
    ]
    for frame in frames:
        until, number = time.monotonic() + 1, 0
        with dial(server, name) as wire:
            wire.settimeout(0.2)
            try:
                # The first one is answered: who shows a token is known from then on.
                wire.sendall(H2_START + h2(HEADERS, 5, 1, request))
                while time.monotonic() < until:
                    wire.sendall(b"".join(frame(number + each) for each in range(100)))
                    number += 100
                    # Some of what is answered stays unread.
                    wire.recv(1 << 10)
            except (TimeoutError, ConnectionError):
                pass


def assert_unnoticed(server, probe: Probe):
    waits = {what: round(probe.percentile(what, 0.99), 4) for what in probe.times}
    assert max(waits.values()) < MAX_WAIT, waits
    assert_small(server)


def assert_small(server):
    assert peak_memory(server) < MAX_MEMORY, f"{peak_memory(server) >> 20} MiB"
