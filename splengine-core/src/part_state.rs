/// The state of a part of an [`Engine`](crate::Engine).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartState {
    /// The part takes work.
    Ready,
    /// The part takes work; but something that was kept before is lost, or can't be read. The reason is
    /// public, as that of [`Failing`](Self::Failing).
    Degraded {
        /// Description of what is missing.
        reason: &'static str,
    },
    /// The part takes no work any more, since the engine is shutting down.
    Draining,
    /// The part takes no work at the moment. The reason is public: it reveals nothing of the host.
    Failing {
        /// Reason for the failure.
        reason: &'static str,
    },
}

impl PartState {
    pub(crate) fn takes_work(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded { .. })
    }
}
