//! One process of ours: started, awaited, reaped.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::fs::Access;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::os::{ExitStatus, Limits, Signal, Usage};
use crate::process::run_file::{RunFile, RunNote};
use crate::process::sys::{self, Plan, SpawnStage};
use crate::process::tag::Tag;
use crate::process::{Attributes, Group, Tree, runs};

/// What to start.
pub(crate) struct Spawn<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a [CString],
    pub(crate) env: &'a [CString],
    pub(crate) workdir: BorrowedFd<'a>,
    /// What its standard input is, unless it is a pipe from us.
    pub(crate) null: BorrowedFd<'a>,
    pub(crate) feed: bool,
    pub(crate) limits: &'a Limits,
    pub(crate) attributes: &'a Attributes,
    /// Whose it is; a fresh tag for `None`.
    pub(crate) tag: Option<Tag>,
    pub(crate) group: Option<Group>,
    /// Where it is noted while it is going on.
    pub(crate) runs: Option<Arc<RunFile>>,
}

/// Why it was not started.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// There was no process to run it.
    Clone(io::Error),
    /// The new process could not be set up.
    Prepare(io::Error),
    /// The kernel refused the program.
    Exec(io::Error),
}

/// The first process of a run. When dropped before it was reaped, it and its tree are killed.
#[derive(Debug)]
pub(crate) struct Leader {
    pidfd: AsyncFd<OwnedFd>,
    tree: Tree,
    reaped: AtomicBool,
    _note: Option<RunNote>,
}

/// Our ends of its pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

impl Spawn<'_> {
    /// Starts it. Blocks until the kernel has loaded the program.
    pub(crate) fn start(self) -> Result<(Leader, Pipes), SpawnError> {
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            Ok((above_stdio(reader)?, above_stdio(writer)?))
        };
        let (stdout, child_stdout) = pipe().map_err(SpawnError::Clone)?;
        let (stderr, child_stderr) = pipe().map_err(SpawnError::Clone)?;
        let feed = self.feed.then(pipe).transpose().map_err(SpawnError::Clone)?;
        let (child_stdin, stdin) = feed.unzip();
        let our_ends = || -> io::Result<Pipes> {
            Ok(Pipes {
                stdin: stdin.map(sender).transpose()?,
                stdout: receiver(stdout)?,
                stderr: receiver(stderr)?,
            })
        };
        let pipes = our_ends().map_err(SpawnError::Clone)?;

        let child_stdin = child_stdin.as_ref().map_or(self.null, |fd| fd.as_fd());
        let stdio = [child_stdin, child_stdout.as_fd(), child_stderr.as_fd()];
        Ok((self.launch(stdio, false)?, pipes))
    }

    /// Starts it in a terminal, which becomes its controlling one. Blocks until the kernel has
    /// loaded the program.
    pub(crate) fn start_in(self, terminal: BorrowedFd<'_>) -> Result<Leader, SpawnError> {
        self.launch([terminal; 3], true)
    }

    fn launch(self, stdio: [BorrowedFd<'_>; 3], in_terminal: bool) -> Result<Leader, SpawnError> {
        let tag = self.tag.unwrap_or_else(Tag::new);
        let mut limits = Vec::from(tag.limits());
        // Those of the request come later and so hold.
        limits.extend(self.attributes.limits());
        limits.extend(rlimits(self.limits));
        let note = self.runs.as_ref().map(|runs| runs.note(tag));
        let starting = runs::Starting::begin();
        let plan = Plan {
            program: self.program,
            argv: self.argv,
            env: self.env,
            workdir: self.workdir,
            stdio,
            in_terminal,
            limits: &limits,
            attributes: Some(self.attributes.into()),
            cgroup: self.group.as_ref().and_then(Group::dir),
            has_closed: &starting.has_closed,
        };
        let run = runs::ClaimedRun { tag, started: starting.since };
        let (pid, pidfd) = spawn_when_written(&plan).map_err(|(step, error)| match step {
            SpawnStage::Clone => SpawnError::Clone(error),
            SpawnStage::Prepare => SpawnError::Prepare(error),
            SpawnStage::Exec => SpawnError::Exec(error),
        })?;
        runs::claim(pid, run);
        drop(starting);
        let tree = Tree { leader: pid, run, group: self.group };
        match sys::watch(pidfd, Interest::READABLE) {
            Ok(pidfd) => Ok(Leader { pidfd, tree, reaped: AtomicBool::new(false), _note: note }),
            Err(error) => {
                tree.kill_now();
                runs::unclaim(pid);
                Err(SpawnError::Clone(error))
            }
        }
    }
}

