"""The Avro RPC server: Python's own client over HTTP, and what other clients put on the wire, byte by
byte."""

import hashlib
import io
import json
import socket
import struct
import time

import avro.io
import avro.ipc
import avro.protocol
import fastavro
import httpx
import pytest

from server import TOKEN, Server, assert_problem, eventually

SEED = json.dumps({
    "protocol": "SPlectrumEngine",
    "namespace": "com.splectrum.rpc",
    "types": [
        {"name": "Command", "type": "record", "fields": [
            {"name": "command", "type": "string"},
            {"name": "args", "type": {"type": "array", "items": "string"}},
            {"name": "workdir", "type": ["null", "string"], "default": None},
            {"name": "sessionId", "type": ["null", "string"], "default": None},
        ]},
        {"name": "ExecutionResult", "type": "record", "fields": [
            {"name": "exitCode", "type": "int"},
            {"name": "stdout", "type": "string"},
            {"name": "stderr", "type": "string"},
            {"name": "duration", "type": "long"},
            {"name": "sessionId", "type": "string"},
        ]},
    ],
    "messages": {
        "execute": {"request": [{"name": "command", "type": "Command"}], "response": "ExecutionResult"},
    },
})
HASH = hashlib.md5(SEED.encode()).digest()
# As every client writes it: echo [hi], no workdir, no session.
ECHO_HI = bytes.fromhex("00 0e65786563757465 086563686f 02 046869 00 00 00")
HI = bytes.fromhex("00 00 00 0668690a 00")


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("avro") / "server", "--anonymous", "guest", avro=True, tokens=False)
    host, port = server.ready["avro"].rsplit(":", 1)
    server.avro = (host, int(port))
    yield server
    assert server.stop() == 0


@pytest.fixture
def wire(target):
    with socket.create_connection(target.avro, timeout=30) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield wire


def exactly(wire, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = wire.recv(count - len(data))
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def netty(serial: int, *buffers: bytes) -> bytes:
    frames = b"".join(struct.pack(">I", len(each)) + each for each in buffers)
    return struct.pack(">II", serial, len(buffers)) + frames


def read_netty(wire) -> tuple[int, bytes]:
    serial, count = struct.unpack(">II", exactly(wire, 8))
    assert count >= 1
    return serial, b"".join(exactly(wire, struct.unpack(">I", exactly(wire, 4))[0]) for _ in range(count))


def classic(*buffers: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(each)) + each for each in buffers) + bytes(4)


def read_classic(wire) -> bytes:
    message = b""
    while length := struct.unpack(">I", exactly(wire, 4))[0]:
        message += exactly(wire, length)
    return message


def text(value: bytes) -> bytes:
    length, out = len(value) << 1, b""
    while length >= 0x80:
        out += bytes([length & 0x7F | 0x80])
        length >>= 7
    return out + bytes([length]) + value


def handshake(server_hash: bytes, with_text: bool = False, meta: bytes = b"\0", protocol: str = SEED) -> bytes:
    own = hashlib.md5(protocol.encode()).digest()
    return own + (b"\x02" + text(protocol.encode()) if with_text else b"\0") + server_hash + meta


@pytest.fixture
def known(target) -> bytes:
    """The server's hash; and it knows the seed's protocol by now."""
    with socket.create_connection(target.avro, timeout=30) as wire:
        wire.sendall(classic(handshake(HASH, True)))
        answer = read_classic(wire)
    assert answer[:1] == b"\x02", "CLIENT: it is told the server's protocol"
    assert answer[-1:] == b"\0"
    return answer[-17:-1]


def requestor(target, protocol: str = SEED) -> avro.ipc.Requestor:
    return avro.ipc.Requestor(avro.protocol.parse(protocol), avro.ipc.HTTPTransceiver(*target.avro))


def command(words: str, *args: str) -> dict:
    return {"command": {"command": words, "args": list(args), "workdir": None, "sessionId": None}}


def served_text(target) -> str:
    return httpx.get(f"http://{target.ready['avro']}/avro/protocol", trust_env=False, timeout=60).text


def test_python_avro_over_http(target):
    result = requestor(target).request("execute", command("echo", "hi"))
    assert (result["exitCode"], result["stdout"], result["stderr"]) == (0, "hi\n", "")
    with pytest.raises(avro.errors.AvroRemoteException, match="UNKNOWN_COMMAND"):
        requestor(target).request("execute", command("no-such-program"))


