"""Files over SSH: OpenSSH's sftp and scp, and rsync."""

import filecmp
import hashlib
import os
import stat
import subprocess

import pytest

from server import Server, eventually
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


@pytest.fixture
def root(server, request):
    """A directory of the test's own, below root."""
    path = server.root / request.node.name.replace("[", "-").rstrip("]")
    path.mkdir()
    return path


@pytest.fixture
def tree(tmp_path):
    """What is worth copying."""
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "nothing").touch()
    (tree / "with blanks and 'quotes'").write_bytes(b"one\n")
    (tree / "deep" / "größe").write_bytes(os.urandom(100_000))
    (tree / "deep" / "er" / "program").write_bytes(b"#!/bin/sh\n")
    (tree / "deep" / "er" / "program").chmod(0o755)
    (tree / "deep" / "link").symlink_to("er/program")
    for path in tree.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1_600_000_000, 1_600_000_000))
    return tree


def listing(tree):
    """All that is in it but times of directories."""
    found = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = (path.read_bytes(), stat.S_IMODE(path.stat().st_mode), int(path.stat().st_mtime))
    return found


def sha256(path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_batch_of_sftp(ssh, root, tmp_path):
    (tmp_path / "here").write_bytes(b"content\n")
    at = str(root)
    said = ssh.sftp(
        f"cd {at}", "pwd", f"lcd {tmp_path}", "put here", "mkdir sub", "rename here sub/there", "ln -s sub/there soft",
        "chmod 640 sub/there", "get soft back", "ls -la", "df", "get sub/there again", "ls -l sub",
    ).stdout
    assert f"Remote working directory: {at}" in said
    assert (tmp_path / "back").read_bytes() == (tmp_path / "again").read_bytes() == b"content\n"
    assert sorted(path.name for path in root.iterdir()) == ["soft", "sub"]
    assert stat.S_IMODE((root / "sub" / "there").stat().st_mode) == 0o640
    assert os.readlink(root / "soft") == "sub/there"
    assert "-rw-r-----" in said and "Avail" in said
    ssh.sftp(f"cd {at}", "rm soft", "rm sub/there", "rmdir sub")
    assert not any(root.iterdir())
    ssh.sftp(f"cd {at}", f"put {tmp_path}/here", "ln here second", "cp here third")
    assert (root / "second").stat().st_ino == (root / "here").stat().st_ino != (root / "third").stat().st_ino
    assert (root / "third").read_bytes() == b"content\n"


def test_errors_are_in_words_and_end_a_batch(ssh, root):
    (root / "full").mkdir()
    (root / "full" / "file").touch()
    for line, words in [
        ("get none", "not found"), ("rmdir full", "Failure|not empty"), ("mkdir full", "Failure|exists"),
        ("cd none", "No such file"),
        ("rm none", "No such file"), ("rename none other", "No such file"), ("chmod 600 none", "No such file"),
        ("ls none", "not found|No such file"), ("put /etc/hostname none/deep", "No such file"),
    ]:
        done = ssh.sftp(f"cd {root.name}", line, "mkdir never", check=False)
        assert done.returncode == 1, (line, done)
        assert any(word in done.stderr for word in words.split("|")), (line, done.stderr)
    assert not (root / "never").exists()


def test_trees_by_sftp(ssh, root, tree, tmp_path):
    (tree / "deep" / "link").unlink()  # sftp follows links, and says so.
    ssh.sftp(f"put -Rp {tree} {root.name}/")
    assert listing(root / "tree") == listing(tree)
    ssh.sftp(f"get -Rp {root.name}/tree {tmp_path}/back")
    assert listing(tmp_path / "back") == listing(tree)


def test_200_mb_each_way_and_the_rest_of_half(ssh, root, blob, tmp_path):
    path, digest = blob
    ssh.sftp(f"put {path} {root.name}/up")
    assert sha256(root / "up") == digest
    ssh.sftp(f"get {root.name}/up {tmp_path}/down")
    assert sha256(tmp_path / "down") == digest
    os.truncate(tmp_path / "down", 150_000_001)
    os.truncate(root / "up", 150_000_001)
    ssh.sftp(f"reput {path} {root.name}/up", f"reget {root.name}/up {tmp_path}/down")
    assert sha256(root / "up") == sha256(tmp_path / "down") == digest
    (root / "up").unlink()


def test_only_what_is_below_root(ssh, server, root, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (root / "absolute").symlink_to(secret)
    (root / "climbing").symlink_to("../../" * 20 + str(secret)[1:])
    (root / "directory").symlink_to(tmp_path)
    (root / "to-runtime").symlink_to("../runtime")
    for name in (str(secret), f"../../..{secret}", f"{root.name}/absolute", f"{root.name}/climbing",
                 f"{root.name}/directory/secret", "runtime/ssh/host_ed25519_key",
                 f"{root.name}/to-runtime/ssh/host_ed25519_key", f"{root.name}/../runtime/ssh/host_ed25519_key"):
        assert ssh.sftp(f"get {name} {tmp_path}/got", check=False).returncode == 1, name
        assert ssh.scp(ssh.at(f"/{name}"), tmp_path / "got", check=False).returncode == 1, name
        assert not (tmp_path / "got").exists(), name
    here = tmp_path / "here"
    here.write_text("mine")
    for name in (f"{root.name}/directory/new", "runtime/new", f"/../..{tmp_path}/new"):
        assert ssh.sftp(f"put {here} {name}", check=False).returncode == 1, name
    assert ssh.sftp(f"rm {root.name}/directory/secret", check=False).returncode == 1
    assert secret.read_text() == "secret" and not (tmp_path / "new").exists()
    # What is on the way to root shows the way there alone; what is the engine's own is not shown.
    said = ssh.sftp("pwd", "cd ..", "pwd").stdout
    assert f"Remote working directory: {server.root}\n" in said
    assert f"Remote working directory: {server.root.parent}\n" in said
    said = ssh.sftp("cd ..", "ls -1", f"cd {server.root.name}", "pwd").stdout.splitlines()
    assert said[said.index("sftp> ls -1") + 1:][:1] == [server.root.name], said
    assert said[-1] == f"Remote working directory: {server.root}"
    # Nothing is made there.
    assert ssh.sftp(f"mkdir {server.root.parent}/new", check=False).returncode == 1
    assert not (server.root.parent / "new").exists()
    names = ssh.sftp("ls -1").stdout.splitlines()
    assert root.name in names and "runtime" not in names, names
    # A link that leads outside can be made, as it can by a command; it is not followed.
    ssh.sftp(f"ln -s {secret} {root.name}/made", check=False)
    assert ssh.sftp(f"get {root.name}/made {tmp_path}/got", check=False).returncode == 1


def test_scp(ssh, root, tree, tmp_path):
    (tree / "deep" / "link").unlink()  # It follows links.
    ssh.scp("-rp", tree, ssh.at(f"{root}/"))
    assert listing(root / "tree") == listing(tree)
    ssh.scp("-rp", ssh.at(f"{root.name}/tree"), tmp_path / "back")
    assert listing(tmp_path / "back") == listing(tree)
    ssh.scp(ssh.at(f"{root.name}/tree/deep/er/*"), tmp_path)
    assert (tmp_path / "program").read_bytes() == b"#!/bin/sh\n"
    # From one place of the server to another, through the client.
    ssh.scp("-3", ssh.at(f"{root}/tree/deep/er/program"), ssh.at(f"{root}/copy"))
    assert (root / "copy").read_bytes() == b"#!/bin/sh\n"


def test_scp_of_large_files(ssh, root, tmp_path):
    content = os.urandom(20_000_000)
    (root / "large").write_bytes(content)
    for number in range(3):
        ssh.scp(ssh.at(f"{root}/large"), tmp_path / "back")
        assert filecmp.cmp(root / "large", tmp_path / "back", shallow=False), number
        ssh.scp(tmp_path / "back", ssh.at(f"{root}/again"))
        assert filecmp.cmp(root / "large", root / "again", shallow=False), number


def test_the_old_protocol_of_scp(ssh, root, tree, tmp_path):
    (tree / "deep" / "link").unlink()  # It follows links.
    ssh.scp("-O", "-rp", tree, ssh.at(f"{root}/"))
    assert listing(root / "tree") == listing(tree)
    ssh.scp("-O", "-rp", ssh.at(f"{root.name}/tree"), tmp_path / "back")
    assert listing(tmp_path / "back") == listing(tree)
    ssh.scp("-O", ssh.at(f"{root.name}/tree/deep/er/*"), tmp_path)
    assert (tmp_path / "program").read_bytes() == b"#!/bin/sh\n"
    for words in ([ssh.at(f"{root.name}/none"), tmp_path], [tmp_path / "program", ssh.at("/etc/none")]):
        done = ssh.scp("-O", *words, check=False)
        assert done.returncode != 0 and "none" in done.stderr, done
    content = os.urandom(20_000_000)
    (tmp_path / "large").write_bytes(content)
    ssh.scp("-O", tmp_path / "large", ssh.at(f"{root.name}/large"))
    ssh.scp("-O", ssh.at(f"{root.name}/large"), tmp_path / "large-back")
    assert filecmp.cmp(tmp_path / "large", tmp_path / "large-back", shallow=False)


def test_rsync(ssh, root, tree, tmp_path):
    there = f"{root}/tree/"
    ssh.rsync("-a", f"{tree}/", ssh.at(there))
    assert listing(root / "tree") == listing(tree)
    # What has not changed is not sent again.
    again = ssh.rsync("-ai", f"{tree}/", ssh.at(there))
    assert again.stdout == ""
    (tree / "deep" / "größe").write_bytes(os.urandom(90_000))
    (tree / "nothing").unlink()
    ssh.rsync("-az", "--delete", "--checksum", f"{tree}/", ssh.at(there))
    assert listing(root / "tree") == listing(tree)
    back = tmp_path / "back"
    back.mkdir()
    (back / "superfluous").touch()
    ssh.rsync("-a", "--delete", ssh.at(there), f"{back}/")
    assert listing(back) == listing(tree)
    # A name that is not absolute is below root too.
    ssh.rsync("-a", ssh.at(f"{root.name}/tree/deep/er/program"), tmp_path / "one")
    assert filecmp.cmp(tree / "deep" / "er" / "program", tmp_path / "one")


def test_rsync_with_directories_beside_and_patterns(ssh, root, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    (here / "a.log").write_text("a")
    (here / "b c.log").write_text("b")
    ssh.rsync("-a", f"{here}/", ssh.at(f"{root.name}/day1/"))
    ssh.rsync("-a", "--link-dest=../day1", f"{here}/", ssh.at(f"{root.name}/day2/"))
    ssh.rsync("-a", f"--link-dest={root}/day1", f"{here}/", ssh.at(f"{root}/day3/"))
    inodes = {(root / day / "a.log").stat().st_ino for day in ("day1", "day2", "day3")}
    assert len(inodes) == 1, inodes
    (here / "a.log").write_text("changed")
    ssh.rsync("-a", "--backup", "--backup-dir=../old", f"{here}/", ssh.at(f"{root.name}/day1/"))
    assert (root / "old" / "a.log").read_text() == "a"
    for number, flags in enumerate([["-a"], ["-a", "-s"]]):
        back = tmp_path / f"back{number}"
        ssh.rsync(*flags, ssh.at(f"{root.name}/day1/*.log"), f"{back}/")
        assert sorted(path.name for path in back.iterdir()) == ["a.log", "b c.log"]
        ssh.rsync(*flags, f"{here}/", ssh.at(f"{root.name}/with blanks/"))
        assert (root / "with blanks" / "b c.log").read_text() == "b"


def test_rsync_stays_below_root(ssh, server, root, tmp_path):
    (tmp_path / "secret").write_text("secret")
    for name in ("../secret", f"{root.name}/../../secret", f"/..{tmp_path}/secret", str(tmp_path / "secret")):
        done = ssh.rsync("-a", ssh.at(name), tmp_path / "got", check=False)
        assert done.returncode != 0 and not (tmp_path / "got").exists(), name
    done = ssh.rsync("-a", tmp_path / "secret", ssh.at("../new"), check=False)
    assert done.returncode != 0 and "outside root" in done.stderr and not (server.root.parent / "new").exists()


def test_rsync_of_all_of_root_leaves_out_what_is_hidden(keys, start, tmp_path):
    server = start(ssh=True)
    (server.keys / "alice").write_text(keys.public("alice"))
    ssh = OpenSsh(server, keys.make("alice"))
    (server.root / "runtime" / "kept").write_text("kept")
    (server.root / "old").write_text("old")
    small = tmp_path / "small"
    small.mkdir()
    (small / "new").write_text("new")
    ssh.rsync("-a", "--delete", f"{small}/", ssh.at(f"{server.root}/"))
    assert sorted(path.name for path in server.root.iterdir()) == ["new", "runtime"]
    assert (server.root / "runtime" / "kept").read_text() == "kept"
    for number, name in enumerate(["", f"{server.root}/", ".", "./"]):
        ssh.rsync("-a", ssh.at(name), f"{tmp_path}/back{number}/")
        assert [path.name for path in (tmp_path / f"back{number}").iterdir()] == ["new"], name
    done = ssh.rsync("-a", ssh.at("runtime/kept"), tmp_path, check=False)
    assert done.returncode != 0 and "is not there" in done.stderr
    done = ssh.rsync("-a", "--backup", "--backup-dir=/tmp/bk", f"{small}/", ssh.at("./"), check=False)
    assert done.returncode != 0 and "outside root" in done.stderr


def test_50_mb_by_rsync_each_way(ssh, root, tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(50_000_000))
    ssh.rsync("-a", tmp_path / "large", ssh.at(f"{root}/"))
    ssh.rsync("-a", ssh.at(f"{root}/large"), tmp_path / "back")
    assert sha256(root / "large") == sha256(tmp_path / "back") == sha256(tmp_path / "large")


def test_a_client_that_is_cut_off_leaves_nothing_half(ssh, server, root, blob):
    """What it was writing is there as far as it came; no handle is left."""
    path, _ = blob
    descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))
    assert ssh.run("sftp", flags=("-s",), input=b"").returncode == 0
    cut = subprocess.Popen(["sftp", "-F", "none", *ssh.options, "-l", "20000", f"{ssh.user}@127.0.0.1"],
                           stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cut.stdin.write(f"put {path} {root.name}/cut\n".encode())
    cut.stdin.flush()
    eventually(lambda: (root / "cut").exists() and (root / "cut").stat().st_size, "some of the file")
    cut.kill()
    cut.communicate()
    nothing_left(server)
    assert (root / "cut").stat().st_size < path.stat().st_size
    eventually(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= descriptors, "files closed")
