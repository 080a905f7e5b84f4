"""A program that was just written, by each server, can be run at once beside others who start programs."""

import asyncio
import threading
from pathlib import Path

import asyncssh
import avro.ipc
import avro.protocol
import httpx
import pytest

from server import Server
from ssh import host_key_of

COUNT = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory, keys):
    server = Server(tmp_path_factory.mktemp("written") / "server", "--anonymous", "alice", ssh=True, avro=True)
    (server.keys / "alice").write_text(keys.public("alice"))
    yield server
    assert server.stop() == 0


@pytest.fixture
def busy(server):
    """Four callers who run one program after another."""
    over, ran = threading.Event(), []

    def run():
        with server.client() as client:
            while not over.is_set():
                ran.append(client.post("/execute", json={"command": "true"}).json()["exitCode"])

    callers = [threading.Thread(target=run) for _ in range(4)]
    for caller in callers:
        caller.start()
    yield
    over.set()
    for caller in callers:
        caller.join()
    assert ran and not any(ran)


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def script(number: int) -> bytes:
    return f"#!/bin/sh\necho {number}\n".encode()


def make(server: Server, name: str, number: int = -1):
    """A program that is written anew each time."""
    path = server.root / name
    path.write_bytes(script(number))
    path.chmod(0o755)


def shows(client: httpx.Client, name: str, number: int):
    # A shell tries to run it once only.
    result = client.post("/execute", json={"command": "sh -c", "args": [f"./{name}"]}).json()
    assert (result["stdout"], result["stderr"]) == (f"{number}\n", ""), result


def test_by_http_and_in_a_batch(server, client, busy):
    make(server, "by-http")
    for number in range(COUNT):
        assert client.put("/api/v1/files/by-http", content=script(number)).is_success
        shows(client, "by-http", number)
    for number in range(COUNT):
        assert client.put("/api/v1/files/by-http", content=script(number)).is_success
        steps = [{"command": "sh -c", "args": ["./by-http"]}]
        record = client.post("/api/v1/batches?wait=true", json={"steps": steps}).json()
        assert record["steps"][0]["stdout"] == f"{number}\n", record


def test_a_copy(server, client, busy):
    for number in range(COUNT):
        make(server, "original", number)
        (server.root / "by-copy").unlink(missing_ok=True)
        assert client.post("/api/v1/files/original?copy=by-copy").is_success
        shows(client, "by-copy", number)


@pytest.mark.parametrize("offset", [None, 0], ids=["whole", "in-parts"])
def test_by_avro(server, client, busy, offset):
    make(server, "by-avro")
    text = httpx.get(f"http://{server.ready['avro']}/avro/protocol", trust_env=False, timeout=60).text
    host, port = server.ready["avro"].rsplit(":", 1)
    requestor = avro.ipc.Requestor(avro.protocol.parse(text), avro.ipc.HTTPTransceiver(host, int(port)))
    for number in range(COUNT):
        requestor.request("writeFile", {"path": "by-avro", "data": script(number), "offset": offset})
        shows(client, "by-avro", number)


@pytest.mark.parametrize("how", ["sftp", "scp"])
def test_over_ssh(server, client, keys, busy, tmp_path, how):
    name = f"by-{how}"
    make(server, name)
    local = tmp_path / "tool"

    async def write():
        known = asyncssh.import_known_hosts(f"[127.0.0.1]:{server.ssh_port} {host_key_of(server)}\n")
        login = {"username": "alice", "client_keys": [str(keys.make("alice"))], "known_hosts": known,
                 "config": None, "agent_path": None}
        async with asyncssh.connect("127.0.0.1", server.ssh_port, **login) as connection:
            sftp = await connection.start_sftp_client()
            # What ends scp leaves most of the others the time to be started.
            for number in range(COUNT if how == "sftp" else 3 * COUNT):
                if how == "sftp":
                    async with sftp.open(name, "wb") as file:
                        await file.write(script(number))
                else:
                    local.write_bytes(script(number))
                    await asyncssh.scp(str(local), (connection, name))
                await asyncio.to_thread(shows, client, name, number)

    asyncio.run(write())