def test_python_avro_with_the_whole_protocol(target):
    ask = requestor(target, served_text(target)).request
    info = ask("describe", {})
    assert info["service"] == "splengine"
    run = {
        "command": "sh -c", "args": ["printf '\\377'; exit 4"], "workdir": None, "sessionId": None,
        "env": {}, "stdin": None, "timeout": None, "outputLimit": None, "background": "kill", "limits": None,
        "idleTimeout": None, "mask": [], "shell": False,
    }
    result = ask("run", {"request": run})
    assert (result["stdout"], result["exitCode"], result["reason"]) == (b"\xff", 4, "exited")
    with pytest.raises(avro.errors.AvroRemoteException, match="NOT_FOUND"):
        ask("getBatch", {"batchId": "none"})
    # Python leaves `one-way` out of its text, so it waits for an answer, and gets one.
    assert ask("keepAlive", {"sessionId": "spl-none"}) is None


def test_the_protocols_hash_is_that_of_the_served_bytes(target, known):
    served = served_text(target)
    assert hashlib.md5(served.encode()).digest() == known
    messages = json.loads(served)["messages"]
    assert "errors" not in messages["execute"] and "errors" not in messages["executeBatch"]


def test_an_unknown_client_is_asked_for_its_text(wire, target):
    protocol = SEED.replace("SPlectrumEngine", f"Unknown{time.time_ns()}")
    guess = hashlib.md5(protocol.encode()).digest()
    wire.sendall(netty(0, handshake(guess, protocol=protocol), bytes(2)))
    serial, answer = read_netty(wire)
    assert (serial, answer[:2]) == (0, b"\x04\x02")
    served = served_text(target).encode()
    assert text(served) in answer and hashlib.md5(served).digest() in answer
    wire.sendall(netty(0, handshake(answer[-17:-1], True, protocol=protocol), bytes(2)))
    assert read_netty(wire) == (0, bytes.fromhex("00000000 00 00"))
    wire.sendall(netty(1, ECHO_HI))
    serial, answer = read_netty(wire)
    assert serial == 1 and answer.startswith(HI)


def test_javas_calls(wire, known):
    """Its handshake's metadata is an empty map; its serials count on after a handshake."""
    call = handshake(known, meta=b"\x02\0") + ECHO_HI[:9]
    wire.sendall(netty(0xFFFF0003, call, ECHO_HI[9:]))
    serial, answer = read_netty(wire)
    assert serial == 0xFFFF0003
    assert answer.startswith(bytes.fromhex("00000000") + HI)


def test_javas_calls_without_parameters(wire, target, known):
    """Their parameters are an empty buffer, of which its client over HTTP sends the length: what
    follows the end of the message is one more end."""
    call = handshake(known, True, b"\x02\0", served_text(target)) + b"\0" + text(b"describe")
    message = classic(call, b"")
    assert message.endswith(bytes(8))
    headers = {"Content-Type": "avro/binary"}
    for url in (f"http://{target.ready['avro']}/", f"http://{target.ready['http']}/avro"):
        answer = httpx.post(url, content=message, headers=headers, trust_env=False, timeout=60)
        assert answer.status_code == 200 and b"execution-engine" in answer.content
        for more in (classic(call), b"\0", b"\0\0\0\1"):
            assert httpx.post(url, content=message + more, headers=headers, trust_env=False, timeout=60).status_code == 400
    wire.sendall(message * 2)
    for _ in range(2):
        assert b"execution-engine" in read_classic(wire)


def test_sasl_is_answered_before_the_first_call(wire, known):
    wire.sendall(b"\0")
    wire.sendall(bytes.fromhex("00000009") + b"ANONYMOUS" + bytes.fromhex("00000004") + b"root")
    assert exactly(wire, 5) == bytes.fromhex("03 00000000")
    wire.sendall(classic(handshake(known) + ECHO_HI))
    assert read_classic(wire).startswith(bytes.fromhex("00000000") + HI)


def test_another_mechanism_of_sasl_is_refused(wire):
    wire.sendall(bytes.fromhex("00 00000005") + b"PLAIN" + bytes.fromhex("00000003") + b"abc")
    assert exactly(wire, 1) == b"\x02"
    length = struct.unpack(">I", exactly(wire, 4))[0]
    assert b"ANONYMOUS" in exactly(wire, length)
    assert wire.recv(1) == b""


@pytest.mark.parametrize("speech", ["netty", "classic", "sasl", "http"])
def test_bytes_may_dribble_in_one_at_a_time(wire, known, speech):
    message = handshake(known) + ECHO_HI
    data = {
        "netty": netty(7, message),
        # Any split is legal.
        "classic": classic(*(bytes([byte]) for byte in message)),
        "sasl": bytes.fromhex("00 00000009") + b"ANONYMOUS" + bytes(4) + classic(message),
        "http": b"POST /avro HTTP/1.1\r\nHost: x\r\nContent-Type: avro/binary\r\nContent-Length: %d\r\n\r\n"
                % len(classic(message)) + classic(message),
    }[speech]
    for byte in data:
        wire.sendall(bytes([byte]))
    match speech:
        case "netty":
            answer = read_netty(wire)[1]
        case "http":
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += exactly(wire, 1)
            assert b" 200 " in head and b"avro/binary" in head
            answer = read_classic(wire)
        case _:
            if speech == "sasl":
                exactly(wire, 5)
            answer = read_classic(wire)
    assert answer.startswith(bytes.fromhex("00000000") + HI)


