"""Who gets in over SSH, by what, and how the server is known and ends."""

import os
import re
import select
import shutil
import socket
import stat
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import argon2
import paramiko
import pytest

from server import PATIENCE, Server, eventually
from ssh import OpenSsh, host_key_of, keygen, logged, nothing_left, quoted, sockets

PASSWORD = "correct horse äöü"


@pytest.fixture(scope="module")
def server(tmp_path_factory, keys):
    home = tmp_path_factory.mktemp("ssh")
    (home / "authorities").write_text(keys.public("authority"))
    (home / "revoked").write_text(f"# Lost.\n{keys.public('revoked')}")
    server = Server(home / "server", ssh=True, config=f"""
        [ssh]
        trusted-ca = "{home}/authorities"
        revoked-keys = "{home}/revoked"
    """)
    lines = {
        "alice": "", "revoked": "", "restricted": "restrict", "restricted-pty": "restrict,pty",
        "forced": "command=\"sh -c 'echo forced; echo $SSH_ORIGINAL_COMMAND; exit 3'\"",
        "files-only": 'command="internal-sftp",restrict',
        "variables": 'environment="GREETING=hello",environment="GREETING=again"',
        "expired": 'expiry-time="20200101"', "lasting": 'expiry-time="29990101"',
        "elsewhere": 'from="10.0.0.0/8,192.168.1.1"', "near": 'from="!127.0.0.3,127.0.0.0/8"',
        "misspelt": "restrickt", "twice": "",
    }
    (server.keys / "alice").write_text("# Keys of Alice's.\n\n" + "".join(
        f"{options} {keys.public(name)}".lstrip() for name, options in lines.items()))
    (server.keys / "bob").write_text(f'cert-authority,principals="ops" {keys.public("authority-of-bobs")}')
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server, keys):
    def client(key: str, user: str = "alice", *options) -> OpenSsh:
        return OpenSsh(server, keys.make(key), user, *options)

    return client


def gets_in(ssh: OpenSsh, **how) -> bool:
    done = ssh.run("echo", "in", **how)
    if done.returncode == 0:
        assert done.stdout == b"in\n"
        return True
    assert done.returncode == 255 and b"Permission denied (publickey)." in done.stderr, done
    return False


@pytest.mark.parametrize("key,user,does", [
    ("alice", "alice", True), ("stranger", "alice", False), ("revoked", "alice", False), ("alice", "bob", False),
    ("alice", "nobody", False), ("alice", "../alice", False), ("expired", "alice", False),
    ("lasting", "alice", True), ("elsewhere", "alice", False), ("near", "alice", True), ("misspelt", "alice", False),
    ("restricted", "alice", True), ("alice", "root", False),
])
def test_keys(client, key, user, does):
    assert gets_in(client(key, user)) is does


def test_addresses(client):
    for address, does in (("127.0.0.1", True), ("127.0.0.2", True), ("127.0.0.3", False)):
        assert gets_in(client("near"), options=(f"BindAddress={address}",)) is does


@pytest.mark.parametrize("kind", [("ecdsa", "-b", "256"), ("ecdsa", "-b", "521"), ("rsa", "-b", "3072")])
def test_other_kinds_of_keys(client, server, keys, kind):
    name = "-".join(kind)
    keys.make(name, "-t", *kind)
    before = (server.keys / "alice").read_text()
    (server.keys / "alice").write_text(before + keys.public(name))
    try:
        assert gets_in(client(name))
        if kind[0] == "rsa":
            assert not gets_in(client(name), options=("PubkeyAcceptedAlgorithms=ssh-rsa",))
    finally:
        (server.keys / "alice").write_text(before)
    # Taken out, it counts at once no more.
    assert not gets_in(client(name))


def test_several_keys(client, keys):
    bad = [f"IdentityFile={keys.make(f'bad-{number}')}" for number in range(9)]
    assert gets_in(client("twice"), options=tuple(bad[:4]))
    done = client("twice").run("true", options=tuple(bad))
    assert done.returncode == 255 and b"Too many authentication attempts" in done.stderr, done


def test_restricted(client):
    done = client("restricted").run("tty", flags=("-tt",))
    assert b"PTY allocation request failed" in done.stderr, done
    assert client("restricted").run("tty").stdout == b"not a tty\n"
    done = client("restricted-pty").run("tty", flags=("-tt",))
    assert done.returncode == 0 and b"/dev/pts/" in done.stdout


