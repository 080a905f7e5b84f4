"""Other SSH clients: paramiko, asyncssh, PuTTY's plink and Dropbear's dbclient; and ssh-audit."""

import asyncio
import base64
import hashlib
import io
import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import asyncssh
import paramiko
import pytest

from server import PATIENCE, Server, eventually, marker, processes
from ssh import SmallClient, host_key_of, nothing_left, quoted


@pytest.fixture(scope="module")
def server(tmp_path_factory, keys):
    server = Server(tmp_path_factory.mktemp("ssh") / "server", ssh=True, ws=True)
    kinds = {"alice": (), "ecdsa": ("-t", "ecdsa", "-b", "384"), "rsa": ("-t", "rsa", "-b", "3072")}
    for name, options in kinds.items():
        keys.make(name, *options)
    (server.keys / "alice").write_text("".join(map(keys.public, kinds)))
    yield server
    assert server.stop() == 0


@pytest.fixture(autouse=True)
def tidy(server):
    yield
    with server.client() as http:
        for session in http.get("/api/v1/sessions").json()["sessions"]:
            http.delete(f"/api/v1/sessions/{session['sessionId']}")
    nothing_left(server)


def zeros(count: int) -> str:
    return f"head -c {count} /dev/zero"


# paramiko


@pytest.fixture
def connect(server, keys):
    made = []

    def connect(**how) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        name, key = host_key_of(server).split()[:2]
        parsed = paramiko.PKey.from_type_string(name, base64.b64decode(key))
        client.get_host_keys().add(f"[127.0.0.1]:{server.ssh_port}", name, parsed)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        made.append(client)
        how = {"username": "alice", "key_filename": str(keys.make("alice")), "allow_agent": False,
               "look_for_keys": False, "timeout": PATIENCE, "auth_timeout": PATIENCE, **how}
        client.connect("127.0.0.1", server.ssh_port, **how)
        return client

    yield connect
    for client in made:
        client.close()


@pytest.mark.parametrize("key", ["alice", "ecdsa", "rsa"])
def test_paramiko_runs_commands(connect, keys, key):
    client = connect(key_filename=str(keys.make(key)))
    for code in (0, 7, 255):
        _, out, err = client.exec_command(f"sh -c 'cat; echo err >&2; exit {code}'", environment={"LANG": "C"})
        out.channel.sendall(b"typed")
        out.channel.shutdown_write()
        assert (out.read(), err.read(), out.channel.recv_exit_status()) == (b"typed", b"err\n", code)


def test_paramiko_asks_for_the_end_before_it_reads(connect):
    """It has all of its window to keep what comes, and no more."""
    _, out, _ = connect().exec_command(f"sh -c '{zeros(2_000_000)}; exit 3'")
    assert out.channel.recv_exit_status() == 3
    assert out.read() == bytes(2_000_000)
    _, out, _ = connect().exec_command(f"sh -c '{zeros(10_000_000)}; exit 4'")
    digest = hashlib.sha256()
    while piece := out.read(1 << 16):
        digest.update(piece)
    assert digest.digest() == hashlib.sha256(bytes(10_000_000)).digest()
    assert out.channel.recv_exit_status() == 4


def test_paramiko_with_two_keys_of_which_the_second_is_good(connect, keys):
    """It asks for the service again before the second, which is not answered: it is told so soon."""
    begun = time.monotonic()
    bad, good = (str(keys.make(name)) for name in ("stranger", "alice"))
    with pytest.raises(Exception):
        connect(key_filename=[bad, good])
    # Sooner than it gives up by itself.
    assert time.monotonic() - begun < PATIENCE - 5
    # In the other order nothing is in the way.
    connect(key_filename=[good, bad])


def test_paramiko_moves_files(connect, server):
    data = os.urandom(8_000_000)
    sftp = connect().open_sftp()
    sftp.putfo(io.BytesIO(data), "up", file_size=len(data))
    assert (server.root / "up").read_bytes() == data
    back = io.BytesIO()
    sftp.getfo("up", back)  # It asks for many pieces ahead.
    assert back.getvalue() == data
    with sftp.open("up", "r+") as file:
        file.seek(10)
        file.write(b"middle")
        file.seek(8)
        assert file.read(10) == data[8:10] + b"middle" + data[16:18]
    assert {"up"} <= set(sftp.listdir("."))
    sftp.mkdir("dir", 0o755)
    sftp.rename("up", "dir/up")
    sftp.posix_rename("dir/up", "dir/again")
    assert sftp.stat("dir/again").st_size == len(data)
    assert sftp.normalize("dir/../dir/./again") == f"{server.root}/dir/again"
    sftp.chmod("dir/again", 0o600)
    sftp.truncate("dir/again", 5)
    assert [entry.st_size for entry in sftp.listdir_attr("dir")] == [5]
    sftp.remove("dir/again")
    sftp.rmdir("dir")
    with pytest.raises(FileNotFoundError):
        sftp.stat("dir")
    with pytest.raises(IOError):
        sftp.open("runtime/ssh/host_ed25519_key")


