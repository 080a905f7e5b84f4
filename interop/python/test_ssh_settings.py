"""What the settings of the SSH server, and options of keys, come to for real clients: each test looks at
two servers, at one where it is set and at one where it is not."""

import os
import shutil
import socket
import socketserver
import subprocess
import threading
from pathlib import Path

import pytest

from server import PATIENCE, Server, eventually, marker, processes
from ssh import OpenSsh, SmallClient, host_key_of, logged, nothing_left, quoted

# What clients without elliptic curves of Bernstein's, and without MACs of what is encrypted, are left with.
OLD = ("KexAlgorithms=ecdh-sha2-nistp256", "Ciphers=aes128-ctr", "MACs=hmac-sha2-256")


class Echo(socketserver.ThreadingTCPServer):
    """Gives back what it is sent, up to the end of it."""

    daemon_threads = True
    allow_reuse_address = True

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            data = b""
            while piece := self.request.recv(1 << 16):
                data += piece
            self.request.sendall(data)

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def echoes():
    """Two servers: connections to the first are permitted, those to the second are not."""
    with Echo() as permitted, Echo() as other:
        yield permitted.port, other.port
        permitted.shutdown()
        other.shutdown()


KEYS = {
    "alice": "",
    "one-program": "command=\"sh -c 'echo forced; echo $SSH_ORIGINAL_COMMAND'\"",
    "kept": 'background="keep"', "ended": 'background="kill"',
    "files-below": 'command="internal-sftp -R -d shared"', "files": 'command="internal-sftp"',
}


def add_keys(server: Server, keys, options: dict[str, str]):
    (server.keys / "alice").write_text("".join(
        f"{words} {keys.public(name)}".lstrip() for name, words in options.items()))


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory, keys, echoes):
    """All that is stricter or less by default is set otherwise."""
    home = tmp_path_factory.mktemp("ssh")
    paths = {"ed25519": keys.make("host-ed25519"), "rsa": keys.make("host-rsa", "-t", "rsa", "-b", "3072"),
             "ecdsa": keys.make("host-ecdsa", "-t", "ecdsa", "-b", "256")}
    keys.sign("host-authority", "host-ed25519", "-h", "-n", "127.0.0.1", "-V", "20200101:29990101")
    listed = ", ".join(f'"{path}"' for path in paths.values())
    server = Server(home / "server", ssh=True, config=f"""
        shell = "/bin/sh"
        [ssh]
        algorithms = "compatible"
        signals = "status"
        scp = false
        permit-open = ["127.0.0.1:{echoes[0]}", "localhost:*", "{home}/socket"]
        host-keys = [{listed}]
        host-certificates = ["{paths["ed25519"]}-cert.pub"]
        [commands]
        shell = true
    """)
    add_keys(server, keys, KEYS | {"permitted": f'permitopen="127.0.0.1:{echoes[1]}"'})
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def strict(tmp_path_factory, keys, echoes):
    """Only its algorithms are set."""
    server = Server(tmp_path_factory.mktemp("ssh") / "server", ssh=True, config='[ssh]\nalgorithms = "strict"\n')
    add_keys(server, keys, KEYS | {"permitted": f'permitopen="127.0.0.1:{echoes[1]}"'})
    yield server
    assert server.stop() == 0


@pytest.fixture(autouse=True)
def tidy(relaxed, strict):
    yield
    nothing_left(relaxed)
    nothing_left(strict)


@pytest.fixture
def client(relaxed, strict, keys):
    """A client of one of the servers, with a key."""
    def client(server: Server, key: str = "alice", *options: str) -> OpenSsh:
        host_key = keys.public("host-ed25519").strip() if server is relaxed else None
        return OpenSsh(server, keys.make(key), "alice", *options, host_key=host_key)

    return client


# Algorithms.


def test_old_clients_are_let_in_by_the_compatible_set_alone(client, relaxed, strict):
    assert client(relaxed).says("echo", "in", options=OLD) == "in\n"
    for option, words in [
        (OLD[0], "the set `compatible` of algorithms would let it in"),
        ("Ciphers=aes192-ctr", "the set `compatible` of algorithms would let it in"),
        ("Ciphers=aes128-gcm@openssh.com", "the set `default` of algorithms would let it in"),
    ]:
        done = client(strict).run("true", options=(option, "LogLevel=INFO"))
        assert done.returncode == 255 and b"no matching" in done.stderr, done
        logged(strict, "no algorithm in common", option.partition("=")[2], words)
        assert client(relaxed).run("true", options=(option,)).returncode == 0
    # A MAC counts with a cipher that needs one.
    macs = ("Ciphers=aes256-ctr", "MACs=hmac-sha2-256")
    assert client(strict).run("true", options=macs).returncode == 255
    logged(strict, "no algorithm in common", "offered=\"hmac-sha2-256\"", "the set `default` of algorithms")
    # And new ones get in.
    assert client(strict).says("echo", "in") == "in\n"


