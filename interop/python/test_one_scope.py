"""Users with one scope each: whatever client they use, they can do that and nothing else."""

import json
import secrets
import time

import httpx
import pytest
from flood import (CONNECTIONS, Flood, Probe, address, assert_small, assert_unnoticed, closed_within, dial, flood_http2,
                   head, held_by)
from server import PATIENCE, Server, eventually
from ssh import Keys, OpenSsh
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from test_avro import SEED, classic, handshake, text

# Named as their scope is, but for the last, who has two that are far apart.
USERS = {"execute": {"execute"}, "sessions": {"sessions"}, "watch": {"watch"}, "files": {"files"},
         "admin": {"admin"}, "both": {"execute", "files"}}
TOKENS = {user: f"{user}-{secrets.token_hex(16)}" for user in USERS}
# Who is to notice nothing of what the others do.
BYSTANDER = f"bystander-{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Server:
    home = tmp_path_factory.mktemp("scopes")
    tokens = home / "users"
    tokens.touch(0o600)
    lines = [f"{user}={TOKENS[user]} {' '.join(sorted(scopes))}" for user, scopes in USERS.items()]
    lines.append(f"bystander={BYSTANDER} execute sessions")
    tokens.write_text("\n".join(lines) + "\n")
    server = Server(home / "server", "--tokens", tokens, ws=True, ssh=True, avro=True, tokens=False)
    keys = Keys(home / "keys")
    for user in USERS:
        (server.keys / user).write_text(keys.public(user))
    server.clients = {user: OpenSsh(server, keys.make(user), user) for user in USERS}
    (server.root / "note").write_text("content")
    yield server
    assert server.stop() == 0


def may(user: str, *any_of: str) -> bool:
    return bool(USERS[user] & set(any_of))


def http(server: Server, user: str) -> httpx.Client:
    return server.client(TOKENS[user])


each_user = pytest.mark.parametrize("user", USERS)


@each_user
def test_over_http(served, user):
    step = {"steps": [{"command": "true"}]}
    calls = [
        ("POST", "/execute", {"json": {"command": "true"}}, ("execute",), 200),
        ("GET", "/api/v1/executions", {}, ("execute", "admin"), 200),
        ("POST", "/api/v1/batches", {"json": step}, ("execute",), 202),
        ("POST", "/api/v1/sessions", {"json": {"command": "true"}}, ("sessions",), 201),
        ("GET", "/api/v1/files/note", {}, ("files",), 200),
        ("GET", "/api/v1/files/", {}, ("files",), 200),
        ("PUT", f"/api/v1/files/{user}", {"content": b"x"}, ("files",), 201),
        ("POST", f"/api/v1/files/{user}?copy={user}-copy", {}, ("files",), 201),
        ("DELETE", f"/api/v1/files/{user}", {}, ("files",), 204),
    ]
    with http(served, user) as client:
        for method, path, options, scopes, status in calls:
            answer = client.request(method, path, **options)
            wanted = status if may(user, *scopes) else 403
            assert answer.status_code == wanted, (method, path, answer.text)
        # Whoever may see none is told of none.
        listed = client.get("/api/v1/sessions").json()["sessions"]
        assert bool(listed) == may(user, "sessions"), listed
    left = sorted(path.name for path in served.root.iterdir())
    assert (f"{user}-copy" in left) == may(user, "files")


@each_user
def test_a_body_is_not_read_for_who_may_not(served, user):
    """The scope is looked at first: the answer is there before the body."""
    import socket

    with socket.create_connection(served.address, timeout=PATIENCE) as wire:
        wire.sendall(f"PUT /api/v1/files/large HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKENS[user]}\r\n"
                     "Content-Length: 1000000\r\n\r\n".encode())
        if may(user, "files"):
            wire.sendall(b"x" * 1_000_000)
            assert wire.recv(4096).split()[1] in (b"200", b"201", b"204")
        else:
            assert wire.recv(4096).split()[1] == b"403"


@each_user
def test_over_websocket(served, user):
    headers = {"Authorization": f"Bearer {TOKENS[user]}"}
    options = {"additional_headers": headers, "proxy": None, "compression": None, "open_timeout": PATIENCE}
    try:
        with connect(served.ws_url, **options) as terminal:
            frame = json.loads(terminal.recv(timeout=PATIENCE))
            allowed = frame["type"] == "session"
            if not allowed:
                assert frame["type"] == "error", frame
                with pytest.raises(ConnectionClosed):
                    while True:
                        terminal.recv(timeout=PATIENCE)
    except (InvalidStatus, ConnectionClosed) as refused:
        allowed = False
        if isinstance(refused, InvalidStatus):
            assert refused.response.status_code == 403
        else:
            assert refused.rcvd.code == 4403
    assert allowed == may(user, "sessions")


@each_user
def test_over_avro(served, user):
    call = b"\0" + text(b"execute") + b"\x08echo\x02\x04hi\0\0\0"
    message = classic(handshake(bytes(16), True, protocol=SEED) + call)
    headers = {"Content-Type": "avro/binary", "Authorization": f"Bearer {TOKENS[user]}"}
    for url in (f"http://{served.ready['avro']}/", f"{served.url}/avro"):
        answer = httpx.post(url, content=message, headers=headers, trust_env=False, timeout=60)
        assert answer.status_code == 200, answer.text
        ran = b"\x06hi\n" in answer.content
        assert ran == may(user, "execute"), answer.content
        assert ran or b"FORBIDDEN" in answer.content or b"execute" in answer.content


