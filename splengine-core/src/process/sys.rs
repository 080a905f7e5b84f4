//! The only unsafe code: a few system calls that no crate wraps as they are needed here.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Release};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What a new process is to be.
pub(crate) struct Plan<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a [CString],
    pub(crate) env: &'a [CString],
    pub(crate) workdir: BorrowedFd<'a>,
    /// Its standard input, output and error. All must lie above 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Its standard input is a terminal, which it is to have as its controlling one.
    pub(crate) in_terminal: bool,
    /// Resource limits: which, the soft and the hard bound.
    pub(crate) limits: &'a [(c_int, u64, u64)],
    /// What it does not inherit; `None` for a helper, which is as this process is.
    pub(crate) attributes: Option<ChildAttributes>,
    /// The directory of the cgroup that it is born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Set once it holds no file that it has inherited.
    pub(crate) has_closed: &'a AtomicBool,
}

/// What a new process did not come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum SpawnStage {
    Clone = 0,
    Prepare = 1,
    Exec = 2,
}

/// Starts a process in a session of its own, and waits until it runs the program or has failed to.
///
/// It is made as posix_spawn(3) makes it: the child borrows this process's memory until it
/// executes the program, so its cost does not grow with that memory.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<(Pid, OwnedFd), (SpawnStage, io::Error)> {
    let argv = pointers(plan.argv);
    let env = pointers(plan.env);
    let inherited = ChildAttributes::default();
    let attributes = plan.attributes.as_ref().unwrap_or(&inherited);
    let mut child = Child {
        program: plan.program.as_ptr(),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        workdir: plan.workdir.as_raw_fd(),
        stdio: plan.stdio.map(|fd| fd.as_raw_fd()),
        in_terminal: plan.in_terminal,
        limits: plan.limits.as_ptr(),
        limit_count: plan.limits.len(),
        attributes: ptr::from_ref(attributes),
        has_closed: ptr::from_ref(plan.has_closed),
        oom_score_left: false,
        cgroup_procs: -1,
        step: SpawnStage::Clone as c_int,
        errno: 0,
    };
    debug_assert!(child.stdio.iter().all(|fd| *fd > 2), "dup2 must not overwrite a source");
    let mut stack = vec![0u128; STACK_BYTES / size_of::<u128>()];

    // SAFETY: sigset_t is plain data; both sets are written before they are read. A signal handler
    // that ran in the child would run on memory it shares with us, so none may: all signals are
    // blocked until the child has put every handler back.
    let (cloned, saved) = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut saved: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut saved);
        let cloned = match plan.cgroup {
            Some(dir) => clone_into_cgroup(&mut child, &mut stack, dir.as_raw_fd()),
            None => clone(&mut child, &mut stack),
        };
        (cloned, saved)
    };
    // SAFETY: `saved` is the mask that pthread_sigmask gave us above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &saved, ptr::null_mut()) };
    let (pid, pidfd) = cloned.map_err(|error| (SpawnStage::Clone, error))?;
    let pid = Pid::from_raw(pid).expect("a new process has a number above zero");

    // SAFETY: CLONE_VFORK let us go on only when the child was done with `child`; it wrote to it
    // through a pointer, which the compiler can't see, hence the volatile reads.
    let (step, errno) =
        unsafe { (ptr::read_volatile(&child.step), ptr::read_volatile(&child.errno)) };
    if errno == 0 {
        // SAFETY: as above.
        if unsafe { ptr::read_volatile(&child.oom_score_left) }
            && let Some((digits, length)) = &attributes.oom_score_adj
        {
            // By now it has memory of its own. A program that nobody may trace keeps its score.
            let path = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
            let _ = std::fs::write(path, &digits[..*length]);
        }
        return Ok((pid, pidfd));
    }
    let step =
        if step == SpawnStage::Exec as c_int { SpawnStage::Exec } else { SpawnStage::Prepare };
    let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    Err((step, io::Error::from_raw_os_error(errno)))
}