def test_paramiko_in_a_terminal(connect):
    shell = connect().invoke_shell("xterm", 91, 31)
    shell.settimeout(PATIENCE)
    shell.resize_pty(77, 33)
    shell.sendall("stty size; echo $TERM; exit 9\r")
    seen = b""
    while piece := shell.recv(1 << 16):
        seen += piece
    assert b"33 77\r\nxterm\r\n" in seen and shell.recv_exit_status() == 9


def test_paramiko_is_refused_other_channels(connect):
    transport = connect().get_transport()
    for kind, addresses in (("direct-tcpip", [("127.0.0.1", 1), ("127.0.0.1", 2)]), ("x11", [None, ("127.0.0.1", 2)]),
                            ("forwarded-tcpip", [("127.0.0.1", 1), ("127.0.0.1", 2)]), ("unheard-of", [None, None])):
        with pytest.raises(paramiko.ChannelException) as refused:
            transport.open_channel(kind, *addresses, timeout=PATIENCE)
        assert refused.value.code in (1, 3), kind
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("127.0.0.1", 0)
    session = transport.open_session()
    with pytest.raises(paramiko.SSHException):
        session.request_x11()
    # And all the rest goes on.
    session = transport.open_session()
    session.exec_command("echo on")
    assert session.makefile().read() == b"on\n"


def test_paramiko_with_thirty_bad_keys_is_sent_away(server):
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    begun, tries = time.monotonic(), 0
    with socket.create_connection(("127.0.0.1", server.ssh_port)) as wire:
        with paramiko.Transport(wire) as transport:
            transport.start_client(timeout=PATIENCE)
            transport.auth_timeout = PATIENCE
            while transport.is_active() and tries < 30:
                tries += 1
                with pytest.raises((paramiko.SSHException, EOFError)):
                    transport.auth_publickey("alice", paramiko.ECDSAKey.generate())
            assert tries < 30 and not transport.is_active()
    assert time.monotonic() - begun < PATIENCE


# asyncssh


@pytest.fixture
def run(server, keys):
    """Does something with a connection."""
    known = asyncssh.import_known_hosts(f"[127.0.0.1]:{server.ssh_port} {host_key_of(server)}\n")

    async def connected(work, **how):
        how = {"username": "alice", "client_keys": [str(keys.make("alice"))], "known_hosts": known, "config": None,
               "agent_path": None, "login_timeout": PATIENCE, **how}
        async with asyncio.timeout(PATIENCE * 2):
            async with asyncssh.connect("127.0.0.1", server.ssh_port, **how) as connection:
                await work(connection)

    return lambda work, **how: asyncio.run(connected(work, **how))


def test_asyncssh_runs_commands(run):
    async def work(connection):
        done = await connection.run("sh -c 'cat; echo err >&2; exit 7'", input="typed", env={"LANG": "C"})
        assert (done.stdout, done.stderr, done.exit_status) == ("typed", "err\n", 7)
        done = await connection.run("sh -c 'echo before; kill -SEGV $$'")
        assert (done.stdout, done.exit_signal[0]) == ("before\n", "SEGV")
        done = await connection.run("no-such-program")
        assert done.exit_status == 127 and "not found" in done.stderr

    run(work)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1"])
def test_asyncssh_sends_signals(run, name):
    async def work(connection):
        trap = f"trap 'echo got; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
        async with connection.create_process(f"sh -c {quoted(trap)}") as process:
            assert await process.stdout.readline() == "ready\n"
            process.send_signal(name)
            assert await process.stdout.read() == "got\n"
            assert (await process.wait()).exit_status == 5
        mark = marker()
        async with connection.create_process(f"sleep {mark}") as process:
            while not processes(mark):
                await asyncio.sleep(0.01)
            process.kill()
            assert (await process.wait()).exit_signal[0] == "KILL"

    run(work)


def test_asyncssh_in_a_terminal(run):
    async def work(connection):
        script = "trap 'stty size; exit 4' WINCH; stty size; while :; do sleep 0.05; done"
        words = f"sh -c {quoted(script)}"
        async with connection.create_process(words, term_type="vt100", term_size=(90, 20)) as process:
            assert await process.stdout.readline() == "20 90\r\n"
            process.change_terminal_size(120, 50)
            assert await process.stdout.readline() == "50 120\r\n"
            assert (await process.wait()).exit_status == 4

    run(work)


