"""The server as process 1 of a container: it reaps what others leave, and steals nothing."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server import children, eventually, marker, processes

RUNS = int(os.environ.get("SPLENGINE_TEST_RUNS", "300"))
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

# Children that are orphaned at once, in several ways; most end when nobody of the run is left.
ORPHANS = """
(setsid sh -c 'sh -c "exit 3" & (sh -c "exit 4" &) ; exit 5' &)
(sh -c 'exit 6' &)
(exit 7) &
exit $1
"""


@pytest.fixture(params=["without cgroup", "with cgroup"])
def namespaced(start, request):
    allowed = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    if os.geteuid() != 0 or allowed.returncode != 0:
        pytest.skip(f"no new process namespace here: {allowed.stderr.strip() or 'not root'}")
    if request.param == "without cgroup":
        yield start(prefix=UNSHARE, config='[cgroup]\nmode = "off"\n')
        return
    # One of its own, as a container has.
    cgroup = own_cgroup()
    yield (server := start(prefix=UNSHARE, config=f'[cgroup]\nmode = "{cgroup}"\n'))
    server.stop()
    for directory, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(directory)


def own_cgroup() -> Path:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    mounted = next((mount for _, mount, kind, *_ in mounts if kind == "cgroup2"), None)
    if mounted is None:
        pytest.skip("no cgroup of version 2 here")
    own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    cgroup = Path(mounted) / own / f"splengine-interop.{os.getpid()}"
    try:
        cgroup.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    return cgroup


def zombies(server) -> list[int]:
    return [pid for pid, state in children(server.pid).items() if state == "Z"]


def test_it_is_process_1(namespaced):
    with namespaced.client() as client:
        answer = client.post("/execute", json={"command": "sh -c 'echo $PPID'"}).json()
    assert answer["stdout"] == "1\n"
    # The signal that `docker stop` sends. Process 1 gets none that it does not handle.
    namespaced.terminate()
    assert namespaced.wait() == 0


def test_no_exit_code_is_lost_and_no_zombie_is_left(namespaced):
    (namespaced.root / "orphans").write_text(ORPHANS)
    with namespaced.client() as client, ThreadPoolExecutor(8) as pool:
        def run(number):
            background = ("kill", "keep")[number % 2]
            body = {"command": f"sh orphans {number % 200}", "background": background}
            answer = client.post("/execute", json=body)
            return answer.status_code, answer.json()["reason"], answer.json()["exitCode"]

        ends = list(pool.map(run, range(RUNS)))
    assert ends == [(200, "exited", number % 200) for number in range(RUNS)]
    eventually(lambda: not children(namespaced.pid), "that nothing is left")
    namespaced.terminate()
    assert namespaced.wait() == 0


def test_orphans_are_reaped(namespaced):
    """A health check of the container's, say, that leaves something behind."""
    mark = marker()
    subprocess.run(
        ["nsenter", "--target", str(namespaced.pid), "--pid", "sh", "-c",
         f"for n in 1 2 3 4 5 6 7 8; do (setsid sleep {mark} &); done"],
        check=True, timeout=60,
    )
    def orphaned():
        found = set(processes(mark)) & children(namespaced.pid).keys()
        return found if len(found) == 8 else None

    orphans = eventually(orphaned, "orphans that became children of process 1")
    with namespaced.client() as client:
        # Runs go on amidst it, and none of them takes a orphan for its own.
        answer = client.post("/execute", json={"command": "sh -c 'exit 12'"}).json()
        assert answer["exitCode"] == 12
        # While one becomes `sleep` it has no command line.
        eventually(lambda: set(processes(mark)) == orphans, "all orphans")
        for orphan in orphans:
            os.kill(orphan, signal.SIGKILL)
        answer = client.post("/execute", json={"command": "sh -c 'exit 13'"}).json()
        assert answer["exitCode"] == 13
    eventually(lambda: not orphans & children(namespaced.pid).keys(), "their burial")
    assert zombies(namespaced) == []
