"""SSH clients: their keys, how they are started, and what they leave behind."""

import os
import shlex
import subprocess
import threading
import time
from pathlib import Path

from server import PATIENCE, Server, children, eventually


STREAMS = ("stdin", "stdout", "stderr")


class Keys:
    """Keys of clients, made by ssh-keygen, each in a file of its name."""

    def __init__(self, home: Path):
        home.mkdir(mode=0o700, exist_ok=True)
        self.home = home

    def make(self, name: str, *options: str) -> Path:
        path = self.home / name
        if not path.exists():
            kind = options or ("-t", "ed25519")
            keygen(*kind, "-N", "", "-C", name, "-f", path)
        return path

    def public(self, name: str) -> str:
        return self.make(name).with_suffix(".pub").read_text()

    def sign(self, authority: str, name: str, *options: str) -> Path:
        """The key with a certificate beside it."""
        path = self.make(name)
        keygen("-s", self.make(authority), "-I", name, *options, path.with_suffix(".pub"))
        return path


def quoted(script: str) -> str:
    """One word of a command."""
    return "'" + script.replace("'", "'\\''") + "'"


def keygen(*words) -> str:
    done = subprocess.run(["ssh-keygen", "-q", *words], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


class OpenSsh:
    """OpenSSH's programs, as somebody uses them who has one key and knows the server's."""

    def __init__(self, server: Server, key: Path, user: str = "alice", *options: str, host_key: str | None = None):
        self.server = server
        self.user = user
        known = server.root.parent / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.ssh_port} {host_key or host_key_of(server)}\n")
        self.options = []
        for option in [
            f"Port={server.ssh_port}", f"IdentityFile={key}", "IdentitiesOnly=yes", "IdentityAgent=none",
            "BatchMode=yes", f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=yes", "LogLevel=ERROR", f"ConnectTimeout={PATIENCE}", *options,
        ]:
            self.options += ["-o", option]

    def command(self, *words, flags: tuple = (), user: str | None = None, options: tuple = ()) -> list:
        # The first of options that are given twice counts.
        first = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", *first, *self.options, *flags, f"{user or self.user}@127.0.0.1", *words]

    def run(self, *words, timeout=PATIENCE, **how) -> subprocess.CompletedProcess:
        """Runs `ssh` to its end."""
        command, how = self._split(words, how)
        if "input" not in how:
            how.setdefault("stdin", subprocess.DEVNULL)
        if "stdout" not in how:
            how.setdefault("capture_output", True)
        return subprocess.run(command, timeout=timeout, **how)

    def says(self, *words, **how) -> str:
        """What a command prints that succeeds."""
        done = self.run(*words, **how)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode()

    def start(self, *words, **how) -> subprocess.Popen:
        command, how = self._split(words, how)
        return subprocess.Popen(command, **{stream: subprocess.PIPE for stream in STREAMS} | how)

    def _split(self, words, how: dict) -> tuple[list, dict]:
        ours = {name: how.pop(name) for name in ("flags", "user", "options") if name in how}
        return self.command(*words, **ours), how

    def sftp(self, *lines: str, check: bool = True, options: tuple = ()) -> subprocess.CompletedProcess:
        """A batch of sftp."""
        done = subprocess.run(
            ["sftp", "-F", "none", *options, *self.options, "-b", "-", f"{self.user}@127.0.0.1"],
            input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=PATIENCE * 2)
        assert not check or done.returncode == 0, done
        return done

    def scp(self, *words, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run(["scp", "-F", "none", *self.options, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE * 2)
        assert not check or done.returncode == 0, done
        return done

    def rsync(self, *words, check: bool = True) -> subprocess.CompletedProcess:
        shell = shlex.join(map(str, ["ssh", "-F", "none", *self.options]))
        done = subprocess.run(["rsync", "-e", shell, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE * 2)
        assert not check or done.returncode == 0, done
        return done

    def at(self, path: str) -> str:
        """As scp and rsync name a file of the server."""
        return f"{self.user}@127.0.0.1:{path}"


class Master:
    """One connection of `ssh` that others share."""

    def __init__(self, client: OpenSsh, socket: Path):
        self.client = client
        self.socket = socket
        self.process = client.start(flags=("-M", "-N"), options=(f"ControlPath={socket}",))
        eventually(lambda: socket.exists() or self.process.poll() is not None, "the master's socket")
        assert socket.exists(), self.process.stderr.read()

    def options(self) -> tuple[str, ...]:
        # Never one of its own.
        return (f"ControlPath={self.socket}", "ControlMaster=no", "ProxyCommand=false")

    def run(self, *words, **how) -> subprocess.CompletedProcess:
        return self.client.run(*words, options=self.options(), **how)

    def start(self, *words, **how) -> subprocess.Popen:
        return self.client.start(*words, options=self.options(), **how)

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class SmallClient:
    """PuTTY's `plink` or Dropbear's `dbclient`, with one key and the server's public one."""

    def __init__(self, program: str, server: Server, key: Path, home: Path, host_key: str | None = None):
        self.env = {**os.environ, "HOME": str(home)}
        own = home / "key"
        if program == "plink":
            self._convert("puttygen", key, "-o", own, "-O", "private")
            (home / "host.pub").write_text(f"{host_key or host_key_of(server)}\n")
            fingerprint = keygen("-l", "-f", home / "host.pub").split()[1]
            self.words = ["plink", "-batch", "-ssh", "-noagent", "-no-antispoof", "-i", own, "-hostkey", fingerprint,
                          "-P", str(server.ssh_port), "alice@127.0.0.1"]
        else:
            self._convert("dropbearconvert", "openssh", "dropbear", key, own)
            (home / ".ssh").mkdir()
            self.words = ["dbclient", "-y", "-i", own, "-p", str(server.ssh_port), "alice@127.0.0.1"]

    def _convert(self, *words):
        done = subprocess.run(words, capture_output=True, env=self.env, timeout=PATIENCE)
        assert done.returncode == 0, done

    def run(self, line: str, **how) -> subprocess.CompletedProcess:
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **how}
        if "input" in how:
            del how["stdin"]
        return subprocess.run([*self.words, line], stderr=subprocess.PIPE, env=self.env, timeout=PATIENCE * 2, **how)


def host_key_of(server: Server) -> str:
    """The public half of the key that the server made."""
    return keygen("-y", "-f", server.root / "runtime" / "ssh" / "host_ed25519_key").strip()


def rss(server: Server) -> int:
    """Bytes of memory."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


def descendants(pid: int) -> set[int]:
    found = set(children(pid))
    return found.union(*map(descendants, found))


def sockets(port: int, state: str | None = None) -> list[str]:
    """The connections of a server's port, as /proc/net/tcp has them: CLOSE-WAIT is 08."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [line for line in lines if line[1].endswith(f":{port:04X}")]
    # The listener is 0A, what only waits for its time 06.
    return [line[3] for line in ours if (line[3] not in ("0A", "06") if state is None else line[3] == state)]


def nothing_left(server: Server):
    """No process, no connection."""
    eventually(lambda: not descendants(server.pid), "the end of all processes")
    eventually(lambda: not sockets(server.ssh_port), "the end of all connections")


class Reader(threading.Thread):
    """Reads all there is, at a pace of its own."""

    def __init__(self, stream, rate: int | None = None):
        super().__init__(daemon=True)
        self.stream, self.rate = stream, rate
        self.data = bytearray()
        self.start()

    def run(self):
        while piece := os.read(self.stream.fileno(), 1 << 16 if self.rate is None else self.rate // 10):
            self.data += piece
            if self.rate is not None:
                time.sleep(0.1)

    def all(self, timeout=PATIENCE) -> bytes:
        self.join(timeout)
        assert not self.is_alive(), f"no end after {len(self.data)} bytes"
        return bytes(self.data)


def logged(server: Server, *needles: str):
    """Waits for a line of the server's log that has all of these."""
    def found():
        return [line for line in server.log.read_text().splitlines() if all(needle in line for needle in needles)]
    eventually(found, f"{needles} in the log")
