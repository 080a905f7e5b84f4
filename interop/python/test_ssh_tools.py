"""Tools that work over SSH, as their users set them up: rclone, git, lftp, curl, sshfs, Ansible, Borg, an
editor that works remotely, and libraries of Python, Node and PHP."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import paramiko
import pytest
import scp

from server import PATIENCE, Server
from ssh import OpenSsh, nothing_left


@pytest.fixture(scope="module")
def server(tmp_path_factory, keys):
    server = Server(tmp_path_factory.mktemp("ssh") / "server", ssh=True)
    (server.keys / "alice").write_text(
        keys.public("alice") + f'permitopen="127.0.0.1:*",background="keep" {keys.public("editor")}')
    yield server
    assert server.stop() == 0


@pytest.fixture
def ssh(server, keys):
    yield OpenSsh(server, keys.make("alice"))
    nothing_left(server)


def run(*words, **how) -> subprocess.CompletedProcess:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          timeout=PATIENCE * 2, **how)
    assert done.returncode == 0, f"{done.args[0]}: {done.returncode}\n{done.stdout}\n{done.stderr}"
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


def test_git_packs_a_repository_before_a_push_is_over(ssh, server, tmp_path):
    """By itself it packs in the background, where it would be ended with the push."""
    bare = server.root / "grows.git"
    run("git", "init", "-q", "--bare", "-b", "main", bare)
    # Enough for it to pack what it then finds unpacked.
    run("git", "-C", bare, "config", "gc.auto", "1")
    run("git", "-C", bare, "config", "receive.unpackLimit", "100000")
    env = os.environ | {"GIT_SSH_COMMAND": shlex.join(map(str, ["ssh", "-F", "none", *ssh.options])),
                        "GIT_CONFIG_GLOBAL": "/dev/null"}
    work = tmp_path / "work"
    run("git", "init", "-q", "-b", "main", work)
    for push in range(2):
        for number in range(1500):
            (work / str(number)).write_text(f"{push} {number}")
        run("git", "add", ".", cwd=work)
        run("git", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "more", cwd=work)
        run("git", "push", "-q", f"alice@127.0.0.1:{bare}", "main", cwd=work, env=env)
        counts = dict(line.split(": ") for line in run("git", "-C", bare, "count-objects", "-v").stdout.splitlines())
        assert (counts["count"], counts["packs"], counts["garbage"]) == ("0", str(push + 1), "0"), counts
    assert not (bare / "gc.pid").exists() and not (bare / "gc.log").exists()
    run("git", "-C", bare, "fsck", "--strict")


def test_borg_keeps_archives(ssh, server, tmp_path):
    """Its server is run by a command, to which it talks by standard input and output."""
    here = tmp_path / "here"
    (here / "deep").mkdir(parents=True)
    (here / "deep" / "with blanks 'and quotes'").write_bytes(os.urandom(3_000_000))
    (here / "text").write_text("text " * 100_000)
    os.symlink("text", here / "link")
    env = os.environ | {"BORG_RSH": shlex.join(map(str, ["ssh", "-F", "none", *ssh.options])),
                        "BORG_BASE_DIR": str(tmp_path), "BORG_PASSPHRASE": "secret",
                        "BORG_REPO": f"ssh://alice@127.0.0.1:{server.ssh_port}/./archives"}
    run("borg", "init", "--encryption", "repokey", env=env)
    assert (server.root / "archives" / "config").exists()
    run("borg", "create", "::first", ".", cwd=here, env=env)
    back = tmp_path / "back"
    back.mkdir()
    run("borg", "extract", "::first", cwd=back, env=env)
    run("diff", "-r", "--no-dereference", here, back)
    # By its whole path, too.
    env["BORG_REPO"] = f"ssh://alice@127.0.0.1:{server.ssh_port}{server.root}/archives"
    env["BORG_RELOCATED_REPO_ACCESS_IS_OK"] = "yes"
    assert run("borg", "list", "--short", env=env).stdout.split() == ["first"]


def test_scp_by_python(server, keys, tmp_path):
    here = tmp_path / "here"
    (here / "deep").mkdir(parents=True)
    (here / "deep" / "with blanks 'and quotes'").write_bytes(os.urandom(1_000_000))
    (here / "empty").touch()
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect("127.0.0.1", server.ssh_port, "alice", key_filename=str(keys.make("alice")), allow_agent=False,
                       look_for_keys=False, timeout=PATIENCE)
        with scp.SCPClient(client.get_transport(), socket_timeout=PATIENCE) as copier:
            copier.put(str(here), "by-python", recursive=True, preserve_times=True)
            run("diff", "-r", here, server.root / "by-python")
            copier.get("by-python", str(tmp_path / "back"), recursive=True)
            run("diff", "-r", here, tmp_path / "back")
            copier.get("by-python/deep/with blanks 'and quotes'", str(tmp_path / "one"))
            run("diff", here / "deep" / "with blanks 'and quotes'", tmp_path / "one")
            with pytest.raises(scp.SCPException, match="does not exist"):
                copier.get("none", str(tmp_path))
    nothing_left(server)


# The first steps of an editor that works remotely, as its logs show them: what it starts goes on, and is
# reached at a port of its own.
STEPS = r"""
echo "7f3a: running"
uname -rsv
export VSCODE_AGENT_FOLDER="$PWD/.vscode-server"
mkdir -p $VSCODE_AGENT_FOLDER && cd "$VSCODE_AGENT_FOLDER" && echo content > file
command -v bash tar python3 > /dev/null && echo "tools==yes=="
if [ ! -f .pid ] || ! kill -0 "$(cat .pid)" 2> /dev/null; then
  ( nohup python3 -u -m http.server 0 --bind 127.0.0.1 > log 2>&1 & echo $! > .pid )
