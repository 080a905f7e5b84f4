/// Output stream of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stream {
    /// Standard output of a program.
    Stdout,
    /// Standard error of a program.
    Stderr,
}

impl Stream {
    /// Returns the stream's name on every server.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