impl Leader {
    /// Its tree.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Resolves when it has ended; it is a zombie then, which keeps its number from others.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(drop)
    }

    /// How it ended, and what it and its tree used. Only to be called when it has.
    pub(crate) fn reap(&self) -> io::Result<(ExitStatus, Usage)> {
        let reaped = loop {
            match sys::reap(self.pidfd.get_ref().as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                reaped => break reaped,
            }
        };
        self.reaped.store(true, Relaxed);
        runs::unclaim(self.tree.leader);
        let reaped = reaped?;
        let of_tree = self.tree.group.as_ref().and_then(Group::cpu_time);
        let usage = Usage {
            cpu_time: Some(of_tree.unwrap_or(reaped.cpu_time)),
            peak_memory: own_peak_memory(reaped.peak_memory),
            processes: self.tree.group.as_ref().and_then(Group::peak_processes),
        };
        let signal = reaped.is_signal.then(|| Signal::from_number(reaped.status)).flatten();
        let status = match signal {
            Some(signal) => ExitStatus::Signal(signal),
            None => ExitStatus::Code(reaped.status),
        };
        Ok((status, usage))
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.reaped.load(Relaxed) {
            self.tree.kill_now();
            runs::unclaim(self.tree.leader);
        }
    }
}

/// Starts a program that reads `input` to its end and throws it away. It is no member of any run, and
/// goes on when this process ends. Gives its pidfd. Blocks until it is loaded.
pub(crate) fn start_discarder(input: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let is_program = |path: &&CStr| rustix::fs::access(*path, Access::EXEC_OK).is_ok();
    let program = [c"/bin/cat", c"/usr/bin/cat"].into_iter().find(is_program);
    let program = program.ok_or(io::ErrorKind::NotFound)?;
    start_helper(program, &[c"cat".to_owned()], [input, null_to_write()?.as_fd()])
}

/// Starts this program again with these words, these as its standard input and output, and nothing
/// else of ours: no variables, no terminal, no tag. Gives its pidfd. Blocks until it is loaded.
pub(crate) fn start_pty_host(
    words: &[CString],
    [input, output]: [BorrowedFd<'_>; 2],
) -> io::Result<OwnedFd> {
    // Also there when the file was replaced since.
    start_helper(c"/proc/self/exe", words, [input, output])
}

fn null_to_write() -> io::Result<OwnedFd> {
    above_stdio(std::fs::File::options().write(true).open("/dev/null")?.into())
}

fn start_helper(
    program: &CStr,
    words: &[CString],
    [input, output]: [BorrowedFd<'_>; 2],
) -> io::Result<OwnedFd> {
    let null = null_to_write()?;
    let workdir = std::fs::File::open("/")?;
    let starting = runs::Starting::begin();
    let plan = Plan {
        program,
        argv: words,
        env: &[],
        workdir: workdir.as_fd(),
        stdio: [input, output, null.as_fd()],
        in_terminal: false,
        limits: &[],
        attributes: None,
        cgroup: None,
        has_closed: &starting.has_closed,
    };
    sys::spawn(&plan).map(|(_, pidfd)| pidfd).map_err(|(_, error)| error)
}

/// Starts a process. A program that is being written is tried again for [`MAX_WRITTEN`]: its writer
/// may just be closing it, or have a child that has not closed it yet.
fn spawn_when_written(plan: &Plan<'_>) -> Result<(Pid, OwnedFd), (SpawnStage, io::Error)> {
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_millis(1);
    loop {
        match sys::spawn(plan) {
            Err((SpawnStage::Exec, error))
                if error.raw_os_error() == Some(libc::ETXTBSY) && waited < MAX_WRITTEN =>
            {
                std::thread::sleep(pause);
                waited += pause;
                pause = (pause * 2).min(Duration::from_millis(16));
            }
            spawned => return spawned,
        }
    }
}

/// The peak that the kernel tells of a child, unless it may be this process's: until it has loaded its
/// program, a child has this process's memory, and the kernel counts that as its own.
fn own_peak_memory(told: u64) -> Option<u64> {
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    if told <= KNOWN.load(Relaxed) {
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak = peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024;
    KNOWN.fetch_max(peak, Relaxed);
    (told > peak).then_some(told)
}

/// Those that each process has; the others are its cgroup's.
fn rlimits(limits: &Limits) -> impl Iterator<Item = (libc::c_int, u64, u64)> {
    // Each is named, so that none is forgotten.
    let Limits { cpu_time, memory: _, open_files, processes: _, file_size, address_space } =
        *limits;
    let cpu = cpu_time.map(|time| {
        let seconds = time.saturating_add(Duration::from_nanos(999_999_999)).as_secs().max(1);
        (libc::RLIMIT_CPU, seconds, seconds.saturating_add(1))
    });
    let same = |resource| move |bound| (resource, bound, bound);
    [
        cpu,
        address_space.map(same(libc::RLIMIT_AS)),
        open_files.map(same(libc::RLIMIT_NOFILE)),
        file_size.map(same(libc::RLIMIT_FSIZE)),
    ]
    .into_iter()
    .flatten()
    .map(|(resource, soft, hard)| (resource as libc::c_int, soft, hard))
}

/// A process that closed its standard streams gets their numbers for its next files.
pub(crate) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    if fd.as_raw_fd() > 2 { Ok(fd) } else { Ok(fcntl_dupfd_cloexec(fd, 3)?) }
}

fn sender(fd: OwnedFd) -> io::Result<pipe::Sender> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    pipe::Sender::from_owned_fd_unchecked(fd)
}

fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    pipe::Receiver::from_owned_fd_unchecked(fd)
}

const MAX_WRITTEN: Duration = Duration::from_millis(100);