fi
until grep -q 'port [0-9]' log; do sleep 0.05; done
echo "pid==$(cat .pid)=="
echo "listeningOn==$(grep -o 'port [0-9]*' log | cut -d' ' -f2)=="
echo "7f3a: end"
"""


def test_the_steps_of_an_editor_that_works_remotely(server, keys, tmp_path):
    def steps(ssh, does_reach: bool) -> int:
        """The number of the process that it starts, or that it finds."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            proxy = free.getsockname()[1]
        with ssh.start("bash", "--login", "-c", "bash", flags=("-T", "-D", f"127.0.0.1:{proxy}")) as shell:
            shell.stdin.write(STEPS.encode())
            shell.stdin.flush()
            said = ""
            while "7f3a: end" not in said:
                line = shell.stdout.readline().decode()
                assert line, (said, shell.stderr.read())
                said += line
            told = dict(re.findall(r"(\w+)==(.*)==", said))
            assert told["tools"] == "yes", said
            done = subprocess.run(
                ["curl", "-sS", "--noproxy", "", "--max-time", str(PATIENCE), "--socks5", f"127.0.0.1:{proxy}",
                 f"http://127.0.0.1:{told['listeningOn']}/file"], capture_output=True, text=True)
            assert (done.returncode == 0 and done.stdout == "content\n") is does_reach, done
            # It is still there.
            shell.stdin.write(b"echo on\n")
            shell.stdin.close()
            assert shell.stdout.read() == b"on\n" and shell.wait(PATIENCE) == 0
        return int(told["pid"])

    editor = OpenSsh(server, keys.make("editor"))
    try:
        # It is found again by the next connection.
        first = steps(editor, True)
        assert steps(editor, True) == first
    finally:
        os.kill(int((server.root / ".vscode-server" / ".pid").read_text()), signal.SIGTERM)
    nothing_left(server)
    # What such a key allows, and no other.
    steps(OpenSsh(server, keys.make("alice")), False)
    nothing_left(server)


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


def test_npms_ssh2(ssh, server, keys):
    program = Path(__file__).parents[1] / "node" / "ssh2.cjs"
    done = json.loads(run("node", program, server.ssh_port, "alice", keys.make("alice")).stdout)
    assert done["ran"] == {"stdout": "typed", "stderr": "err\n", "code": 7}
    assert (done["read"], done["link"]) == ("content", "by-npm")
    assert {"by-npm", "link-by-npm"} <= set(done["names"])
    assert os.readlink(server.root / "link-by-npm") == "by-npm"


PHP_SSH2 = r"""
[, $port, $key, $root] = $argv;
$session = ssh2_connect('127.0.0.1', (int) $port);
ssh2_auth_pubkey_file($session, 'alice', "$key.pub", $key) or exit(1);
$stream = ssh2_exec($session, "sh -c 'echo out; exit 7'");
stream_set_blocking($stream, true);
echo stream_get_contents($stream);
$sftp = ssh2_sftp($session);
// Its paths begin with a slash: they are the real ones.
$at = 'ssh2.sftp://' . intval($sftp) . $root;
file_put_contents("$at/by-php", 'content') or exit(2);
echo file_get_contents("$at/by-php"), "\n";
ssh2_sftp_symlink($sftp, 'by-php', "$root/link-by-php") or exit(4);
ssh2_scp_send($session, $key . '.pub', 'scp-by-php', 0600) or exit(3);
"""


