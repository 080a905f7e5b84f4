/// The colours of a client's terminal where the program has set none, as 8 bits each of red, green and
/// blue. A program that asks for them (OSC 10, 11 and 12) gets those of the client in control, or of
/// the client that was in control last; by default white on black.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalColors {
    foreground: [u8; 3],
    background: [u8; 3],
    cursor: [u8; 3],
}

impl TerminalColors {
    /// Makes the colours of text and background (8-bit red, green and blue); the cursor has the text's.
    #[must_use]
    pub fn new(foreground: [u8; 3], background: [u8; 3]) -> Self {
        Self { foreground, background, cursor: foreground }
    }

    /// Sets the colour of the cursor.
    #[must_use]
    pub fn cursor(mut self, cursor: [u8; 3]) -> Self {
        self.cursor = cursor;
        self
    }

    /// In the order of their commands, OSC 10 to 12.
    pub(crate) fn in_order(self) -> [[u8; 3]; 3] {
        [self.foreground, self.background, self.cursor]
    }
}

/// White on black.
impl Default for TerminalColors {
    fn default() -> Self {
        Self::new([0xff; 3], [0; 3])
    }
}
