"""Tools that work over SSH, as their users set them up: rclone, git, lftp, curl."""

import os
import shlex
import subprocess

import pytest

from server import PATIENCE, Server
from ssh import OpenSsh, nothing_left


@pytest.fixture(scope="module")
def server(tmp_path_factory, keys):
    server = Server(tmp_path_factory.mktemp("ssh") / "server", ssh=True)
    (server.keys / "alice").write_text(keys.public("alice"))
    yield server
    assert server.stop() == 0


@pytest.fixture
def ssh(server, keys):
    yield OpenSsh(server, keys.make("alice"))
    nothing_left(server)


def run(*words, **how) -> subprocess.CompletedProcess:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          timeout=PATIENCE * 2, **how)
    assert done.returncode == 0, done
    return done


def test_rclone_as_it_comes(ssh, server, keys, tmp_path):
    conf = tmp_path / "conf"
    conf.write_text(f"[ours]\ntype = sftp\nhost = 127.0.0.1\nport = {server.ssh_port}\nuser = alice\n"
                    f"key_file = {keys.make('alice')}\n")
    here = tmp_path / "here"
    (here / "deep").mkdir(parents=True)
    (here / "a.txt").write_text("newer content")
    (here / "deep" / "with blanks 'and quotes'").write_bytes(os.urandom(100_000))
    (server.root / "rc").mkdir()
    (server.root / "rc" / "a.txt").write_text("old")
    run("rclone", "--config", conf, "copy", here, "ours:rc")
    assert (server.root / "rc" / "a.txt").read_text() == "newer content"
    run("rclone", "--config", conf, "check", here, "ours:rc")
    run("rclone", "--config", conf, "sync", f"ours:{server.root}/rc", tmp_path / "back")
    run("diff", "-r", here, tmp_path / "back")


def test_git_by_both_kinds_of_address(ssh, server, tmp_path):
    bare = server.root / "repository.git"
    run("git", "init", "-q", "--bare", "-b", "main", bare)
    env = os.environ | {"GIT_SSH_COMMAND": shlex.join(map(str, ["ssh", "-F", "none", *ssh.options])),
                        "GIT_CONFIG_GLOBAL": "/dev/null"}
    work = tmp_path / "work"
    run("git", "init", "-q", "-b", "main", work)
    (work / "file").write_text("content")
    run("git", "add", ".", cwd=work)
    run("git", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "one", cwd=work)
    run("git", "push", "-q", f"ssh://alice@127.0.0.1:{server.ssh_port}{bare}", "main", cwd=work, env=env)
    for number, address in enumerate([f"alice@127.0.0.1:{bare}", "alice@127.0.0.1:repository.git"]):
        run("git", "clone", "-q", address, tmp_path / f"clone{number}", env=env)
        assert (tmp_path / f"clone{number}" / "file").read_text() == "content"


def test_curl_by_sftp_and_scp(ssh, server, keys, tmp_path):
    key = keys.make("alice")
    curl = ["curl", "-sS", "-k", "--key", key, "--pubkey", key.with_suffix(".pub"), "-u", "alice:"]
    data = os.urandom(300_000)
    (tmp_path / "up").write_bytes(data)
    for scheme in ("sftp", "scp"):
        at = f"{scheme}://127.0.0.1:{server.ssh_port}{server.root}/by-{scheme}"
        run(*curl, "-T", tmp_path / "up", at)
        assert (server.root / f"by-{scheme}").read_bytes() == data
        run(*curl, "-o", tmp_path / "down", at)
        assert (tmp_path / "down").read_bytes() == data
    said = run(*curl, f"sftp://127.0.0.1:{server.ssh_port}/~/").stdout
    assert "by-sftp" in said


def test_lftp_mirrors(ssh, server, tmp_path):
    here = tmp_path / "here"
    (here / "deep").mkdir(parents=True)
    (here / "deep" / "file").write_bytes(os.urandom(100_000))
    connect = shlex.join(map(str, ["ssh", "-a", "-x", "-F", "none", *ssh.options]))
    script = (f"set sftp:connect-program {shlex.quote(connect)}; open -u alice, sftp://127.0.0.1:{server.ssh_port}; "
              f"mirror -R {here} {server.root}/mirror; mirror mirror {tmp_path}/back; bye")
    run("lftp", "--norc", "-c", script, env=os.environ | {"HOME": str(tmp_path)})
    run("diff", "-r", here, tmp_path / "back")
    run("diff", "-r", here, server.root / "mirror")
