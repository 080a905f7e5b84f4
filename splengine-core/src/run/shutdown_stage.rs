//! The stages in which an engine ends.

/// Stage of an engine's end, from the mildest on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShutdownStage {
    #[default]
    Running,
    /// Nothing new is taken.
    Closed,
    /// What runs is asked to end.
    Stopping,
    /// What runs is killed.
    Killing,
}

impl ShutdownStage {
    /// Makes it more urgent, never less; says whether that changed anything.
    pub(crate) fn raise(&mut self, to: Self) -> bool {
        let raised = to > *self;
        *self = to.max(*self);
        raised
    }
}