def test_ruby_repeats_its_handshake(wire, known):
    for _ in range(3):
        wire.sendall(classic(handshake(known) + ECHO_HI))
        assert read_classic(wire).startswith(bytes.fromhex("00000000") + HI)


def test_the_specifications_framing_answers_in_order(wire, known):
    wire.sendall(classic(handshake(known)))
    assert read_classic(wire) == bytes(4)
    slow = b"\0" + text(b"execute") + text(b"sleep 0.3") + bytes(3)
    wire.sendall(classic(slow) + classic(ECHO_HI))
    first, second = read_classic(wire), read_classic(wire)
    assert not first.startswith(HI) and second.startswith(HI)


def test_a_slow_call_does_not_hold_up_a_fast_one(wire, known):
    wire.sendall(netty(0, handshake(known) + bytes(2)))
    read_netty(wire)
    wire.sendall(netty(1, b"\0" + text(b"execute") + text(b"sleep 60") + bytes(3)) + netty(2, ECHO_HI))
    assert read_netty(wire)[0] == 2


def test_a_one_way_call_is_answered_only_with_a_handshake(wire, target, known):
    protocol = served_text(target)
    call = b"\0" + text(b"keepAlive") + text(b"spl-guest-none")
    wire.sendall(netty(1, handshake(known, True, protocol=protocol) + call))
    assert read_netty(wire) == (1, bytes.fromhex("00000000 00 00"))
    ping = bytes(2)
    wire.sendall(netty(2, call) + netty(3, ping))
    assert read_netty(wire) == (3, bytes(2))


@pytest.mark.parametrize("call,problem", [
    (b"\0" + text(b"destroy"), b"destroy"),
    (b"\0" + text(b"execute") + text(b"echo")[:3], b"execute"),
    (b"\0" + text(b"execute") + b"\xfe\xff\xff\xff\x0f", b"execute"),
    (b"\0" + text(b"execute") + text(b"x") + b"\xfe\xff\xff\xff\x0f", b"execute"),
    (ECHO_HI + b"\0", b"execute"),
    (b"\xff\xff\xff\xff", b"metadata"),
])
def test_a_call_that_can_not_be_is_an_error_and_the_connection_lives(wire, known, call, problem):
    wire.sendall(netty(0, handshake(known) + bytes(2)))
    read_netty(wire)
    wire.sendall(netty(1, call))
    serial, answer = read_netty(wire)
    assert serial == 1
    # Metadata with the code, the flag, a string.
    assert b"spl-error-code" in answer and b"\x01\x00" in answer
    assert b"INVALID_REQUEST: " in answer and problem in answer
    wire.sendall(netty(2, ECHO_HI))
    assert read_netty(wire)[1].startswith(HI)


@pytest.mark.parametrize("garbage", [
    struct.pack(">III", 0, 1, 0xFFFFFFFF),
    struct.pack(">III", 0, 1, 1 << 30),
    struct.pack(">III", 1, 0, 5),
    b"\xff" * 64,
    b"SSH-2.0-OpenSSH_9.2\r\n",
    bytes(64),
    netty(0, bytes(20)),
])
def test_what_breaks_a_bound_is_closed(wire, garbage):
    wire.sendall(garbage)
    try:
        assert wire.recv(1) == b""
    except ConnectionResetError:
        pass


def test_too_large_a_message_over_http(target):
    with httpx.Client(base_url=f"http://{target.ready['avro']}", trust_env=False, timeout=60) as client:
        large = client.post("/avro", content=bytes(18 << 20), headers={"Content-Type": "avro/binary"})
        assert large.status_code == 413
        assert client.post("/avro", content=b"", headers={"Content-Type": "text/plain"}).status_code == 415
        assert client.post("/avro", content=b"", headers={"Content-Type": "avro/binary"}).status_code == 400
        assert client.get("/avro").status_code == 405
        assert client.get("/other").status_code == 404
        foreign = {"Content-Type": "avro/binary", "Origin": "http://evil.example"}
        assert client.post("/avro", content=b"", headers=foreign).status_code == 403


def test_metadata_is_echoed_and_errors_are_in_it(wire, known):
    wire.sendall(netty(0, handshake(known) + bytes(2)))
    read_netty(wire)
    metadata = b"\x04" + text(b"spl-request-id") + text(b"r-1") + text(b"id") + text(b"\xff\xff\xff\xfe") + b"\0"
    wire.sendall(netty(1, metadata + ECHO_HI[1:]))
    schema = {"type": "map", "values": "bytes"}
    answer = io.BytesIO(read_netty(wire)[1])
    echoed = fastavro.schemaless_reader(answer, schema)
    assert echoed == {"spl-request-id": b"r-1", "id": b"\0\0\0\2"}