/// What the child reads and where it leaves its error; on the parent's stack.
#[repr(C)]
struct Child {
    program: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    workdir: RawFd,
    stdio: [RawFd; 3],
    in_terminal: bool,
    limits: *const (c_int, u64, u64),
    limit_count: usize,
    attributes: *const ChildAttributes,
    has_closed: *const AtomicBool,
    /// The child could not write its OOM score: it shares this process's memory, and with it that
    /// its files in /proc are root's where this process is not dumpable.
    oom_score_left: bool,
    /// Where to join a cgroup, if the kernel could not put the child there; -1 for nowhere.
    cgroup_procs: RawFd,
    step: c_int,
    errno: c_int,
}

/// What a child does not inherit, in the form that it needs, since it can't allocate.
#[derive(Default)]
pub(crate) struct ChildAttributes {
    pub(crate) umask: Option<libc::mode_t>,
    pub(crate) nice: Option<c_int>,
    /// Its digits, and how many they are.
    pub(crate) oom_score_adj: Option<([u8; 12], usize)>,
    pub(crate) reset_scheduling: bool,
    pub(crate) reset_io_priority: bool,
    pub(crate) drop_ambient: bool,
}

type Cloned = io::Result<(libc::pid_t, OwnedFd)>;

/// # Safety
///
/// All signals are blocked, `child` points to live data, and `stack` is not used otherwise.
unsafe fn clone(child: &mut Child, stack: &mut [u128]) -> Cloned {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack grows down from its end, which is aligned to 16 bytes as every u128 here
    // is; `run_child` keeps to what may be done while the parent's memory is borrowed.
    let pid = unsafe {
        libc::clone(
            run_child,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            ptr::from_mut(child).cast::<c_void>(),
            ptr::from_mut(&mut pidfd),
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just put a descriptor there that nobody else knows.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Lets the kernel put the child into the cgroup as it is born. Joining it afterwards takes a lock
/// that every process of the host waits for, at times for 15 ms.
///
/// # Safety
///
/// As [`clone`].
#[cfg(target_arch = "x86_64")]
unsafe fn clone_into_cgroup(child: &mut Child, stack: &mut [u128], cgroup: RawFd) -> Cloned {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
    // SAFETY: clone_args is plain integers, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags as u64 | CLONE_INTO_CGROUP;
    arguments.pidfd = ptr::from_mut(&mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.stack = stack.as_mut_ptr() as u64;
    arguments.stack_size = size_of_val(stack) as u64;
    arguments.cgroup = cgroup as u64;

    let result: isize;
    // SAFETY: glibc has no wrapper for clone3. The child begins behind the system call with an
    // empty stack of its own, aligned to 16 bytes, calls `run_child` and never comes back; the
    // parent goes on behind it with all its registers but rax, rcx and r11, as syscall(2) says.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") ptr::from_mut(child),
            in("r13") run_child as extern "C" fn(*mut c_void) -> c_int,
            out("rcx") _,
            out("r11") _,
        );
    }
    match i32::try_from(-result) {
        // Seccomp filters that don't know clone3 answer ENOSYS or EPERM.
        Ok(libc::ENOSYS | libc::EPERM) => {
            // SAFETY: as this function's.
            unsafe { clone_and_join_cgroup(child, stack, cgroup) }
        }
        Ok(errno @ 1..) => Err(io::Error::from_raw_os_error(errno)),
        _ => {
            // SAFETY: the kernel has just put a descriptor there that nobody else knows.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            // SAFETY: CLONE_VFORK let us go on only when the child was done with `child`.
            let step = unsafe { ptr::read_volatile(&child.step) };
            if step != SpawnStage::Clone as c_int {
                return Ok((result as libc::pid_t, pidfd));
            }
            // It was killed before it did anything: Linux (seen on 6.18) does that to whoever is
            // born into a cgroup that was not killed by `cgroup.kill` as often as the parent's.
            // Who joins it afterwards is let live.
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            // SAFETY: as this function's.
            unsafe { clone_and_join_cgroup(child, stack, cgroup) }
        }
    }
}

/// # Safety
///
/// As [`clone`].
#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone_into_cgroup(child: &mut Child, stack: &mut [u128], cgroup: RawFd) -> Cloned {
    // SAFETY: as this function's.
    unsafe { clone_and_join_cgroup(child, stack, cgroup) }
}

/// # Safety
///
/// As [`clone`].
unsafe fn clone_and_join_cgroup(child: &mut Child, stack: &mut [u128], cgroup: RawFd) -> Cloned {
    use rustix::fs::{Mode, OFlags, openat};
    // SAFETY: the caller borrowed the directory for the whole of the spawn.
    let dir = unsafe { BorrowedFd::borrow_raw(cgroup) };
    let procs = openat(dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    child.cgroup_procs = procs.as_raw_fd();
    // SAFETY: as this function's; `procs` outlives the child's use of it.
    unsafe { clone(child, stack) }
}

/// The child's way from clone to exec. It borrows the parent's memory, so it takes no lock, makes
/// no allocation, and calls nothing but thin wrappers of system calls.
extern "C" fn run_child(child: *mut c_void) -> c_int {
    let child = child.cast::<Child>();
    // SAFETY: `child` points to the parent's plan, which lives while the parent waits for us; the
    // pointers in it end with a null where execve(2) wants one. The parent reads what we write
    // only when we are gone.
    unsafe {
        (*child).step = SpawnStage::Prepare as c_int;
        if prepare(&mut *child) {
            (*child).step = SpawnStage::Exec as c_int;
            libc::execve((*child).program, (*child).argv, (*child).env);
        }
        (*child).errno = (*libc::__errno_location()).max(1);
        libc::_exit(127)
    }
}

/// # Safety
///
/// Only in the child of a clone, with a plan that lives.
unsafe fn prepare(child: &mut Child) -> bool {
    // SAFETY: every call gets numbers, descriptors of the plan, or pointers to data of this frame.
    unsafe {
        if child.cgroup_procs >= 0 && libc::write(child.cgroup_procs, c"0".as_ptr().cast(), 1) != 1
        {
            return false;
        }
        if libc::setsid() < 0 {
            return false;
        }
        // Whatever this process ignores, its children should not (Rust itself ignores SIGPIPE). The
        // C library's sigaction would leave out two signals that it thinks its own; the kernel's,
        // whose layout differs between processors, is all zeros for the default everywhere.
        let default = [0u64; 8];
        for signal in 1..=64 {
            // Fails for SIGKILL and SIGSTOP, which can't be ignored.
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<c_void>(),
                size_of::<u64>(),
            );
        }
        for (target, source) in (0..).zip(child.stdio) {
            if libc::dup2(source, target) < 0 {
                return false;
            }
        }
        if child.in_terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
            return false;
        }
        if libc::fchdir(child.workdir) < 0 {
            return false;
        }
        // Some other library may have opened files without O_CLOEXEC. And the kernel closes files
        // for a program that it loads only after the parent goes on, who may count on it that no
        // file is held open here any more.
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0);
        (*child.has_closed).store(true, Release);
        child.oom_score_left = !shed(&*child.attributes);
        for index in 0..child.limit_count {
            let (resource, soft, hard) = *child.limits.add(index);
            let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
            if libc::prlimit64(0, resource as _, &limit, ptr::null_mut()) < 0 {
                return false;
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) == 0
    }
}