def test_forced_commands(client, server):
    forced = client("forced")
    done = forced.run("what", "was 'asked'")
    assert (done.returncode, done.stdout) == (3, b"forced\nwhat was 'asked'\n")
    assert forced.run().stdout == b"forced\n\n"
    assert forced.run(flags=("-tt",)).stdout == b"forced\r\n\r\n"
    assert forced.sftp("ls", check=False).returncode != 0
    (server.root / "offered").write_text("offered")
    only = client("files-only")
    assert "offered" in only.sftp("ls").stdout
    # Whatever is asked for, files are spoken.
    done = only.run("id", input=b"")
    assert b"uid" not in done.stdout


def test_variables_of_a_key(client):
    assert "GREETING=hello" in client("variables").says("env").splitlines()


ALWAYS = ("-V", "20200101:29990101")


@pytest.mark.parametrize("number,options,user,does", [
    (0, ("-n", "alice", *ALWAYS), "alice", True),
    (1, ("-n", "carol,alice", *ALWAYS), "alice", True),
    (2, ("-n", "bob", *ALWAYS), "alice", False),
    (3, ALWAYS, "alice", False),  # Of nobody.
    (4, ("-n", "alice", "-V", "20200101:20200102"), "alice", False),
    (5, ("-n", "alice", "-V", "29980101:29990101"), "alice", False),
    (6, ("-n", "alice", *ALWAYS, "-O", "source-address=127.0.0.0/8"), "alice", True),
    (7, ("-n", "alice", *ALWAYS, "-O", "source-address=10.0.0.0/8"), "alice", False),
    (8, ("-n", "alice", *ALWAYS, "-O", "critical:unheard-of@example.com=1"), "alice", False),
    (9, ("-n", "alice", *ALWAYS, "-O", "extension:unheard-of@example.com"), "alice", True),
    (10, ("-n", "alice", *ALWAYS, "-h"), "alice", False),
    # Somebody who has no file of keys, and needs none.
    (11, ("-n", "carol", *ALWAYS), "carol", True),
])
def test_certificates(client, keys, number, options, user, does):
    keys.sign("authority", f"certified-{number}", *options)
    assert gets_in(client(f"certified-{number}", user)) is does


def test_what_certificates_allow(client, keys):
    keys.sign("authority", "certified-forced", "-n", "alice", "-O", "force-command=echo forced")
    assert client("certified-forced").says("id") == "forced\n"
    keys.sign("authority", "certified-no-pty", "-n", "alice", "-O", "no-pty")
    done = client("certified-no-pty").run("tty", flags=("-tt",))
    assert b"PTY allocation request failed" in done.stderr
    keys.sign("authority", "certified-pty", "-n", "alice")
    assert "/dev/pts/" in client("certified-pty").run("tty", flags=("-tt",)).stdout.decode()


def test_who_signs_certificates(client, keys):
    keys.sign("stranger", "certified-by-stranger", "-n", "alice")
    assert not gets_in(client("certified-by-stranger"))
    # Bob's own line trusts another authority, with names of its own.
    keys.sign("authority-of-bobs", "ops", "-n", "ops")
    assert gets_in(client("ops", "bob")) and not gets_in(client("ops", "alice"))
    keys.sign("authority-of-bobs", "not-ops", "-n", "bob")
    assert not gets_in(client("not-ops", "bob"))
    # A key that is revoked is so with a certificate too.
    keys.sign("authority", "revoked", "-n", "alice")
    assert not gets_in(client("revoked"))


def banner(wire) -> bytes:
    wire.settimeout(PATIENCE)
    return wire.recv(100)


def is_closed(wire) -> bool:
    wire.settimeout(PATIENCE)
    try:
        while wire.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


def test_who_is_silent_is_let_go(start, keys):
    """Silent, only the version, half a key exchange, and one that dribbles."""
    # No other test is so short of time to log in.
    server = start(ssh=True, config="[ssh]\nlogin-grace = 4000\n")
    (server.keys / "alice").write_text(keys.public("alice"))
    begun = time.monotonic()
    with ExitStack() as stack:
        def connect(first: bytes):
            wire = stack.enter_context(socket.create_connection(("127.0.0.1", server.ssh_port)))
            assert banner(wire).startswith(b"SSH-2.0-splengine")
            wire.sendall(first)
            return wire

        quiet = [connect(b""), connect(b"SSH-2.0-x\r\n"), connect(b"SSH-2.0-x\r\n\0\0\1\x2c\x0a\x14" + bytes(50))]
        dribbling = connect(b"SSH-2.0-x\r\n\0\0\1\x2c\x0a\x14")
        assert gets_in(OpenSsh(server, keys.make("alice")))
        while time.monotonic() - begun < PATIENCE:
            try:
                dribbling.sendall(b"\0")
            except ConnectionError:
                break
            if select.select([dribbling], [], [], 0.1)[0] and len(dribbling.recv(1 << 16)) == 0:
                break
        assert all(map(is_closed, quiet))
    # Without it they would have two minutes.
    assert 3 < time.monotonic() - begun < PATIENCE * 2
    nothing_left(server)


