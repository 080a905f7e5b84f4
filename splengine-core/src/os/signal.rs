//! Signals by number and name.

use std::fmt;

/// A signal of this operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// The request to end.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// The end that can't be refused.
    pub const KILL: Self = Self(libc::SIGKILL);

    /// Returns the signal with this number, if there can be one (1 to 64).
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=64).contains(&number).then_some(Self(number))
    }

    /// Returns the number of the signal.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    /// The name of signal(7), such as `SIGSEGV`; real-time signals count from `SIGRTMIN`. Elsewhere than on Linux a
    /// signal that not every UNIX has is shown by its number, such as `SIG29`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            #[cfg(not(target_os = "linux"))]
            None => write!(f, "SIG{}", self.0),
            #[cfg(target_os = "linux")]
            None => match self.0 - libc::SIGRTMIN() {
                0 => f.write_str("SIGRTMIN"),
                above @ 1.. => write!(f, "SIGRTMIN+{above}"),
                // The C library keeps the first real-time signals for itself.
                below => write!(f, "SIGRTMIN{below}"),
            },
        }
    }
}

const NAMES: &[(i32, &str)] = &[
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGTERM, "SIGTERM"),
    #[cfg(target_os = "linux")]
    (libc::SIGSTKFLT, "SIGSTKFLT"),
    (libc::SIGCHLD, "SIGCHLD"),
    (libc::SIGCONT, "SIGCONT"),
    (libc::SIGSTOP, "SIGSTOP"),
    (libc::SIGTSTP, "SIGTSTP"),
    (libc::SIGTTIN, "SIGTTIN"),
    (libc::SIGTTOU, "SIGTTOU"),
    (libc::SIGURG, "SIGURG"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGWINCH, "SIGWINCH"),
    (libc::SIGIO, "SIGIO"),
    #[cfg(target_os = "linux")]
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSYS, "SIGSYS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).expect("in range");
            assert!(signal.to_string().starts_with("SIG"), "{number}");
        }
        assert_eq!(Signal::from_number(0), None);
        assert_eq!(Signal::from_number(65), None);
        assert_eq!(Signal::KILL.to_string(), "SIGKILL");
        #[cfg(target_os = "linux")]
        assert_eq!(Signal(libc::SIGRTMIN() + 2).to_string(), "SIGRTMIN+2");
    }
}