# Signals.


@pytest.mark.parametrize("program", ["plink", "dbclient"])
def test_small_clients_read_the_signal_as_a_status(relaxed, strict, keys, tmp_path, program):
    script = "echo before; kill -TERM $$"
    host_key = keys.public("host-ed25519").strip()
    client = SmallClient(program, relaxed, keys.make("alice"), tmp_path, host_key)
    done = client.run(script)
    assert (done.returncode, done.stdout) == (128 + 15, b"before\n"), done
    # By its name it is lost on them.
    (tmp_path / "other").mkdir()
    client = SmallClient(program, strict, keys.make("alice"), tmp_path / "other")
    done = client.run(f"sh -c {quoted(script)}")
    assert done.returncode != 128 + 15 and done.stdout == b"before\n", done


def test_openssh_reads_the_signal_as_it_is_told(client, relaxed, strict):
    assert client(relaxed).run("kill -TERM $$").returncode == 128 + 15
    # It tells of a name by the code of failures of its own.
    assert client(strict).run(f"sh -c {quoted('kill -TERM $$')}").returncode == 255


# The old protocol of scp.


def test_the_old_scp_is_refused_in_words(client, relaxed, strict, tmp_path):
    (tmp_path / "up").write_text("content")
    for server, is_served in ((strict, True), (relaxed, False)):
        ssh = client(server)
        at = [(tmp_path / "up", ssh.at("by-scp")), (ssh.at("offered"), tmp_path / "down")]
        (server.root / "offered").write_text("offered")
        for words in at:
            done = ssh.scp("-O", *words, check=False)
            assert (done.returncode == 0) is is_served, done
            assert ("the old protocol of scp is switched off here; leave out -O" in done.stderr) is not is_served
        assert (server.root / "by-scp").exists() is (tmp_path / "down").exists() is is_served
        (tmp_path / "down").unlink(missing_ok=True)
        # As other programs speak it, which take the first byte as an answer.
        for flag in ("-t", "-f"):
            done = ssh.run("scp", flag, "offered", input=b"\0" if flag == "-f" else b"")
            assert done.stdout.startswith(b"\x02scp: the old protocol") is not is_served, done
            assert is_served or done.returncode == 1, done
        # Over SFTP files go on.
        for words in at:
            ssh.scp(*words)
        assert (server.root / "by-scp").read_text() == "content"
        assert (tmp_path / "down").read_text() == "offered"
        (tmp_path / "down").unlink()


# Forwarding.


def test_connections_to_permitted_targets_are_forwarded(client, relaxed, strict, echoes):
    permitted, other = (f"127.0.0.1:{port}" for port in echoes)

    def through(server, target, key="alice"):
        return client(server, key).run(flags=("-W", target), options=("LogLevel=INFO",), input=b"typed")

    done = through(relaxed, permitted)
    assert (done.returncode, done.stdout) == (0, b"typed"), done
    for server, target in ((relaxed, other), (strict, permitted)):
        done = through(server, target)
        assert done.returncode == 255 and b"administratively prohibited" in done.stderr, done
        logged(server, "a forwarding is refused", target, "it is no target that is permitted here")
    # A key's own targets are instead of those of the server.
    for server in (relaxed, strict):
        done = through(server, other, key="permitted")
        assert (done.returncode, done.stdout) == (0, b"typed"), done
        assert through(server, permitted, key="permitted").returncode == 255
        logged(server, "a forwarding is refused", permitted, "it is no target of the key's permitopen=")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def asked(at: Path | int, socks: int | None = None) -> bytes:
    """What is answered at a socket of this side; or at a port, through a proxy by SOCKS 5."""
    with socket.socket(socket.AF_INET if socks else socket.AF_UNIX) as wire:
        wire.settimeout(PATIENCE)
        wire.connect(("127.0.0.1", socks) if socks else str(at))
        if socks:
            wire.sendall(b"\x05\x01\x00")
            assert wire.recv(2, socket.MSG_WAITALL) == b"\x05\x00"
            wire.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + at.to_bytes(2))
        data = b""
        try:
            if socks:
                assert wire.recv(10, socket.MSG_WAITALL)[:2] in (b"\x05\x00", b"")
            wire.sendall(b"typed")
            wire.shutdown(socket.SHUT_WR)
            while piece := wire.recv(1 << 16):
                data += piece
        except OSError as error:
            # Closed on us, which is no answer.
            assert not isinstance(error, TimeoutError), error
        return data