def test_who_is_silent_keeps_nobody_out(server, client):
    """One address keeps twenty connections on which nobody logs in, and others log in all the same,
    from there, too."""
    with ExitStack() as stack:
        held = []
        for _ in range(60):
            wire = socket.create_connection(("127.0.0.1", server.ssh_port), source_address=("127.0.0.2", 0))
            held.append(stack.enter_context(wire))
        for source in ("127.0.0.1", "127.0.0.2"):
            done = client("alice").run("true", options=(f"BindAddress={source}",))
            assert done.returncode == 0, done
        eventually(lambda: sum(map(is_open, held)) <= 20, "most are closed")
        # Nobody has to go who is within the bound.
        assert sum(map(is_open, held)) >= 19


def is_open(wire) -> bool:
    wire.setblocking(False)
    try:
        while wire.recv(1 << 16):
            pass
        return False
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("words", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(512), b"x" * 100_000, b"x\r\n" * 20_000,
    b"SSH-1.5-old\r\n", b"SSH-2.0-x\r\n\xff\xff\xff\xff" + bytes(100), b"SSH-2.0-x\r\n\0\0\0\0" + bytes(100),
])
def test_what_is_no_ssh_is_closed(server, client, words):
    with socket.create_connection(("127.0.0.1", server.ssh_port)) as wire:
        try:
            wire.sendall(words)
        except ConnectionError:
            pass
        assert is_closed(wire)
    assert gets_in(client("alice"))


def test_the_log_tells_what_would_let_a_client_in(server, client):
    for option, set_of_it, words in [
        ("KexAlgorithms=ecdh-sha2-nistp256", "compatible", "ecdh-sha2-nistp256"),
        ("KexAlgorithms=diffie-hellman-group14-sha1", "no set of algorithms", "diffie-hellman-group14-sha1"),
    ]:
        done = client("alice").run("true", options=(option,))
        assert done.returncode == 255, done
        logged(server, "no algorithm in common", words, set_of_it)


def test_the_log_tells_of_refused_forwardings(server, client):
    done = client("alice").run(flags=("-W", "127.0.0.1:9"))
    assert done.returncode == 255, done
    logged(server, "a forwarding is refused", "127.0.0.1:9", "no target that is permitted here", "alice")
    client("alice").run("true", flags=("-R", "0:127.0.0.1:9"))
    logged(server, "a forwarding is refused", "listening at", "only connections to permitted targets")


# Passwords.


@pytest.fixture(scope="module")
def with_passwords(tmp_path_factory, keys):
    home = tmp_path_factory.mktemp("ssh")
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=8 << 10, parallelism=1)
    passwords = home / "passwords"
    passwords.touch(0o600)
    passwords.write_text(f"# By argon2-cffi.\nalice:{hasher.hash(PASSWORD)}\nbob:{hasher.hash('other')}\n")
    server = Server(home / "server", ssh=True, config=f'[ssh]\npasswords = "{passwords}"\n')
    (server.keys / "alice").write_text(keys.public("alice"))
    yield server
    assert server.stop() == 0


def by_password(server, keys, tmp_path, password, *options, user="alice"):
    """OpenSSH's client asks a program for it."""
    asker = tmp_path / "asker"
    asker.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/asked\nprintf "%s\\n" "$TOLD"\n')
    asker.chmod(0o700)
    ssh = OpenSsh(server, keys.make("stranger"), user, *options)
    return ssh.run("echo", "in", options=("BatchMode=no", "PubkeyAuthentication=no"), env={
        **os.environ, "SSH_ASKPASS": asker, "SSH_ASKPASS_REQUIRE": "force", "TOLD": password})


@pytest.mark.parametrize("way", ["password", "keyboard-interactive"])
def test_passwords(with_passwords, keys, tmp_path, way):
    only = f"PreferredAuthentications={way}"
    assert by_password(with_passwords, keys, tmp_path, PASSWORD, only).stdout == b"in\n"
    assert len((tmp_path / "asked").read_text().splitlines()) == 1
    (tmp_path / "asked").unlink()
    for user, password in (("alice", "other"), ("nobody", PASSWORD), ("alice", "")):
        done = by_password(with_passwords, keys, tmp_path, password, only, user=user)
        assert done.returncode == 255, done
        assert b"Permission denied (publickey,password,keyboard-interactive)" in done.stderr
        assert len((tmp_path / "asked").read_text().splitlines()) == 3
        (tmp_path / "asked").unlink()
    # Keys go on.
    assert OpenSsh(with_passwords, keys.make("alice")).says("echo", "in") == "in\n"


