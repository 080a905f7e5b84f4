"""The all-in-one server, started for some tests and ended with them; and looking at processes."""

import json
import os
import secrets
import select
import signal
import subprocess
import time
from pathlib import Path

import httpx

TOKEN = "alice-" + secrets.token_hex(16)
BOB = "bob-" + secrets.token_hex(16)
AUTH = {"Authorization": f"Bearer {TOKEN}"}
NDJSON = {"Accept": "application/x-ndjson"}
# For what takes milliseconds on a quiet machine. Tests run on slow and noisy ones too.
PATIENCE = 30


class Server:
    """A server of its own process on free ports of loopback, with the users `alice` and `bob`."""

    def __init__(self, home: Path, *flags: str, config: str = "", prefix: tuple[str, ...] = (),
                 ws: bool = False, avro: bool = False, ssh: bool = False, tokens: bool = True):
        self.root = home / "root"
        self.root.mkdir(parents=True)
        # Tests that show what is wrong must not shut out the others.
        if "[guessing]" not in config:
            config += '\n[guessing]\nexempt = ["127.0.0.1", "::1"]\n'
        (home / "config.toml").write_text(config)
        tokens_file = home / "tokens"
        tokens_file.touch(0o600)
        tokens_file.write_text(f"alice={TOKEN}\nbob={BOB}\n")
        self.log = home / "log"
        self.prefix = prefix
        wanted = {"ws": ws, "ssh": ssh, "avro": avro}
        servers = [word for name, on in wanted.items() for word in (f"--{name}", "127.0.0.1:0" if on else "off")]
        if ws:
            servers += ["--shell", "/bin/sh"]
        if ssh:
            # A file for each user, of the keys that let them in.
            self.keys = home / "authorized_keys"
            self.keys.mkdir(mode=0o755)
            servers += ["--authorized-keys", self.keys]
        known = ["--tokens", tokens_file] if tokens else []
        self.command = [*prefix, os.environ["SPLENGINE_SERVER"], "--root", self.root,
                        "--http", "127.0.0.1:0", *servers, "--config", home / "config.toml",
                        *known, *flags]
        self.start()

    def start(self):
        """Starts it, or once it ended starts it again over the same root."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=log,
                # Nothing of the caller's environment, but a secret that no run may see.
                env={"PATH": os.environ["PATH"], "CANARY": "do-not-tell"},
            )
        try:
            self.ready = json.loads(self._first_line())
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        # Where something else started it, that waits for it as its only child.
        self.pid = next(iter(children(self.process.pid))) if self.prefix else self.process.pid
        self.url = f"http://{self.ready['http']}"
        host, port = self.ready["http"].rsplit(":", 1)
        self.address = (host, int(port))
        if "ssh" in self.ready:
            self.ssh_port = int(self.ready["ssh"].rsplit(":", 1)[1])
        if "ws" in self.ready:
            self.ws_url = f"ws://{self.ready['ws']}/terminal"
            self.origin = f"http://{self.ready['ws']}"

    def _first_line(self) -> bytes:
        stdout, line = self.process.stdout.fileno(), b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([stdout], [], [], PATIENCE)
            byte = os.read(stdout, 1) if readable else b""
            if not byte:
                raise RuntimeError(f"no ready line, but {line!r}; log: {self.log.read_text()}")
            line += byte
        return line

    def client(self, token: str = TOKEN, **options) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    def stop(self) -> int:
        """Asks it to drain; its exit code."""
        if self.process.poll() is None:
            self.terminate()
        return self.wait()

    def kill(self):
        """Ends it with no chance to prepare."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()


def marker() -> str:
    """A number of seconds for `sleep`, long, and in no other command line."""
    return f"300.{secrets.randbelow(10**12):012}"


def processes(mark: str) -> list[int]:
    """The live processes with `mark` in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass  # It ended while we looked.
    return found


def children(parent: int) -> dict[int, str]:
    """The children of a process, and the state of each."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # The name, in brackets, may hold blanks.
            state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(ppid) == parent:
            found[int(entry.name)] = state
    return found


def eventually(condition, what: str):
    """Waits until `condition()` holds, for what gives no signal of its own; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not seen within {PATIENCE} s: {what}"
        time.sleep(0.02)
    return value


def events(response: httpx.Response) -> list[dict]:
    """The events of an NDJSON answer, with what every such stream must keep to checked."""
    assert response.status_code == 200, response.read()
    assert response.headers["content-type"].split(";")[0] == "application/x-ndjson"
    return checked([json.loads(line) for line in response.iter_lines() if line.strip()])


def checked(seen: list[dict]) -> list[dict]:
    kinds = [event["type"] for event in seen]
    assert kinds[0] == "started" and kinds[-1] == "exit" and kinds.count("exit") == 1, kinds
    first = seen[0]["seq"]
    assert [event["seq"] for event in seen] == list(range(first, first + len(seen)))
    return seen


def text(seen: list[dict], stream: str) -> str:
    return "".join(event["data"] for event in seen if event["type"] == stream)


def assert_problem(response: httpx.Response, status: int) -> dict:
    """An error as every client may expect it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].split(";")[0] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status and problem["title"] and problem["detail"]
    assert problem["error"] == problem["detail"]
    # Nothing of the inside: no source file, no type of ours, no panic.
    assert not any(word in response.text for word in (".rs", "::", "panicked", TOKEN, BOB))
    return problem
