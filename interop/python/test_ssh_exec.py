"""Commands over SSH, by OpenSSH's client: how they end, what they print and read, what they leave."""

import hashlib
import os
import random
import signal
import subprocess
import time
from threading import Thread

import pytest

from server import PATIENCE, Server, eventually, marker, processes
from ssh import Master, OpenSsh, Reader, nothing_left, quoted, rss, sockets

SLOW = PATIENCE * 4


@pytest.fixture(scope="module")
def server(tmp_path_factory, keys):
    server = Server(tmp_path_factory.mktemp("ssh") / "server", ssh=True)
    (server.keys / "alice").write_text(keys.public("alice"))
    yield server
    assert server.stop() == 0


@pytest.fixture
def ssh(server, keys) -> OpenSsh:
    return OpenSsh(server, keys.make("alice"))


def sha256(stream) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def exits(run, codes):
    """Each code arrives, with both streams whole."""
    for code in codes:
        done = run("sh", "-c", f"'echo out-{code}; echo err-{code} >&2; exit {code}'")
        assert (done.returncode, done.stdout, done.stderr) == (
            code, f"out-{code}\n".encode(), f"err-{code}\n".encode())


def test_exit_codes_over_fresh_connections(ssh):
    exits(ssh.run, [0, 1, 2, 126, 127, 128, 130, 143, 254, 255, *random.sample(range(256), 50)])


def test_exit_codes_over_one_connection(ssh, tmp_path):
    with Master(ssh, tmp_path / "master") as master:
        exits(master.run, random.choices(range(256), k=200))


def test_a_signal_is_told(ssh):
    done = ssh.run("sh", "-c", "'echo before; kill -TERM $$'", options=("LogLevel=DEBUG1",))
    assert (done.returncode, done.stdout) == (255, b"before\n")
    assert b"rtype exit-signal" in done.stderr and b"rtype exit-status" not in done.stderr


