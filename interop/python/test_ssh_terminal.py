"""Terminals over SSH: OpenSSH's client on a terminal of this host, and the session behind it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from server import PATIENCE, Server, eventually, marker, processes
from ssh import Master, OpenSsh, quoted, sockets
from test_terminal import Terminal

SESSIONS = "/api/v1/sessions"


class Typist:
    """A terminal with `ssh` in it."""

    def __init__(self, ssh: OpenSsh, *words, cols=100, rows=30, env=None, modes=None, **how):
        self.master, slave = pty.openpty()
        try:
            self.resize(cols, rows)
            if modes:
                attributes = termios.tcgetattr(slave)
                modes(attributes)
                termios.tcsetattr(slave, termios.TCSANOW, attributes)
            self.process = subprocess.Popen(
                ssh.command(*words, **{"flags": ("-tt",), **how}),
                stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm-256color", **(env or {})},
                start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        finally:
            os.close(slave)
        self.seen = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def resize(self, cols, rows):
        # Whatever has the terminal gets SIGWINCH.
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text: str):
        os.write(self.master, text.encode())

    def read(self, until: float) -> bool:
        """Whether there was something."""
        readable, _, _ = select.select([self.master], [], [], max(0, until - time.monotonic()))
        if not readable:
            raise AssertionError(f"nothing more came after {self.seen[-2000:]!r}")
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # Nobody has the other end any more.
            return False
        self.seen += data
        return bool(data)

    def shows(self, pattern: str) -> re.Match:
        """Waits until that is in what it shows, and forgets all up to there."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern.encode(), self.seen)):
            assert self.read(deadline), f"ended, and showed {self.seen[-2000:]!r}, not {pattern!r}"
        self.seen = self.seen[found.end():]
        return found

    def rest(self) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while self.read(deadline):
            pass
        return self.seen

    def exits(self) -> int:
        self.rest()
        return self.process.wait(PATIENCE)

    def session(self) -> str:
        """The id of the session whose shell this is."""
        self.type("echo id=$SPL_SESSION_ID.\r")
        return self.shows(r"id=(spl-[\w-]+)\.")[1].decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory, keys):
    server = Server(tmp_path_factory.mktemp("ssh") / "server", ssh=True, ws=True)
    (server.keys / "alice").write_text(f"{keys.public('alice')}view-only {keys.public('viewer')}")
    (server.keys / "bob").write_text(keys.public("bob"))
    yield server
    assert server.stop() == 0


@pytest.fixture
def ssh(server, keys) -> OpenSsh:
    return OpenSsh(server, keys.make("alice"))


@pytest.fixture
def http(server):
    with server.client() as http:
        yield http
        # They outlive their clients.
        for session in http.get(SESSIONS).json()["sessions"]:
            http.delete(f"{SESSIONS}/{session['sessionId']}")


@pytest.fixture(autouse=True)
def tidy(http):
    pass


def test_size_kind_and_modes_are_there_from_the_start(ssh):
    def modes(attributes):
        attributes[0] &= ~termios.IXON
        attributes[6][termios.VERASE] = b"\x08"
        attributes[6][termios.VINTR] = b"\x07"

    script = "stty size; echo $TERM; stty -a; test -t 0 && test -t 1 && test -t 2 && tty"
    with Typist(ssh, "sh", "-c", quoted(script), cols=101, rows=37, modes=modes) as there:
        shown = there.rest().decode()
        assert there.exits() == 0
    assert shown.startswith("37 101\r\nxterm-256color\r\n"), shown
    assert "erase = ^H" in shown and "intr = ^G" in shown and "-ixon" in shown and "/dev/pts/" in shown


def test_without_a_terminal_of_its_own(ssh):
    """As a script does that asks for one all the same."""
    done = ssh.run("sh", "-c", quoted("stty size; exit 3"), flags=("-tt",))
    assert (done.returncode, done.stdout) == (3, b"24 80\r\n")


def test_resizes_while_there_is_output(ssh):
    # It prints without end, and the size at each change of it.
    script = "trap 'stty size' WINCH; echo ready; while :; do echo line; sleep 0.01; done"
    with Typist(ssh, "sh", "-c", quoted(script)) as there:
        there.shows("ready")
        for cols in range(20, 120):
            there.resize(cols, 40)
        there.resize(133, 44)
        there.shows(r"\b44 133\r\n")


def test_keys(ssh):
    with Typist(ssh) as there:
        there.session()
        for key in ("\x03", "\x1c"):
            mark = marker()
            there.type(f"sleep {mark}\r")
            eventually(lambda: processes(mark), "it runs")
            there.type(key)
            eventually(lambda: not processes(mark), "its end by a key")
            there.type("echo back $((40 + 2))\r")
            there.shows("back 42")
        mark = marker()
        there.type(f"set -m; sleep {mark}\r")
        eventually(lambda: processes(mark), "it runs")
        there.type("\x1a")
        there.type("jobs; kill -9 %1; wait; echo gone $((40 + 2))\r")
        there.shows("Stopped|Suspended")
        there.shows("gone 42")
        there.type("cat\rtyped\r")
        # The prompt may come only after the echo of what was typed.
        there.shows(r"typed\r\n([#$] )?typed\r\n")
        there.type("\x04exit 5\r")
        assert there.exits() == 5