def test_asyncssh_with_sixty_at_once(run):
    async def work(connection):
        async def one(number):
            done = await connection.run(f"sh -c 'read line; echo {number} $line; exit {number}'", input="hello\n")
            assert (done.stdout, done.exit_status) == (f"{number} hello\n", number)

        await asyncio.gather(*(one(number) for number in range(60)))
        # And no more than 64 that last.
        lasting = [await connection.create_process("cat") for _ in range(64)]
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process("cat")
        for each in lasting:
            each.stdin.write_eof()
            assert (await each.wait()).exit_status == 0
        await one(61)

    run(work)


def test_asyncssh_with_new_keys_all_the_time(run):
    async def work(connection):
        data = os.urandom(3_000_000)
        async with connection.create_process("cat", encoding=None) as process:
            process.stdin.write(data)
            process.stdin.write_eof()
            assert await process.stdout.read() == data
            assert (await process.wait()).exit_status == 0

    run(work, rekey_bytes=100_000)


def test_asyncssh_moves_files(run, server, tmp_path):
    data = os.urandom(8_000_000)
    (tmp_path / "file").write_bytes(data)

    async def work(connection):
        async with connection.start_sftp_client() as sftp:
            await sftp.put(tmp_path / "file", "by-asyncssh")
            assert (server.root / "by-asyncssh").read_bytes() == data
            await sftp.get("by-asyncssh", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == data
            assert "by-asyncssh" in await sftp.listdir(".")
            assert (await sftp.stat("by-asyncssh")).size == len(data)
            assert (await sftp.statvfs(".")).bsize > 0
            await sftp.symlink("by-asyncssh", "link-of-asyncssh")
            assert os.readlink(server.root / "link-of-asyncssh") == "by-asyncssh"
            assert await sftp.readlink("link-of-asyncssh") == "by-asyncssh"
            await sftp.remove("link-of-asyncssh")
            await sftp.remove("by-asyncssh")
            assert not await sftp.exists("by-asyncssh")

    run(work)


def test_asyncssh_is_refused_forwarding(run, tmp_path):
    async def work(connection):
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", 1)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection(str(tmp_path / "none"))
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("", 0, "127.0.0.1", 1)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_path(str(tmp_path / "a"), str(tmp_path / "b"))
        assert (await connection.run("echo on")).stdout == "on\n"

    run(work)


# plink and dbclient


@pytest.fixture(params=["plink", "dbclient"])
def command(request, server, keys, tmp_path):
    """Runs a command line by it."""
    return SmallClient(request.param, server, keys.make("alice"), tmp_path).run


def test_small_clients_get_codes_and_all_bytes(command, tmp_path):
    for code in (0, 1, 7, 200):
        done = command(f"sh -c 'echo out; exit {code}'")
        assert (done.returncode, done.stdout) == (code, b"out\n"), done
    assert command("cat", input=b"typed").stdout == b"typed"
    with (tmp_path / "zeros").open("wb") as file:
        assert command(f"sh -c '{zeros(50_000_000)}; exit 3'", stdout=file).returncode == 3
    assert (tmp_path / "zeros").stat().st_size == 50_000_000
    os.truncate(tmp_path / "zeros", 5_000_000)
    with (tmp_path / "zeros").open("rb") as file:
        assert command("wc -c", stdin=file).stdout == b"5000000\n"


# ssh-audit


def test_ssh_audit_finds_nothing(server):
    tool = Path(sys.executable).with_name("ssh-audit")
    done = subprocess.run([tool, "--json", "--skip-rate-test", "-p", str(server.ssh_port), "127.0.0.1"],
                          capture_output=True, text=True, timeout=60)
    report = json.loads(done.stdout)
    notes = {kind: {} for kind in ("fail", "warn")}
    for part in ("kex", "key", "enc", "mac"):
        assert report[part], part
        for algorithm in report[part]:
            for kind in notes:
                if found := algorithm["notes"].get(kind):
                    notes[kind][algorithm["algorithm"]] = found
    assert notes["fail"] == {}
    # Clients have them that do not know the exchange which quantum computers can't undo, or no MAC of what
    # is encrypted.
    assert notes["warn"].keys() == {"curve25519-sha256", "curve25519-sha256@libssh.org",
                                    "hmac-sha2-256", "hmac-sha2-512"}, notes
    assert not report.get("cves")
    assert [key["algorithm"] for key in report["key"]] == ["ssh-ed25519"]
    assert "kex-strict-s-v00@openssh.com" in [kex["algorithm"] for kex in report["kex"]]