def test_names_that_are_no_text(ssh, server, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    (server.root / name).write_text("found")
    assert ssh.says("cat", name) == "found"
    for copy in (lambda *words: ssh.scp("-O", *words), ssh.scp, ssh.rsync):
        copy(ssh.at(name), tmp_path / "back")
        assert (tmp_path / "back").read_text() == "found"
        (tmp_path / "back").unlink()


def test_input_ends_where_the_clients_does(ssh):
    assert ssh.says("cat", input=b"one\ntwo") == "one\ntwo"
    assert ssh.says("wc", "-c", input=b"") == "0\n"
    assert ssh.says("wc", "-c", flags=("-n",), input=b"never sent") == "0\n"


def test_streams_are_apart_and_whole(ssh):
    script = "head -c 8000000 /dev/zero; head -c 8000000 /dev/zero | tr '\\0' e >&2; echo end"
    done = ssh.run("sh", "-c", quoted(script))
    assert done.returncode == 0
    assert done.stdout == bytes(8_000_000) + b"end\n"
    assert done.stderr == b"e" * 8_000_000


def test_words_are_split_as_a_shell_does_and_no_more(ssh):
    said = ssh.says("""printf '<%s>\\n' 'a b' "c \\"d" e\\ f '' '$HOME' "$(id)" \\* '*' '`id`' ';' """)
    assert said.splitlines() == [
        "<a b>", '<c "d>', "<e f>", "<>", "<$HOME>", "<$(id)>", "<*>", "<*>", "<`id`>", "<;>"]


def test_a_script_at_standard_input_is_run_by_a_shell(ssh):
    done = ssh.run(input=b"echo one\nif read line; then echo \"$line\"; fi\nread by the script\nexit 7\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"one\nread by the script\n", b"")


def test_variables(ssh):
    offered = {
        "LANG": "de_DE.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "LD_PRELOAD": "/none", "PATH": "/none",
        "BASH_ENV": "/none", "FOO": "bar", "CANARY": "mine",
    }
    settings = "SetEnv=" + " ".join(f"{name}={value}" for name, value in offered.items())
    seen = dict(line.split("=", 1) for line in ssh.says("env", options=(settings,)).splitlines())
    assert {name: seen.get(name) for name in ("LANG", "LC_ALL", "TZ")} == {
        "LANG": "de_DE.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"}
    assert not {"LD_PRELOAD", "BASH_ENV", "FOO", "CANARY"} & seen.keys()
    assert seen["PATH"] != "/none"
    assert seen["SPL_SESSION_ID"].startswith("spl-alice-")
    sent = ssh.run("env", options=("SendEnv=LANG FOO",), env={**os.environ, "LANG": "C.UTF-8", "FOO": "bar"})
    assert b"LANG=C.UTF-8" in sent.stdout.splitlines() and b"FOO" not in sent.stdout


def test_a_session_lends_its_directory(ssh, server):
    (server.root / "data" / "there").mkdir(parents=True, exist_ok=True)
    with server.client() as http:
        made = http.post("/api/v1/sessions", json={"command": "sh", "workdir": "data/there"}).json()["sessionId"]
        try:
            where = ssh.says("sh", "-c", quoted("pwd; echo $SPL_SESSION_ID"), options=(f"SetEnv=SPL_SESSION_ID={made}",))
            assert where.splitlines() == [str(server.root / "data" / "there"), made]
            assert ssh.says("pwd", user=f"alice+{made}") == f"{server.root}/data/there\n"
        finally:
            http.delete(f"/api/v1/sessions/{made}")


@pytest.mark.parametrize("command,code,words", [
    ("no-such-program", 127, "`no-such-program` was not found"),
    ("/", 126, "it is not a file"),
    ("sh 'x", 255, "quote is never closed"),
    ("echo a; echo b", 2, "`;` outside of quotes"),
    ("echo `id`", 2, "a backtick outside of quotes"),
    ("' '", 127, "not found"),
    ("  ", 255, "no command"),
])
def test_refusals_are_in_words(ssh, command, code, words):
    done = ssh.run(command)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in done.stderr.decode() and done.stderr.count(b"\n") == 1, done.stderr


def test_no_such_session(ssh):
    for how in ({"user": "alice+spl-alice-none"}, {"options": ("SetEnv=SPL_SESSION_ID=spl-alice-none",)}):
        done = ssh.run("true", **how)
        assert done.returncode == 255
        assert b"spl-alice-none" in done.stderr, done


def test_a_subsystem_that_is_none(ssh):
    done = ssh.run("netconf", flags=("-s",))
    assert done.returncode == 255 and b"subsystem request failed" in done.stderr


def test_200_mb_each_way(ssh, server, blob):
    path, digest = blob
    os.link(path, server.root / "blob")
    with ssh.start("cat", server.root / "blob") as down:
        assert sha256(down.stdout) == digest
        assert down.wait(SLOW) == 0
    with path.open("rb") as file:
        assert ssh.says("sha256sum", stdin=file, timeout=SLOW).split()[0] == digest


@pytest.mark.parametrize("cipher,megabytes", [
    ("aes256-gcm@openssh.com", 200),
    ("chacha20-poly1305@openssh.com", 200),
    # Its parts are slow where they are not built for speed.
    ("aes256-ctr", 24),
])
def test_new_keys_while_much_flows(ssh, server, blob, cipher, megabytes):
    path, _ = blob
    part = server.root / f"part-{cipher}"
    with path.open("rb") as file:
        data = file.read(megabytes * 1_000_000)
    part.write_bytes(data)
    options = (f"Ciphers={cipher}", "RekeyLimit=1M", "LogLevel=DEBUG1")
    with ssh.start("cat", part, options=options, stdin=subprocess.DEVNULL) as down:
        log = Reader(down.stderr)
        assert sha256(down.stdout) == hashlib.sha256(data).hexdigest()
        assert down.wait(SLOW) == 0
        # One more for the first.
        assert log.all().count(b"SSH2_MSG_NEWKEYS received") > megabytes // 2
    few = data[:megabytes * 100_000]
    assert ssh.says("sha256sum", options=options[:2], input=few, timeout=SLOW).split()[0] == (
        hashlib.sha256(few).hexdigest())
    part.unlink()


def test_a_slow_reader_gets_everything(ssh):
    with ssh.start("sh", "-c", quoted("head -c 3500000 /dev/zero; echo end; exit 9")) as slow:
        # As much as the pipe, the window and the buffers of both ends hold is there at once.
        reader = Reader(slow.stdout, rate=1 << 16)
        time.sleep(3)  # Reading slowly is what this is about.
        reader.rate = None
        assert reader.all() == bytes(3_500_000) + b"end\n"
        assert slow.wait(PATIENCE) == 9


def test_a_client_that_waits_before_it_reads(ssh):
    """What it sends comes back, so both windows fill."""
    with ssh.start("cat") as both:
        data = random.randbytes(30_000_000)
        writer = Thread(target=lambda: (both.stdin.write(data), both.stdin.close()), daemon=True)
        writer.start()
        time.sleep(2)  # Not reading is what this is about.
        assert both.stdout.read() == data
        writer.join(PATIENCE)
        assert both.wait(PATIENCE) == 0


def test_a_client_that_goes_away_ends_its_run(ssh, server):
    for end in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        mark = marker()
        with ssh.start("sh", "-c", quoted(f"sleep {mark} & yes")) as client:
            assert client.stdout.readline() == b"y\n"
            assert processes(mark)
            client.send_signal(end)
            client.communicate(timeout=PATIENCE)
        eventually(lambda: not processes(mark), "the end of the run")
    nothing_left(server)


def test_a_background_child_does_not_hold_the_end(ssh):
    mark = marker()
    done = ssh.run("sh", "-c", quoted(f"sleep {mark} & echo done"))
    assert (done.returncode, done.stdout) == (0, b"done\n")
    eventually(lambda: not processes(mark), "the end of what it left behind")


def test_ten_on_one_connection_of_which_some_stall(ssh, server, tmp_path):
    mark = marker()
    ssh.says("true")
    before = rss(server)
    master = Master(ssh, tmp_path / "master")
    with open("/dev/zero", "rb") as zeros:
        deaf = master.start("sleep", mark, stdin=zeros)
    # It reads nothing of what it is sent.
    blind = master.start("sh", "-c", quoted(f": {mark}; cat /dev/zero"), stdin=subprocess.DEVNULL)
    eventually(lambda: len(processes(mark)) >= 4, "the two that stall")
    others = [master.start("sh", "-c", f"'read line; echo {each} $line; exit {each}'") for each in range(8)]
    begun = time.monotonic()
    for other in others:
        other.stdin.write(b"hello\n")
        other.stdin.close()
    for each, other in enumerate(others):
        assert other.stdout.read() == f"{each} hello\n".encode()
        assert other.wait(PATIENCE) == each
        other.stdout.close(), other.stderr.close()
    for _ in range(20):
        assert master.run("true").returncode == 0
    assert time.monotonic() - begun < PATIENCE
    assert rss(server) - before < 64 << 20
    assert deaf.poll() is None and blind.poll() is None
    master.kill()
    for stalled in (deaf, blind):
        stalled.kill()
        stalled.communicate()
    eventually(lambda: not processes(mark), "the end of the runs")
    nothing_left(server)
    assert not sockets(server.ssh_port, "08")


def test_many_clients_leave_nothing(ssh, server):
    """However they go."""
    nothing_left(server)
    descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))
    for _ in range(5):
        running = [ssh.start("sh", "-c", quoted("yes & cat")) for _ in range(4)]
        for client in running:
            client.stdout.read(2)
            client.kill()
            client.communicate()
    nothing_left(server)
    eventually(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= descriptors, "files closed")


def test_forwarding_is_refused(ssh, tmp_path):
    done = ssh.run(flags=("-W", "127.0.0.1:1"))
    assert done.returncode == 255 and b"stdio forwarding failed" in done.stderr, done
    for way in (["-R", "0:127.0.0.1:1"], ["-R", f"{tmp_path}/there:{tmp_path}/here"]):
        done = ssh.run("true", flags=way, options=("ExitOnForwardFailure=yes",))
        assert done.returncode == 255 and b"forwarding failed" in done.stderr, done
    done = ssh.run("env", flags=("-A", "-X"), env={**os.environ, "DISPLAY": ":0"})
    assert done.returncode == 0 and not any(name in done.stdout for name in (b"SSH_AUTH_SOCK", b"DISPLAY"))