/// Gives up what this process has more of than its runs are to have, and sets the mask. None of it
/// needs a privilege, and a filter of system calls that refuses one must not keep programs from
/// running: errors are let be. Says whether the OOM score is as it should be.
///
/// # Safety
///
/// Only in the child of a clone.
unsafe fn shed(attributes: &ChildAttributes) -> bool {
    // SAFETY: every call gets numbers, or pointers to data of this frame or of the plan.
    unsafe {
        if let Some(mask) = attributes.umask {
            libc::umask(mask);
        }
        if attributes.reset_scheduling {
            let parameter = libc::sched_param { ..std::mem::zeroed() };
            libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const parameter);
        }
        if let Some(nice) = attributes.nice {
            libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice);
        }
        if attributes.reset_io_priority {
            libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0);
        }
        if attributes.drop_ambient {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        }
        let Some((digits, length)) = &attributes.oom_score_adj else { return true };
        let path = c"/proc/self/oom_score_adj";
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file < 0 {
            return false;
        }
        let written = libc::write(file, digits.as_ptr().cast(), *length);
        libc::close(file);
        written >= 0
    }
}

/// Whether the calling thread is scheduled before all usual ones.
pub(crate) fn is_real_time() -> bool {
    // SAFETY: the call gets and gives numbers alone.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    // Its upper bits say whether children are reset.
    [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE]
        .iter()
        .any(|real_time| policy >= 0 && policy & 0xff == i64::from(*real_time))
}