def test_a_wrong_token_and_a_late_call(tmp_path, start):
    server = start(avro=True)
    url = f"http://{server.ready['avro']}/avro"
    protocol = httpx.get(f"{url}/protocol", trust_env=False, timeout=60).text
    own = hashlib.md5(protocol.encode()).digest()

    def call(metadata: bytes, status: int = 200, **headers: str) -> bytes:
        body = classic(handshake(own, protocol=protocol) + metadata + ECHO_HI[1:])
        headers = {"Content-Type": "avro/binary", **headers}
        response = httpx.post(url, content=body, headers=headers, trust_env=False, timeout=60)
        assert response.status_code == status
        return response.content

    assert b"UNAUTHENTICATED" in call(b"\0")
    # What the head shows is looked at before the body.
    call(b"\0", status=401, Authorization="Bearer wrong-token-of-some-length")
    assert HI[1:] in call(b"\0", Authorization=f"Bearer {TOKEN}")
    given = b"\x02" + text(b"spl-authorization") + text(f"Bearer {TOKEN}".encode()) + b"\0"
    assert HI[1:] in call(given)
    wrong = b"\x02" + text(b"spl-authorization") + text(b"Bearer wrong-token-of-some-length") + b"\0"
    assert b"UNAUTHENTICATED" in call(wrong, Authorization=f"Bearer {TOKEN}"), "what the call shows counts"
    for late in (b"0", b"soon"):
        metadata = b"\x02" + text(b"spl-deadline-ms") + text(late) + b"\0"
        answer = call(metadata, Authorization=f"Bearer {TOKEN}")
        assert (b"DEADLINE_EXCEEDED" if late == b"0" else b"INVALID_REQUEST") in answer


def test_results_of_a_batch_are_a_container_file(server, client):
    steps = [
        {"id": "bytes", "command": "printf", "args": ["one \\377"]},
        {"id": "long", "command": "head -c 1000000 /dev/zero"},
        {"id": "bad", "command": "sh -c 'echo 0123456789; echo no >&2; exit 3'", "outputLimit": 4},
        {"id": "never", "command": "true"},
    ]
    accept = {"Accept": "application/avro"}
    waited = client.post("/api/v1/batches", params={"wait": "true"}, json={"steps": steps}, headers=accept)
    name = waited.headers["content-disposition"].split('"')[1]
    batch = name.removesuffix(".avro")
    assert batch != name
    again = client.get(f"/api/v1/batches/{batch}/results", headers=accept)
    whole = client.get(f"/api/v1/batches/{batch}/results").json()
    for response in (waited, again):
        assert (response.status_code, response.headers["content-type"]) == (200, "application/avro")
        reader = fastavro.reader(io.BytesIO(response.content))
        assert reader.writer_schema["name"] == "com.splectrum.rpc.StepResult"
        assert reader.codec == "deflate"
        rows = list(reader)
        assert {row["batchId"] for row in rows} == {batch}
        for row, step in zip(rows, whole["steps"], strict=True):
            same = ("id", "command", "dependsOn", "state", "attempt", "exitCode", "signal", "duration",
                    "stdoutBytes", "stderrBytes", "stdoutTruncated", "stderrTruncated")
            assert {key: row[key] for key in same} == {key: step[key] for key in same}
        assert rows[0]["stdout"] == b"one \xff" and rows[1]["stdout"] == bytes(1000000)
        assert rows[0]["started"].timestamp() == pytest.approx(time.time(), abs=600)
        assert (rows[2]["stdout"], rows[2]["stdoutGap"], rows[2]["stderr"]) == (b"019\n", 2, b"no\n")
        assert (rows[3]["problem"], rows[3]["reason"]) == ("a step before it failed", None)
    # Without the server for its calls the form is there all the same.
    assert "avro" not in server.ready
    assert_problem(client.get(f"/api/v1/batches/{batch}/results", headers={"Accept": "text/csv"}), 406)


def test_a_client_that_leaves_cancels_its_run(wire, known, target):
    root = target.root
    wire.sendall(netty(0, handshake(known) + bytes(2)))
    read_netty(wire)
    script = f"trap 'touch {root}/ended; exit' TERM; touch {root}/begun; while :; do sleep 0.05; done"
    wire.sendall(netty(1, b"\0" + text(b"execute") + text(b"sh -c") + b"\x02" + text(script.encode()) + b"\0\0\0"))
    eventually((root / "begun").exists, "the beginning of the run")
    wire.close()
    eventually((root / "ended").exists, "its end")
