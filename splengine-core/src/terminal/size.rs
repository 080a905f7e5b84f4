use crate::screen::{MAX_COLS, MAX_ROWS};

/// The size of a terminal, in cells.
///
/// ```
/// use splengine_core::terminal::Size;
///
/// assert_eq!(Size::new(132, 43), Some(Size::clamped(132, 43)));
/// assert_eq!(Size::new(0, 43), None);
/// assert_eq!(Size::clamped(0, 60_000), Size::clamped(1, Size::MAX.rows()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    cols: u16,
    rows: u16,
}

impl Size {
    /// Maximum number of columns and rows.
    pub const MAX: Self = Self { cols: MAX_COLS, rows: MAX_ROWS };

    /// Makes the nearest size that a terminal can have: at least 1 and at most [`MAX`](Self::MAX) each
    /// way.
    #[must_use]
    pub fn clamped(cols: u16, rows: u16) -> Self {
        Self { cols: cols.clamp(1, MAX_COLS), rows: rows.clamp(1, MAX_ROWS) }
    }

    /// Makes a size; `None` if no terminal can have it.
    #[must_use]
    pub fn new(cols: u16, rows: u16) -> Option<Self> {
        let size = Self::clamped(cols, rows);
        (size.cols == cols && size.rows == rows).then_some(size)
    }

    /// Returns the number of columns.
    #[must_use]
    pub fn cols(self) -> u16 {
        self.cols
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(self) -> u16 {
        self.rows
    }
}

/// 80 columns, 24 rows.
impl Default for Size {
    fn default() -> Self {
        Self { cols: 80, rows: 24 }
    }
}
