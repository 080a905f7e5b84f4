"""Whoever shows no credentials gets nothing, holds nothing for long, and nobody else notices."""

import socket
import struct

import pytest
from flood import (CONNECTIONS, GET_ROOT, HELD, Flood, Probe, address, assert_small, assert_unnoticed, closed_within,
                   dial, flood_http2)
from server import PATIENCE, TOKEN
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

MIB = 1 << 20


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A server with all that it has switched on."""
    from server import Server

    server = Server(tmp_path_factory.mktemp("unknown") / "server", ws=True, ssh=True, avro=True)
    yield server
    assert server.stop() == 0


def test_held_connections_are_noticed_by_nobody(target):
    targets = [address(target, name) for name in ("http", "ws", "ssh", "avro")]
    with Probe(target, TOKEN) as probe, Flood(targets, HELD, CONNECTIONS, 25) as flood:
        seen = flood.result()
    assert seen["opened"] + seen["refused"] == CONNECTIONS, seen
    assert_unnoticed(target, probe)


def test_floods_of_http2_are_noticed_by_nobody(target):
    with Probe(target, TOKEN) as probe:
        for name in ("http", "ws", "avro"):
            flood_http2(target, name, GET_ROOT)
    assert_unnoticed(target, probe)


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_a_slow_body_is_given_up(target, path):
    with dial(target, "ws") as wire:
        wire.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                     "Content-Length: 100\r\n\r\n{".encode())
        # 10 s for the body, and the rest for a busy machine.
        closed_within(wire, 10 + PATIENCE)


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_an_endless_body_is_refused_beyond_four_kibibytes(target, path):
    with dial(target, "ws") as wire:
        wire.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(2):
            wire.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
        # The end of it never comes.
        assert wire.recv(1 << 16).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("name", ["http", "ws"])
def test_a_large_body_is_refused_by_the_head_alone(target, name):
    """Of 16 MiB that are announced nothing is sent, and the answer is there."""
    with dial(target, name) as wire:
        wire.sendall(f"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {16 * MIB}\r\n\r\n".encode())
        assert wire.recv(1 << 16).startswith(b"HTTP/1.1 401")


def test_a_websocket_takes_little_before_a_ticket(target):
    origin = target.origin
    for _ in range(3):
        with connect(target.ws_url, origin=origin, proxy=None, compression=None,
                     open_timeout=PATIENCE) as terminal:
            with pytest.raises(ConnectionClosed) as closed:
                terminal.send("x" * MIB)
                while True:
                    terminal.recv(timeout=PATIENCE)
            assert closed.value.rcvd.code == 4413


@pytest.mark.parametrize("name,greeting", [
    ("http", b"\xff" * 64), ("ws", b"\xff" * 64), ("avro", b"\xff" * 64),
    ("ssh", b"GET / HTTP/1.1\r\n\r\n"),
    ("avro", struct.pack(">III", 1, 1, 0x7FFFFFFF)),
    ("ws", b"GET /terminal HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
           b"Origin: http://a\r\n\r\n" + b"\xff" * 64),
], ids=["http", "ws", "avro", "ssh", "avro-length", "websocket"])
def test_wrong_frames_close_their_connection_alone(target, name, greeting):
    with dial(target, name) as wire:
        try:
            wire.sendall(greeting)
            wire.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It is closed by now.
        closed_within(wire, PATIENCE * 2)
    with target.client() as client:
        assert client.get("/ready").status_code == 200


def test_guessing_is_slowed_down_and_counted(target):
    """From an address of its own, so that the others' tests are not shut out with it."""
    statuses = []
    for guess in range(40):
        with dial(target, "http", "127.0.0.77") as wire:
            wire.sendall(f"GET /api/v1/sessions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                         f"Authorization: Bearer not-the-token-{guess:06}\r\n\r\n".encode())
            try:
                answer = wire.recv(1 << 16)
            except ConnectionError:
                answer = b""
        statuses.append(answer[9:12])
    assert b"200" not in statuses
    # At some point it is not even looked at any more.
    assert statuses[0] == b"401" and (b"429" in statuses or b"" in statuses), statuses
    with target.client() as client:
        metrics = client.get("/metrics").text
        assert client.post("/execute", json={"command": "true"}).status_code == 200
    line = next(line for line in metrics.splitlines()
                if "authentication" in line and "fail" in line and not line.startswith("#"))
    assert float(line.rsplit(" ", 1)[1]) > 0
    assert "not-the-token" not in target.log.read_text()


def test_no_test_took_much_memory(target):
    """The last one: the most that the server has had is what it has had in all of them."""
    assert_small(target)