def test_passwords_are_off_unless_wanted(server, keys, tmp_path):
    done = by_password(server, keys, tmp_path, PASSWORD)
    assert done.returncode == 255 and b"Permission denied (publickey)." in done.stderr
    assert not (tmp_path / "asked").exists()
    # And are not taken from who does not ask.
    with socket.create_connection(("127.0.0.1", server.ssh_port)) as wire, paramiko.Transport(wire) as transport:
        transport.start_client(timeout=PATIENCE)
        with pytest.raises(paramiko.BadAuthenticationType) as refused:
            transport.auth_password("alice", PASSWORD)
        assert refused.value.allowed_types == ["publickey"]


def test_ssh_copy_id(with_passwords, keys, tmp_path):
    """It is told what to do instead, and a key that is known is skipped."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / "ssh").write_text(f"""#!/bin/sh\nexec {shutil.which("ssh")} -F none "$@"\n""")
    (home / "asker").write_text('#!/bin/sh\nprintf "%s\\n" "$TOLD"\n')
    for program in ("ssh", "asker"):
        (home / program).chmod(0o700)
    server_home = Path("~/.ssh/authorized_keys").expanduser()
    before = server_home.read_bytes() if server_home.exists() else None

    def copy(name):
        known = home / "known_hosts"
        known.write_text(f"[127.0.0.1]:{with_passwords.ssh_port} {host_key_of(with_passwords)}\n")
        return subprocess.run(
            ["ssh-copy-id", "-i", keys.make(name), "-p", str(with_passwords.ssh_port),
             "-o", f"UserKnownHostsFile={known}", "-o", "IdentityAgent=none", "alice@127.0.0.1"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
            env={"PATH": f"{home}:{os.environ['PATH']}", "HOME": str(home), "SSH_ASKPASS": str(home / "asker"),
                 "SSH_ASKPASS_REQUIRE": "force", "TOLD": PASSWORD})

    done = copy("stranger")
    assert done.returncode == 1 and "file `alice` in its directory of authorized keys" in done.stderr, done
    assert "added" not in done.stdout, done
    assert (server_home.read_bytes() if server_home.exists() else None) == before
    done = copy("alice")
    assert done.returncode == 0 and "already exist" in done.stderr, done


@pytest.mark.parametrize("password,does", [(PASSWORD, True), ("wrong", False), ("x" * 200_000, False), ("", False)])
def test_paramiko_with_a_password(with_passwords, password, does):
    with socket.create_connection(("127.0.0.1", with_passwords.ssh_port)) as wire:
        with paramiko.Transport(wire) as transport:
            transport.start_client(timeout=PATIENCE)
            if does:
                assert transport.auth_password("alice", password, fallback=False) == []
            else:
                with pytest.raises((paramiko.SSHException, EOFError)):
                    transport.auth_password("alice", password, fallback=False)
            assert transport.is_authenticated() is does


def test_how_long_a_refusal_takes_tells_nothing(with_passwords):
    """Generously: what would tell is the time of a hash, some 0.1 s in this build and much more in
    others."""
    def takes(user) -> float:
        with socket.create_connection(("127.0.0.1", with_passwords.ssh_port)) as wire:
            with paramiko.Transport(wire) as transport:
                transport.start_client(timeout=PATIENCE)
                begun = time.monotonic()
                with pytest.raises(paramiko.AuthenticationException):
                    transport.auth_password(user, "wrong", fallback=False)
                return time.monotonic() - begun

    times = {user: [] for user in ("alice", "bob", "nobody", "in valid", "alice+spl-alice-none")}
    # A busy machine only adds to what each must take: there it is tried more often.
    for attempt in range(12):
        for user, taken in times.items():
            taken.append(takes(user))
        least = [min(taken) for taken in times.values()]
        if attempt >= 3 and max(least) - min(least) < 0.5:
            break
    assert min(least) > 0.25 and max(least) - min(least) < 0.5, times


# The server's own key.


def test_the_host_key_stays(start):
    server, other = start(ssh=True), start(ssh=True)
    key = server.root / "runtime" / "ssh" / "host_ed25519_key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    before = host_key_of(server)
    assert before.startswith("ssh-ed25519 ") and before != host_key_of(other)
    assert shown_by(server) == " ".join(before.split()[:2])
    assert server.stop() == 0
    server.start()
    assert host_key_of(server) == before and shown_by(server) == " ".join(before.split()[:2])


def shown_by(server) -> str:
    done = subprocess.run(["ssh-keyscan", "-p", str(server.ssh_port), "127.0.0.1"], capture_output=True, text=True,
                          timeout=PATIENCE)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(lines) == 1, done
    return lines[0].split(" ", 1)[1]


def test_a_host_key_of_ones_own(start, keys, tmp_path):
    path = keys.make("host")
    server = start(ssh=True, config=f'[ssh]\nhost-keys = ["{path}", "{tmp_path}/made"]\n')
    assert shown_by(server) == " ".join(keys.public("host").split()[:2])
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600


def fails(home, config: str) -> str:
    """What a server complains of that does not start."""
    for name in ("root", "authorized_keys"):
        (home / name).mkdir(mode=0o755, exist_ok=True)
    (home / "config").write_text(f"{config}\n")
    done = subprocess.run(
        [os.environ["SPLENGINE_SERVER"], "--root", home / "root", "--http", "off", "--ws", "off", "--avro", "off",
         "--ssh", "127.0.0.1:0", "--authorized-keys", home / "authorized_keys", "--config", home / "config"],
        capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, ""), done
    *_, complaint = done.stderr.splitlines()
    assert complaint.startswith("error: ") and "panicked" not in done.stderr, done
    return complaint


def test_what_it_does_not_start_with(tmp_path):
    def key(name: str, *options: str, mode=0o600):
        path = tmp_path / name
        keygen(*options, "-f", path)
        path.chmod(mode)
        return path

    for path, words in [
        (key("open", "-t", "ed25519", "-N", "", mode=0o644), "open to others.*0644.*chmod 600"),
        (key("weak", "-t", "ecdsa", "-N", ""), "ecdsa.*only ssh-ed25519"),
        (key("locked", "-t", "ed25519", "-N", "password"), "encrypted.*ssh-keygen -p"),
        (tmp_path / "open.pub", "not a private key|open to others"),
        (tmp_path / "none" / "key", "none/key"),
    ]:
        complaint = fails(tmp_path, f'[ssh]\nhost-keys = ["{path}"]')
        assert "host-keys" in complaint and re.search(words, complaint), complaint
    open_to_all = tmp_path / "passwords"
    open_to_all.write_text("")
    open_to_all.chmod(0o666)
    malformed = tmp_path / "malformed"
    malformed.write_text("alice:$6$salt$hash\n")
    for setting, path, words in [
        ("passwords", open_to_all, "passwords"), ("passwords", malformed, "line 1.*(Argon2id|argon2)"),
        ("passwords", tmp_path / "none", "none"), ("trusted-ca", malformed, "line 1"),
        ("revoked-keys", malformed, "line 1"),
    ]:
        complaint = fails(tmp_path, f'[ssh]\n{setting} = "{path}"')
        assert setting in complaint and re.search(words, complaint) and "$6$" not in complaint, complaint


# Its end.


def test_what_runs_may_end_while_the_server_drains(start, keys):
    server = start(ssh=True, ws=True)
    (server.keys / "alice").write_text(keys.public("alice"))
    ssh = OpenSsh(server, keys.make("alice"))
    go = server.root / "go"
    script = f"echo ready; until [ -e {go} ]; do sleep 0.05; done; echo done; exit 7"
    with ssh.start("sh", "-c", quoted(script)) as running, ssh.start(flags=("-tt",)) as terminal:
        assert running.stdout.readline() == b"ready\n"
        terminal.stdin.write(b"echo here $((40 + 2))\n")
        terminal.stdin.flush()
        while b"here 42" not in terminal.stdout.readline():
            pass
        server.terminate()

        def refused():
            done = ssh.run("true")
            return done.returncode == 255 and done

        done = eventually(refused, "no new work")
        assert done.stderr.strip(), done
        go.touch()
        assert running.stdout.read() == b"done\n"
        assert running.wait(PATIENCE) == 7
        rest = terminal.stdout.read() + terminal.stderr.read()
        assert terminal.wait(PATIENCE) == 255 and b"shutting down" in rest, rest
    assert server.wait() == 0
    eventually(lambda: not sockets(server.ssh_port), "the end of all connections")


def test_what_does_not_end_is_ended_after_the_grace(start, keys):
    server = start("--grace", "1", ssh=True)
    (server.keys / "alice").write_text(keys.public("alice"))
    ssh = OpenSsh(server, keys.make("alice"))
    script = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with ssh.start("sh", "-c", quoted(script)) as running:
        assert running.stdout.readline() == b"ready\n"
        server.terminate()
        assert running.stdout.read() == b"told\n"
        assert running.wait(PATIENCE) != 0
    assert server.wait() == 0
