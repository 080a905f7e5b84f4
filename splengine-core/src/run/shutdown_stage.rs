//! The stages in which an engine ends.

/// How the whole engine ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shutdown {
    #[default]
    No,
    /// Nothing new is taken.
    Close,
    Stop,
    Kill,
}

impl Shutdown {
    /// Makes it more urgent, never less; says whether that changed anything.
    pub(crate) fn raise(&mut self, to: Self) -> bool {
        let raised = to > *self;
        *self = to.max(*self);
        raised
    }
}