def test_php_by_libssh2(ssh, server, keys):
    key = keys.make("alice")
    assert run("php", "-r", PHP_SSH2, "--", server.ssh_port, key, server.root).stdout == "out\ncontent\n"
    assert (server.root / "by-php").read_text() == "content"
    assert os.readlink(server.root / "link-by-php") == "by-php"
    assert (server.root / "scp-by-php").read_text() == key.with_suffix(".pub").read_text()


PHPSECLIB = r"""
require '/usr/share/php/phpseclib3/autoload.php';
[, $port, $key] = $argv;
$sftp = new phpseclib3\Net\SFTP('127.0.0.1', (int) $port, 10);
$sftp->login('alice', phpseclib3\Crypt\PublicKeyLoader::load(file_get_contents($key))) or exit(1);
$sftp->put('by-phpseclib', 'content') or exit(2);
// Its first argument is the target.
$sftp->symlink('by-phpseclib', 'link-by-phpseclib') or exit(3);
echo $sftp->readlink('link-by-phpseclib'), ' ', $sftp->get('by-phpseclib');
"""


def test_php_by_phpseclib(ssh, server, keys):
    said = run("php", "-r", PHPSECLIB, "--", server.ssh_port, keys.make("alice")).stdout
    assert said == "by-phpseclib content"
    assert os.readlink(server.root / "link-by-phpseclib") == "by-phpseclib"


@pytest.fixture
def mounted(ssh, server, tmp_path):
    """The directory `mount` of the server, by sshfs."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse here, which sshfs needs")
    (server.root / "mount").mkdir()
    at = tmp_path / "mounted"
    at.mkdir()
    options = [word for option in ssh.options if option != "-o" for word in ("-o", option)]
    done = subprocess.run(["sshfs", *options, "-o", "ssh_command=ssh -F none", "alice@127.0.0.1:mount", at],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    if done.returncode and "fuse" in done.stderr and "ermi" in done.stderr:
        pytest.skip(f"sshfs may not mount here: {done.stderr.strip()}")
    assert done.returncode == 0, f"{done.args[0]}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    yield at
    run("fusermount3", "-u", at)


def test_sshfs(mounted, server):
    files = [(mounted / str(number)).open("w+") for number in range(300)]
    for number, file in enumerate(files):
        file.write(str(number))
        file.close()
    assert [(server.root / "mount" / str(number)).read_text() for number in (0, 299)] == ["0", "299"]
    assert len(os.listdir(mounted)) == 300
    (mounted / "0").rename(mounted / "renamed")
    (mounted / "link").symlink_to("renamed")
    assert (mounted / "link").read_text() == "0" and os.readlink(mounted / "link") == "renamed"
    data = os.urandom(2_000_000)
    (mounted / "large").write_bytes(data)
    assert (server.root / "mount" / "large").read_bytes() == (mounted / "large").read_bytes() == data


def test_ansible(ssh, server, keys, tmp_path):
    (tmp_path / "hosts").write_text(
        f"ours ansible_host=127.0.0.1 ansible_port={server.ssh_port} ansible_user=alice "
        f"ansible_ssh_private_key_file={keys.make('alice')} ansible_python_interpreter={sys.executable} "
        f"ansible_remote_tmp={server.root}/ansible\n")
    (tmp_path / "play.yml").write_text(f"""
- hosts: ours
  gather_facts: false
  tasks:
    - copy: {{content: copied, dest: "{server.root}/by-ansible"}}
    - command: cat {server.root}/by-ansible
      register: read
    - assert: {{that: read.stdout == 'copied'}}
    - shell: echo $((1 + 1)) | tr 2 3
      register: piped
    - assert: {{that: piped.stdout == '3'}}
    - command: sleep 0.2
      async: 20
      poll: 1
""")
    tool = Path(sys.executable).with_name("ansible-playbook")
    # It begins tasks that it waits for later in the background.
    common = shlex.join(map(str, ["-F", "none", *ssh.options, "-o", "SetEnv=SPL_BACKGROUND=keep",
                                  "-o", "ControlMaster=auto", "-o", "ControlPersist=2"]))
    env = os.environ | {"ANSIBLE_SSH_ARGS": common, "ANSIBLE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path),
                        "ANSIBLE_ASYNC_DIR": f"{server.root}/async", "ANSIBLE_DEVEL_WARNING": "0"}
    said = run(tool, "-i", tmp_path / "hosts", tmp_path / "play.yml", env=env).stdout
    assert "failed=0" in said and "unreachable=0" in said, said
    assert (server.root / "by-ansible").read_text() == "copied"
