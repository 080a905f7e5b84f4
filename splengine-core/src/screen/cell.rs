//! One cell of the screen: its text and its attributes.

/// One cell. 16 bytes, since there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cell {
    /// A character, 0 for none, or with [`Cell::COMBINED`] the number of a text of several.
    pub(super) text: u32,
    pub(super) fg: Color,
    pub(super) bg: Color,
    pub(super) flags: Flags,
    /// The number of what is rare: the underline's colour and a link.
    pub(super) extra: u16,
}

/// A colour: 0 is the default; else the kind in the upper byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(super) struct Color(pub(super) u32);

impl Color {
    /// One of the 16.
    pub(super) fn named(index: u8) -> Self {
        Self(1 << 24 | u32::from(index))
    }

    /// One of the 256.
    pub(super) fn indexed(index: u8) -> Self {
        Self(2 << 24 | u32::from(index))
    }

    pub(super) fn rgb(red: u8, green: u8, blue: u8) -> Self {
        Self(u32::from_be_bytes([3, red, green, blue]))
    }

    /// The parameters of SGR for it, whose first is 30, 40 or 58 for what it is of.
    pub(super) fn write_sgr(self, of: u8, to: &mut String) {
        use std::fmt::Write as _;
        let [kind, red, green, blue] = self.0.to_be_bytes();
        let long = if of == 58 { 58 } else { of + 8 };
        let _ = match (kind, of) {
            (1, 30 | 40) if blue < 8 => write!(to, ";{}", of + blue),
            (1, 30 | 40) => write!(to, ";{}", of + 60 + blue - 8),
            (1 | 2, 58) => write!(to, ";58:5:{blue}"),
            (1 | 2, _) => write!(to, ";{long};5;{blue}"),
            (3, 58) => write!(to, ";58:2::{red}:{green}:{blue}"),
            (3, _) => write!(to, ";{long};2;{red};{green};{blue}"),
            _ => Ok(()),
        };
    }
}

/// Which of the ways to look a cell has, how it is underlined, and how wide it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(super) struct Flags(pub(super) u16);

impl Flags {
    pub(super) const BOLD: u16 = 1;
    pub(super) const DIM: u16 = 1 << 1;
    pub(super) const ITALIC: u16 = 1 << 2;
    pub(super) const BLINK: u16 = 1 << 3;
    pub(super) const INVERSE: u16 = 1 << 4;
    pub(super) const INVISIBLE: u16 = 1 << 5;
    pub(super) const STRIKE: u16 = 1 << 6;
    pub(super) const OVERLINE: u16 = 1 << 7;
    /// Not erased by DECSED and DECSEL.
    pub(super) const PROTECTED: u16 = 1 << 8;
    const UNDERLINE_SHIFT: u16 = 9;
    const UNDERLINE: u16 = 7 << Self::UNDERLINE_SHIFT;
    /// Two columns wide.
    pub(super) const WIDE: u16 = 1 << 12;
    /// No column wide: the second half of a wide one, or a mark without what it belongs to.
    pub(super) const NARROW: u16 = 1 << 13;
    const LOOK: u16 = Self::WIDE - 1;

    pub(super) fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    pub(super) fn set(&mut self, flag: u16, on: bool) {
        if on { self.0 |= flag } else { self.0 &= !flag }
    }

    pub(super) fn underline(self) -> u8 {
        ((self.0 & Self::UNDERLINE) >> Self::UNDERLINE_SHIFT) as u8
    }

    pub(super) fn set_underline(&mut self, style: u8) {
        self.0 = self.0 & !Self::UNDERLINE | u16::from(style) << Self::UNDERLINE_SHIFT;
    }

    /// Without the width.
    pub(super) fn look(self) -> Self {
        Self(self.0 & Self::LOOK)
    }
}

impl Cell {
    pub(super) const COMBINED: u32 = 1 << 31;

    pub(super) fn width(self) -> u8 {
        if self.flags.has(Flags::WIDE) { 2 } else { u8::from(!self.flags.has(Flags::NARROW)) }
    }

    pub(super) fn is_empty(self) -> bool {
        self.text == 0
    }

    /// How it looks, without what stands in it.
    pub(super) fn look(self) -> Self {
        Self { text: 0, flags: self.flags.look(), ..self }
    }

    pub(super) fn with(self, text: u32, width: u8) -> Self {
        let mut flags = self.flags.look();
        flags.set(Flags::WIDE, width == 2);
        flags.set(Flags::NARROW, width == 0);
        Self { text, flags, ..self }
    }

    /// What erasing with this look leaves: the background colour only.
    pub(super) fn erased(self) -> Self {
        Self { bg: self.bg, ..Self::default() }
    }
}
