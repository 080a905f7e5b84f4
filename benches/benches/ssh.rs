//! The SSH server against OpenSSH's sshd, both asked by OpenSSH's client with the same keys, exchange
//! and ciphers: what a command prints, commands over new connections and over one that is shared,
//! and the memory of idle connections.
//!
//! `cargo bench -p benches --bench ssh`, with Debian's `openssh-client` and `openssh-server`; as root,
//! since sshd wants to be

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use benches::terminals::memory_of;
use benches::{Times, report, timed};
use splengine_core::net::ConnectionLimits;
use splengine_core::{Engine, LocalExecutor};
use splengine_ssh::{HostKeys, SshServer, Users};

const OUTPUT: u64 = 500 << 20;
const OUTPUT_ROUNDS: usize = 5;
const COMMANDS: usize = 100;
const IDLE: usize = 200;

fn main() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(sshd) = Sshd::start(home.path()) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ours = runtime.block_on(ours(home.path()));
    let sides = [Side::new(home.path(), "ours", ours), Side::new(home.path(), "sshd", sshd.addr)];

    for cipher in ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        let times = in_turn(&sides, OUTPUT_ROUNDS, |side| side.output(cipher));
        let [ours, theirs] =
            times.map(|times| (OUTPUT >> 20) as f64 / times.median().as_secs_f64());
        let what = format!("output of a command, {cipher}, against sshd");
        report(&what, ours, theirs, "MiB/s", "at least 1.0x");
    }

    let millis = |times: Times| times.median().as_secs_f64() * 1e3;
    let new = in_turn(&sides, COMMANDS, |side| side.run(&["-S", "none"]));
    let [ours, theirs] = new.map(millis);
    report("`ssh host true`, new connections", ours, theirs, "ms", "at most 0.8x");
    let masters = sides.each_ref().map(Side::master);
    let shared =
        in_turn(&sides, COMMANDS, |side| side.run(&["-S", side.socket.to_str().expect("UTF-8")]));
    drop(masters);
    let [ours, theirs] = shared.map(millis);
    report("`ssh host true`, one connection", ours, theirs, "ms", "at most 0.8x");

    let own = std::process::id();
    let ours = idle_memory(&sides[0], || memory_of(own));
    let theirs = idle_memory(&sides[1], || sshd.memory());
    report("memory of an idle connection, of 200", ours, theirs, "KiB", "at most 0.25x");
}

/// What each of many idle connections takes, in KiB.
fn idle_memory(side: &Side, memory: impl Fn() -> u64) -> f64 {
    // What is made once is not counted.
    let _first = side.idle();
    let before = memory();
    let _held: Vec<Killed> = (0..IDLE).map(|_| side.idle()).collect();
    memory().saturating_sub(before) as f64 / IDLE as f64 / 1024.0
}

fn in_turn<const N: usize>(sides: &[Side; N], rounds: usize, work: impl Fn(&Side)) -> [Times; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (side, times) in sides.iter().zip(&mut times) {
            times.push(timed(|| work(side)));
        }
    }
    times.map(Times::new)
}

async fn ours(home: &Path) -> SocketAddr {
    let engine = Engine::builder(LocalExecutor::new(home).expect("set up")).build().expect("built");
    let users = Users::new().authorized_keys(home.join("keys"));
    let keys = HostKeys::open_or_create(home.join("host")).expect("made");
    let server = SshServer::builder(engine)
        .users(users)
        .connection_limits(
            ConnectionLimits::new().max_unauthenticated(500).max_unauthenticated_per_address(500),
        )
        .bind("127.0.0.1:0", &keys)
        .await
        .expect("bound");
    let addr = server.local_addr().tcp().expect("of TCP");
    tokio::spawn(async { server.await });
    addr
}

/// A server, as OpenSSH's client is told of it.
struct Side {
    config: PathBuf,
    socket: PathBuf,
}

