//! The kinds of refusal, which every adapter maps to its protocol.

/// Kind of failure that an error is. Adapters turn it into their protocol's status with one table,
/// tested against [`ErrorKind::ALL`].
///
/// ```
/// use splengine_core::ErrorKind;
///
/// /// The exit code of a command-line tool, by sysexits.h.
/// fn exit_code(kind: ErrorKind) -> i32 {
///     match kind {
///         ErrorKind::Malformed | ErrorKind::Impossible => 64,
///         ErrorKind::NotFound => 66,
///         ErrorKind::Unauthenticated | ErrorKind::Forbidden => 77,
///         ErrorKind::CallerLimit | ErrorKind::Unavailable | ErrorKind::NoRoom => 75,
///         _ => 70,
///     }
/// }
///
/// // `ErrorKind` may get further kinds: a test walks over all of them.
/// assert!(ErrorKind::ALL.iter().all(|kind| (64..=77).contains(&exit_code(*kind))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request can't be understood, whatever the state of the host.
    Malformed,
    /// No credentials, or wrong ones.
    Unauthenticated,
    /// The caller lacks the right.
    Forbidden,
    /// There is no such thing, or it is not the caller's.
    NotFound,
    /// Well-formed, but impossible here: no such program, a workdir outside root, a limit that
    /// can't be enforced.
    Impossible,
    /// The request contradicts the state that things are in.
    Conflict,
    /// The disk is full, or the caller's part of it.
    NoRoom,
    /// The caller's own share is used up; others may still be served.
    CallerLimit,
    /// The engine is full, draining, or the host lacks a resource.
    Unavailable,
    /// A fault of ours. Its cause is for the log, never for the caller.
    Internal,
}

impl ErrorKind {
    /// Every kind, for the test of an adapter's table.
    pub const ALL: &[Self] = &[
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Impossible,
        Self::Conflict,
        Self::NoRoom,
        Self::CallerLimit,
        Self::Unavailable,
        Self::Internal,
    ];
}
