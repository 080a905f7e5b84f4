//! The number of columns that a character takes.

use unicode_width::UnicodeWidthChar as _;

/// 0, 1 or 2 columns, as xterm.js has it with its tables of Unicode 11, which agree with those of
/// the C libraries of today for what is in use.
pub(super) fn width(character: char) -> u8 {
    match character {
        '\u{20}'..='\u{7e}' => 1,
        '\u{0}'..='\u{9f}' => 0,
        '\u{a0}'..='\u{2ff}' => 1,
        _ => character.width().map_or(0, |width| width.min(2) as u8),
    }
}

/// Whether tables differ about it: others may then stand elsewhere after it.
pub(super) fn is_disputed(character: char) -> bool {
    !matches!(character, '\u{0}'..='\u{2ff}' | '\u{2500}'..='\u{259f}' | '\u{370}'..='\u{52f}')
}