impl Side {
    fn new(home: &Path, name: &str, addr: SocketAddr) -> Self {
        let config = home.join(format!("{name}.conf"));
        let socket = home.join(format!("{name}.sock"));
        // The same exchange for both: that of newer clients would be ours alone.
        let text = format!(
            "Host host\n HostName {}\n Port {}\n User root\n IdentityFile {}\n IdentitiesOnly yes\n \
             UserKnownHostsFile {}\n StrictHostKeyChecking accept-new\n LogLevel ERROR\n \
             KexAlgorithms curve25519-sha256\n PermitLocalCommand yes\n",
            addr.ip(),
            addr.port(),
            home.join("id").display(),
            home.join(format!("{name}.known")).display(),
        );
        std::fs::write(&config, text).expect("written");
        Self { config, socket }
    }

    fn ssh(&self, flags: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.config).args(flags).stdin(Stdio::null());
        ssh
    }

    fn run(&self, flags: &[&str]) {
        let status = self.ssh(flags).args(["host", "true"]).status().expect("starts");
        assert!(status.success(), "{status}");
    }

    fn output(&self, cipher: &str) {
        let count = OUTPUT.to_string();
        let mut child = self
            .ssh(&["-S", "none", "-c", cipher, "host", "head", "-c", &count, "/dev/zero"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = child.stdout.take().expect("piped");
        let (mut buffer, mut read) = (vec![0; 1 << 16], 0);
        loop {
            match stdout.read(&mut buffer).expect("reads") {
                0 => break,
                length => read += length as u64,
            }
        }
        assert!(child.wait().expect("ends").success() && read == OUTPUT, "{read} bytes");
    }

    /// A connection that others share, until it is dropped.
    fn master(&self) -> Killed {
        let socket = self.socket.to_str().expect("UTF-8");
        self.held(&["-M", "-S", socket])
    }

    fn idle(&self) -> Killed {
        self.held(&["-S", "none"])
    }

    /// A connection on which a user has logged in.
    fn held(&self, flags: &[&str]) -> Killed {
        let mut child = self
            .ssh(flags)
            .args(["-N", "-o", "LocalCommand=echo in", "host"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        assert_eq!(line, "in\n");
        Killed(child)
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Sshd {
    child: Killed,
    addr: SocketAddr,
}

impl Sshd {
    #[expect(clippy::print_stderr, reason = "a benchmark tells why it leaves something out")]
    fn start(home: &Path) -> Option<Self> {
        let sshd = Path::new("/usr/sbin/sshd");
        if !sshd.exists() || !rustix::process::geteuid().is_root() {
            eprintln!("no comparison with sshd: it is not there, or this is not root");
            return None;
        }
        for name in ["id", "sshd_host"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(home.join(name))
                .status();
            assert!(made.expect("starts").success());
        }
        std::fs::create_dir(home.join("keys")).expect("made");
        std::fs::copy(home.join("id.pub"), home.join("keys/root")).expect("copied");
        let _ = std::fs::create_dir_all("/run/sshd");
        // Port 0 means none to sshd.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let addr = free.expect("a free port");
        let config = home.join("sshd.server");
        let text = format!(
            "ListenAddress {addr}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nMaxStartups 500\nMaxSessions 100\nPermitRootLogin yes\nLogLevel ERROR\n",
            home.join("sshd_host").display(),
            home.join("id.pub").display(),
        );
        std::fs::write(&config, text).expect("written");
        let child = Command::new(sshd).args(["-D", "-e", "-f"]).arg(&config).spawn();
        let child = Killed(child.expect("starts"));
        for _ in 0..200 {
            if TcpStream::connect(addr).is_ok() {
                return Some(Self { child, addr });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("no comparison with sshd: it does not listen");
        None
    }

    /// Of its processes together, each page that several share counted once.
    fn memory(&self) -> u64 {
        let mut all = vec![self.child.0.id()];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            let path = format!("/proc/{pid}/task/{pid}/children");
            let children = std::fs::read_to_string(path).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        all.into_iter().map(memory_of).sum()
    }
}