@each_user
def test_over_ssh(served, user):
    client = served.clients[user]
    done = client.run("echo", "hi")
    if may(user, "execute"):
        assert (done.returncode, done.stdout) == (0, b"hi\n"), done
    else:
        assert done.returncode != 0 and done.stdout == b"" and b"execute" in done.stderr, done
    # A terminal is a session.
    done = client.run("true", flags=("-tt",))
    assert (done.returncode == 0) == may(user, "sessions"), done


@each_user
def test_over_sftp_and_what_copies(served, user, tmp_path):
    client = served.clients[user]
    fetched = tmp_path / "note"
    done = client.sftp(f"get note {fetched}", check=False)
    assert (done.returncode == 0) == may(user, "files"), done
    assert fetched.exists() == may(user, "files")
    source = tmp_path / f"by-{user}"
    source.write_text("more")
    done = client.scp(source, client.at(f"scp-{user}"), check=False)
    assert (done.returncode == 0) == may(user, "files"), done
    assert (served.root / f"scp-{user}").exists() == may(user, "files")
    # rsync is a program of the host: it takes the right to run it, and the right to files.
    done = client.rsync(source, client.at(f"rsync-{user}"), check=False)
    allowed = {"execute", "files"} <= USERS[user]
    if allowed:
        assert done.returncode == 0, done
    elif not may(user, "files"):
        assert done.returncode != 0, done
        assert not (served.root / f"rsync-{user}").exists()


def test_nobody_sees_what_belongs_to_another(served):
    with http(served, "execute") as one, http(served, "both") as other:
        batch = one.post("/api/v1/batches", json={"steps": [{"command": "echo secret"}]}).json()
        path = f"/api/v1/batches/{batch['batchId']}"
        eventually(lambda: one.get(path).json()["state"] == "succeeded", "the end of the batch")
        assert other.get(path).status_code == 404
        assert other.delete(path).status_code == 404
        assert path.rsplit("/", 1)[1] not in other.get("/api/v1/batches").text
    with http(served, "sessions") as one, http(served, "watch") as other:
        session = one.post("/api/v1/sessions", json={"command": "cat"}).json()["sessionId"]
        for path in ("", "/screen", "/recording"):
            assert other.get(f"/api/v1/sessions/{session}{path}").status_code == 404
        assert other.delete(f"/api/v1/sessions/{session}").status_code in (403, 404)
        assert one.delete(f"/api/v1/sessions/{session}").status_code == 204


def test_held_connections_of_a_caller_are_noticed_by_nobody_else(served):
    targets = [address(served, name) for name in ("http", "ws", "avro")]
    # The server serves a tenth of them at once.
    with (Probe(served, BYSTANDER) as probe,
          Flood(targets, held_by(TOKENS["execute"]), CONNECTIONS, 25) as flood):
        seen = flood.result()
    assert seen["opened"] + seen["refused"] == CONNECTIONS, seen
    assert_unnoticed(served, probe)
    with http(served, "execute") as client:
        assert client.post("/execute", json={"command": "true"}).status_code == 200


@pytest.mark.parametrize("name,path", [("http", "/execute"), ("http", "/avro"), ("ws", "/execute"), ("avro", "/avro")])
def test_slow_bodies_of_a_caller_are_given_up_and_noticed_by_nobody_else(served, name, path):
    kind = "avro/binary" if path == "/avro" else "application/json"
    begin = (f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKENS['execute']}\r\n"
             f"Content-Type: {kind}\r\nContent-Length: 100\r\n\r\n").encode()
    with Probe(served, BYSTANDER) as probe:
        wires = [dial(served, name) for _ in range(100)]
        for wire in wires:
            wire.sendall(begin + b" ")
        for wire in wires:
            # 30 s for the body, and the rest for a busy machine.
            closed_within(wire, 30 + PATIENCE)
            wire.close()
    assert_unnoticed(served, probe)


def test_floods_of_http2_of_a_caller_are_noticed_by_nobody_else(served):
    with Probe(served, BYSTANDER) as probe:
        for name in ("http", "ws", "avro"):
            flood_http2(served, name, head(TOKENS["execute"]))
    assert_unnoticed(served, probe)


def test_floods_of_requests_of_a_caller_are_noticed_by_nobody_else(served):
    """Requests one after the other, whose answers are not all read."""
    request = (f"GET /api/v1/executions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKENS['execute']}\r\n"
               "\r\n").encode()
    with Probe(served, BYSTANDER) as probe:
        for name in ("http", "ws"):
            until = time.monotonic() + 6
            wires = [dial(served, name) for _ in range(8)]
            while time.monotonic() < until:
                for wire in wires:
                    wire.settimeout(0.01)
                    try:
                        wire.sendall(request * 20)
                        wire.recv(1 << 10)
                    except (TimeoutError, ConnectionError):
                        pass
            for wire in wires:
                wire.close()
    assert_unnoticed(served, probe)


def test_no_test_took_much_memory(served):
    """The last one: the most that the server has had is what it has had in all of them."""
    assert_small(served)
