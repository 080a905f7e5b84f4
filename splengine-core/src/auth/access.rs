/// Right of a client on a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Access {
    /// Right to see the session.
    View,
    /// Right to see the session, type in it, and hold control.
    Control,
}

impl Access {
    /// Returns the right's name, which is the same on all servers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Control => "control",
        }
    }
}