def test_connections_of_this_side_are_forwarded(client, relaxed, echoes, tmp_path):
    """To a target that is permitted, to one that is permitted by its name, and to one that a browser
    names (`-D`)."""
    here = [tmp_path / str(number) for number in range(3)]
    targets = [f"127.0.0.1:{echoes[0]}", f"127.0.0.1:{echoes[1]}", f"localhost:{echoes[1]}"]
    flags = [word for path, target in zip(here, targets) for word in ("-L", f"{path}:{target}")]
    proxy = free_port()
    with client(relaxed).start("cat", flags=(*flags, "-D", f"127.0.0.1:{proxy}")) as ssh:
        wait_for_echo(ssh)
        assert [asked(path) for path in here] == [b"typed", b"", b"typed"]
        assert [asked(port, socks=proxy) for port in echoes] == [b"typed", b""]
        end(ssh)


def wait_for_echo(ssh: subprocess.Popen):
    """Until `cat` runs there, and so all is set up."""
    ssh.stdin.write(b"on\n")
    ssh.stdin.flush()
    assert ssh.stdout.readline() == b"on\n"


def end(ssh: subprocess.Popen):
    ssh.stdin.close()
    assert ssh.wait(PATIENCE) == 0


def test_a_host_is_jumped_over(client, relaxed, strict, keys, tmp_path):
    """From one server to the other, whose port is permitted by the name of its host alone."""
    known = tmp_path / "known_hosts"
    known.write_text(f"relaxed {keys.public('host-ed25519')}" + f"strict {host_key_of(strict)}\n")
    config = tmp_path / "config"
    common = (f"IdentityFile {keys.make('alice')}\nIdentitiesOnly yes\nIdentityAgent none\nBatchMode yes\n"
              f"UserKnownHostsFile {known}\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\nUser alice\n")
    config.write_text(
        f"Host relaxed\nHostName 127.0.0.1\nPort {relaxed.ssh_port}\nHostKeyAlias relaxed\n"
        f"Host strict\nHostName localhost\nPort {strict.ssh_port}\nHostKeyAlias strict\n"
        f"Host elsewhere\nHostName 127.0.0.1\nPort {strict.ssh_port}\nHostKeyAlias strict\nHost *\n{common}")

    def jump(over, to):
        return subprocess.run(["ssh", "-F", config, "-J", over, to, "env"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE)

    done = jump("relaxed", "strict")
    assert done.returncode == 0, done
    connection = next(line for line in done.stdout.splitlines() if line.startswith("SSH_CONNECTION="))
    assert connection.split()[-1] == str(strict.ssh_port)
    for over, to in (("relaxed", "elsewhere"), ("strict", "relaxed")):
        done = jump(over, to)
        assert done.returncode == 255 and "administratively prohibited" in done.stderr, done


def test_a_socket_is_reached(client, relaxed, strict, tmp_path):
    path = relaxed.root.parent.parent / "socket"
    with socketserver.ThreadingUnixStreamServer(str(path), Echo.Handler) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        for server, answer in ((relaxed, b"typed"), (strict, b"")):
            here = tmp_path / f"{server.ssh_port}"
            with client(server).start("cat", flags=("-L", f"{here}:{path}")) as ssh:
                wait_for_echo(ssh)
                assert asked(here) == answer
                end(ssh)
        echo.shutdown()


# The server's own keys.


@pytest.mark.parametrize("algorithm,name", [
    ("rsa-sha2-512", "host-rsa"), ("rsa-sha2-256", "host-rsa"), ("ecdsa-sha2-nistp256", "host-ecdsa"),
    ("ssh-ed25519", "host-ed25519"),
])
def test_each_kind_of_host_key(client, relaxed, strict, keys, tmp_path, algorithm, name):
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{relaxed.ssh_port} {keys.public(name)}")
    only = (f"HostKeyAlgorithms={algorithm}", f"UserKnownHostsFile={known}")
    assert client(relaxed).says("echo", "in", options=only) == "in\n"
    if name != "host-ed25519":
        done = client(strict).run("true", options=(*only[:1], "LogLevel=INFO"))
        assert done.returncode == 255 and b"no matching host key type" in done.stderr, done
        # And it is that key.
        known.write_text(f"[127.0.0.1]:{relaxed.ssh_port} {keys.public('host-ed25519')}")
        done = client(relaxed).run("true", options=only)
        assert done.returncode == 255 and b"Host key verification failed" in done.stderr, done


def test_a_server_is_known_by_its_certificate(client, relaxed, strict, keys, tmp_path):
    known = tmp_path / "known_hosts"
    option = (f"UserKnownHostsFile={known}",)

    def trust(authority, names="[127.0.0.1]:*"):
        known.write_text(f"@cert-authority {names} {keys.public(authority)}")

    trust("host-authority")
    assert client(relaxed).says("echo", "in", options=option) == "in\n"
    # Who has none, is signed by another, or for another name, is not known.
    assert client(strict).run("true", options=option).returncode == 255
    done = client(relaxed).run("true", options=(*option, "HostKeyAlias=other"))
    assert done.returncode == 255 and b"Host key verification failed" in done.stderr, done
    trust("another-authority")
    done = client(relaxed).run("true", options=option)
    assert done.returncode == 255 and b"Host key verification failed" in done.stderr, done


# Options of keys.


def test_a_key_is_bound_to_a_command(client, relaxed, strict):
    for server in (relaxed, strict):
        assert client(server, "one-program").says("id", "-u") == "forced\nid -u\n"
        assert client(server, "one-program").sftp("ls", check=False).returncode != 0


def test_a_key_keeps_what_is_in_the_background(client, relaxed, strict):
    for server in (relaxed, strict):
        marks = {}
        for key in ("kept", "ended", "alice"):
            marks[key] = marker()
            script = f"sleep {marks[key]} >/dev/null 2>&1 & echo $!"
            pid = int(client(server, key).says(f"sh -c {quoted(script)}"))
            assert processes(marks[key]) == ([pid] if key == "kept" else []), key
            if key == "kept":
                os.kill(pid, 15)
        eventually(lambda: not processes(marks["kept"]), "its end")


def test_a_key_for_files_begins_in_a_directory_and_only_reads(client, relaxed, strict, tmp_path):
    (tmp_path / "up").write_text("content")
    for server in (relaxed, strict):
        (server.root / "shared").mkdir()
        (server.root / "shared" / "offered").write_text("offered")
        below = client(server, "files-below")
        assert f"working directory: {server.root}/shared\n" in below.sftp("pwd").stdout
        assert "offered" in below.sftp("ls").stdout.split()
        below.sftp(f"get offered {tmp_path}/down")
        assert (tmp_path / "down").read_text() == "offered"
        for line in (f"put {tmp_path}/up up", "rm offered", "mkdir new", "rename offered other", "chmod 600 offered"):
            done = below.sftp(line, check=False)
            assert done.returncode != 0 and "denied" in done.stderr.lower(), done
        assert os.listdir(server.root / "shared") == ["offered"]
        # Without these words it begins in root, and writes.
        every = client(server, "files")
        assert f"working directory: {server.root}\n" in every.sftp("pwd").stdout
        every.sftp(f"put {tmp_path}/up shared/up")
        assert (server.root / "shared" / "up").read_text() == "content"
        shutil.rmtree(server.root / "shared")


# A shell.


def test_command_lines_go_to_a_shell_where_that_is_set(client, relaxed, strict):
    for line, said in [
        ("echo a; echo b", "a\nb\n"), ("echo a | tr a b", "b\n"), ("echo $((1 + 1)) && echo `echo 3`", "2\n3\n"),
    ]:
        assert client(relaxed).says(line) == said
        done = client(strict).run(line)
        assert (done.returncode, done.stdout) == (2, b"") and done.stderr.strip(), done
    assert client(relaxed).run("exit 7").returncode == 7
    (relaxed.root / "by-shell").unlink(missing_ok=True)
    assert client(relaxed).says("cat > by-shell; ls by-sh*", input=b"typed") == "by-shell\n"
    assert (relaxed.root / "by-shell").read_text() == "typed"