@pytest.mark.parametrize("end,code", [("\x04", 0), ("exit 200\r", 200), ("kill -9 $$\r", 255)])
def test_how_a_session_ends(ssh, end, code):
    with Typist(ssh) as there:
        there.session()
        there.type(end)
        assert there.exits() == code


def test_the_escape_character_ends_the_client_only(ssh, http):
    with Typist(ssh) as there:
        session = there.session()
        there.type("\r~.")
        assert there.exits() == 255
    assert http.get(f"{SESSIONS}/{session}").json()["state"] == "running"


def test_all_output_arrives(ssh):
    with Typist(ssh, "seq", "100000") as there:
        assert there.rest() == b"".join(b"%d\r\n" % line for line in range(1, 100001))
        assert there.exits() == 0


@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGKILL])
def test_hanging_up_leaves_it_running(ssh, server, http, end):
    with Typist(ssh) as there:
        session = there.session()
        there.type("X=kept; cd /; echo marked $((40 + 2))\r")
        there.shows("marked 42")
        there.process.send_signal(end)
        there.process.wait(PATIENCE)
    path = f"{SESSIONS}/{session}"
    eventually(lambda: http.get(path).json()["clients"] == 0, "nobody is attached")
    assert http.get(path).json()["state"] == "running"
    for how in ({"user": f"alice+{session}"}, {"options": (f"SetEnv=SPL_SESSION_ID={session}",)}):
        with Typist(ssh, **how, cols=90, rows=20) as again:
            # What was on the screen is drawn.
            again.shows("marked 42")
            again.type("echo $X-$PWD-$((40 + 2)); stty size\r")
            again.shows("kept-/-42\r\n20 90\r\n")
    with Typist(ssh, user=f"alice+{session}") as again:
        again.type("exit 6\r")
        assert again.exits() == 6
    # Its record stays for a while.
    with Typist(ssh, user=f"alice+{session}") as late:
        assert late.exits() == 6


def test_the_same_over_websocket(ssh, server):
    with Typist(ssh) as there:
        session = there.session()
        with Terminal(server, f"?session={session}") as page:
            page.until("session")
            there.type("echo by ssh $((40 + 2))\r")
            page.shows("by ssh 42")
            there.shows("by ssh 42")
            page.send("input", data="echo by page $((40 + 2))\r")
            there.shows("by page 42")
            page.shows("by page 42")
            there.kill()
            page.send("input", data="echo still $((40 + 2))\r")
            page.shows("still 42")


def test_two_clients_see_the_same(ssh):
    with Typist(ssh) as one:
        session = one.session()
        with Typist(ssh, user=f"alice+{session}") as other:
            other.type("echo both $((40 + 2))\r")
            one.shows("both 42"), other.shows("both 42")
            other.kill()
        one.type("echo one $((40 + 2)); exit\r")
        one.shows("one 42")
        assert one.exits() == 0


def test_many_at_one_connection(ssh, tmp_path):
    with Master(ssh, tmp_path / "master") as master:
        typists = [Typist(ssh, options=master.options()) for _ in range(5)]
        assert len({each.session() for each in typists}) == 5
        for number, each in enumerate(typists):
            each.type(f"exit {number}\r")
        assert [each.exits() for each in typists] == list(range(5))
        for each in typists:
            each.kill()


def test_who_may_only_look(ssh, server, keys):
    viewer = OpenSsh(server, keys.make("viewer"))
    with Typist(ssh) as there:
        session = there.session()
        with Typist(viewer, user=f"alice+{session}") as looks:
            looks.type("echo typed-$((40 + 2))\r")
            there.type("echo shown $((40 + 2))\r")
            looks.shows("shown 42")
            there.shows("shown 42")
            # A key before and one after have arrived by now.
            there.type("echo then $((40 + 2))\r")
            there.shows("then 42")
            looks.shows("then 42")
            assert b"typed-42" not in there.seen + looks.seen
    for words in (["true"], []):
        done = viewer.run(*words)
        assert done.returncode == 255 and done.stderr.count(b"\n") == 1, done
    with Typist(viewer) as own:
        assert own.exits() == 255
    assert viewer.sftp("ls", check=False).returncode != 0


def test_a_session_that_is_none_or_somebody_elses(ssh, server, keys):
    with Typist(ssh) as there:
        session = there.session()
        for client, wanted in ((ssh, "spl-alice-none"), (OpenSsh(server, keys.make("bob"), "bob"), session)):
            for how in ({"user": f"{client.user}+{wanted}"}, {"options": (f"SetEnv=SPL_SESSION_ID={wanted}",)}):
                with Typist(client, **how) as none:
                    none.shows(f"no such session: {wanted}\r\n")
                    assert none.exits() == 255


def test_a_session_that_is_closed_ends_its_clients(ssh, http):
    with Typist(ssh) as there:
        session = there.session()
        assert http.delete(f"{SESSIONS}/{session}").status_code == 204
        assert there.exits() == 255


def test_clients_that_go_leave_no_connection(ssh, server):
    for _ in range(5):
        with Typist(ssh, "cat") as there:
            there.type("here\r")
            there.shows("here\r\nhere")
    eventually(lambda: not sockets(server.ssh_port), "the end of all connections")
