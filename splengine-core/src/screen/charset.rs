//! The character sets that a program may put in place of ASCII (DEC's special graphics, and the
//! national sets of ISO 646).

/// A set: by the character that designates it; 0 for ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Charset(pub(super) u8);

impl Charset {
    /// The set that `designator` stands for, under one name where there are several; ASCII for what
    /// is not known.
    pub(super) fn designated(designator: u8) -> Self {
        Self(match designator {
            b'5' => b'C',
            b'6' => b'E',
            b'7' => b'H',
            b'0' | b'A' | b'4' | b'C' | b'R' | b'Q' | b'K' | b'Y' | b'E' | b'Z' | b'H' | b'=' => {
                designator
            }
            _ => 0,
        })
    }

    /// What designates it.
    pub(super) fn designator(self) -> u8 {
        if self.0 == 0 { b'B' } else { self.0 }
    }

    pub(super) fn map(self, byte: u8) -> char {
        let (from, to) = match self.0 {
            b'0' => ("`abcdefghijklmnopqrstuvwxyz{|}~", "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·"),
            b'A' => ("#", "£"),
            b'4' => ("#@[\\]{|}~", "£¾ĳ½|¨f¼´"),
            b'C' => ("[\\]^`{|}~", "ÄÖÅÜéäöåü"),
            b'R' => ("#@[\\]{|}~", "£à°ç§éùè¨"),
            b'Q' => ("@[\\]^`{|}~", "àâçêîôéùèû"),
            b'K' => ("@[\\]{|}~", "§ÄÖÜäöüß"),
            b'Y' => ("#@[\\]`{|}~", "£§°çéùàòèì"),
            b'E' => ("@[\\]^`{|}~", "ÄÆØÅÜäæøåü"),
            b'Z' => ("#@[\\]{|}", "£§¡Ñ¿°ñç"),
            b'H' => ("@[\\]^`{|}~", "ÉÄÖÅÜéäöåü"),
            b'=' => ("#@[\\]^_`{|}~", "ùàéçêîèôäöüû"),
            _ => return char::from(byte),
        };
        let at = from.bytes().position(|one| one == byte);
        at.and_then(|at| to.chars().nth(at)).unwrap_or(char::from(byte))
    }
}