/// The calling thread's priority on disks, as ioprio_get(2) gives it; below zero where it can't.
pub(crate) fn io_priority() -> i64 {
    // SAFETY: the call gets and gives numbers alone.
    unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) }
}

/// The hard limit of another process, from outside; `ESRCH` when there is no such process, `EPERM`
/// when it may not be looked at.
pub(crate) fn hard_limit(pid: Pid, resource: c_int) -> io::Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64 to a place of that size, and reads nothing.
    let result = unsafe {
        libc::prlimit64(pid.as_raw_nonzero().get(), resource as _, ptr::null(), &mut limit)
    };
    if result == 0 { Ok(limit.rlim_max) } else { Err(io::Error::last_os_error()) }
}

/// How a child ended and what it used, with all that it had waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    /// The exit code, or the signal where one ended it.
    pub(crate) status: c_int,
    pub(crate) is_signal: bool,
    pub(crate) cpu_time: std::time::Duration,
    /// In bytes.
    pub(crate) peak_memory: u64,
}

/// Reaps the child that a pidfd stands for, as waitid(2) does, which tells also what it used: a
/// feature of the system call that the C library hides. Waits for its end.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Reaped> {
    // SAFETY: both are plain integers (and a union of such), for which zero is a value.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to two places of their sizes, and reads nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_raw_fd(),
            &raw mut info,
            libc::WEXITED,
            &raw mut usage,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let time = |time: libc::timeval| {
        let micros = u64::try_from(time.tv_usec).unwrap_or_default();
        std::time::Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default())
            + std::time::Duration::from_micros(micros)
    };
    Ok(Reaped {
        // SAFETY: waitid(2) has filled in the members of a child's end.
        status: unsafe { info.si_status() },
        is_signal: info.si_code != libc::CLD_EXITED,
        cpu_time: time(usage.ru_utime) + time(usage.ru_stime),
        peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024,
    })
}

/// Whether this process lets the kernel throw away the exit codes of its children.
pub(crate) fn child_exits_are_ignored() -> bool {
    // SAFETY: with no new action the call only writes the present one, to a place of its size.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, ptr::null(), &mut action) == 0
            && (action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0)
    }
}

/// Has the allocator keep less memory that is free: large pieces are given back to the system when they are
/// freed, and there are at most `arenas` from which threads allocate, each of which keeps some.
#[cfg(target_env = "gnu")]
pub(crate) fn limit_free_memory(arenas: usize) {
    let arenas = c_int::try_from(arenas).unwrap_or(c_int::MAX);
    // SAFETY: mallopt(3) only changes parameters of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
}

/// Gives the pages of freed memory back to the system.
#[cfg(target_env = "gnu")]
pub(crate) fn trim_heap() {
    // SAFETY: malloc_trim(3) only releases pages that hold no allocation, under the allocator's locks.
    unsafe { libc::malloc_trim(0) };
}

/// A descriptor whose readiness can be awaited: of a pidfd, readable means that its process has
/// ended.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the AsyncFd from here on, and nothing closes or replaces
    // it before that is dropped.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| error.into_parts().1)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// glibc raises its own with the size of what is freed, up to 32 MiB.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD_BYTES: c_int = 256 * 1024;
const IOPRIO_WHO_PROCESS: c_int = 1;
/// The child's few frames take less than 2 KiB.
const STACK_BYTES: usize = 32 * 1024;
