//! Terminal modes, as a client's own terminal has them.

/// The modes that a program's terminal begins with: pairs of a number and a value as RFC 4254,
/// section 8 has them, the one standard that numbers them. What it does not list, or this host does
/// not know, is passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TerminalModes(pub(crate) Vec<(u8, u32)>);

impl TerminalModes {
    /// Takes these modes; of more than 160, which is all that there can be, the first ones.
    pub fn new(modes: impl IntoIterator<Item = (u8, u32)>) -> Self {
        Self(modes.into_iter().take(160).collect())
    }
}
