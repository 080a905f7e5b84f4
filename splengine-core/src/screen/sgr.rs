//! SGR: how the next characters look (ECMA-48 8.3.117, ISO 8613-6 for colours).

use super::cell::{Cell, Color, Flags};
use super::extras::RareAttrs;
use super::parser::Sequence;
use super::term::Term;

impl Term {
    pub(super) fn set_look(&mut self, sequence: &Sequence) {
        let mut at = 0;
        while at < sequence.len() {
            let code = sequence.param(at);
            match code {
                0 => self.plain_look(),
                1 => self.flag(Flags::BOLD, true),
                2 => self.flag(Flags::DIM, true),
                3 => self.flag(Flags::ITALIC, true),
                4 => {
                    let style = sequence.subs(at).first().copied().unwrap_or(1);
                    let style = u8::try_from(style).ok().filter(|style| *style <= 5).unwrap_or(1);
                    self.look.flags.set_underline(style);
                }
                5 => self.flag(Flags::BLINK, true),
                7 => self.flag(Flags::INVERSE, true),
                8 => self.flag(Flags::INVISIBLE, true),
                9 => self.flag(Flags::STRIKE, true),
                21 => self.look.flags.set_underline(2),
                22 => {
                    self.flag(Flags::BOLD, false);
                    self.flag(Flags::DIM, false);
                }
                23 => self.flag(Flags::ITALIC, false),
                24 => self.look.flags.set_underline(0),
                25 => self.flag(Flags::BLINK, false),
                27 => self.flag(Flags::INVERSE, false),
                28 => self.flag(Flags::INVISIBLE, false),
                29 => self.flag(Flags::STRIKE, false),
                53 => self.flag(Flags::OVERLINE, true),
                55 => self.flag(Flags::OVERLINE, false),
                30..=37 => self.look.fg = Color::named((code - 30) as u8),
                40..=47 => self.look.bg = Color::named((code - 40) as u8),
                90..=97 => self.look.fg = Color::named((code - 90 + 8) as u8),
                100..=107 => self.look.bg = Color::named((code - 100 + 8) as u8),
                39 => self.look.fg = Color::default(),
                49 => self.look.bg = Color::default(),
                59 => self.set_underline_color(Color::default()),
                38 | 48 | 58 => at += self.set_color(sequence, at),
                _ => {}
            }
            at += 1;
        }
    }

    fn plain_look(&mut self) {
        let link = self.extras.rare(self.look.extra).link;
        if link != 0 {
            self.spend(self.extras.look_up_cost());
        }
        let extra = self.extras.number_of(RareAttrs { link, ..RareAttrs::default() });
        // A protected character is one whatever its look: but SGR 0 ends that too, as in xterm.js.
        self.look = Cell { extra, ..Cell::default() };
    }

    fn set_underline_color(&mut self, underline: Color) {
        let link = self.extras.rare(self.look.extra).link;
        self.spend(self.extras.look_up_cost());
        self.look.extra = self.extras.number_of(RareAttrs { underline, link });
    }

    /// 38, 48 and 58, with their values behind colons or semicolons. Gives how many parameters
    /// belong to it besides the first.
    fn set_color(&mut self, sequence: &Sequence, at: usize) -> usize {
        // The code, the kind, a colour space that nobody uses, and three values.
        let mut values = [0, 0, -1, 0, 0, 0];
        let mut space = 0;
        let mut advance = 0;
        loop {
            if advance + space >= values.len() {
                break;
            }
            values[advance + space] = sequence.param(at + advance);
            let subs = sequence.subs(at + advance);
            if !subs.is_empty() {
                for (index, sub) in subs.iter().enumerate() {
                    if values[1] == 5 {
                        space = 1;
                    }
                    let Some(value) = values.get_mut(advance + index + 1 + space) else { break };
                    *value = *sub;
                }
                break;
            }
            if (values[1] == 5 && advance + space >= 2) || (values[1] == 2 && advance + space >= 5)
            {
                break;
            }
            if values[1] != 0 {
                space = 1;
            }
            advance += 1;
            if at + advance >= sequence.len() || advance + space >= values.len() {
                break;
            }
        }
        let byte = |index: usize| (values[index].max(0) & 0xff) as u8;
        let color = match values[1] {
            2 => Some(Color::rgb(byte(3), byte(4), byte(5))),
            5 => Some(Color::indexed(byte(3))),
            _ => None,
        };
        if let Some(color) = color {
            match values[0] {
                38 => self.look.fg = color,
                48 => self.look.bg = color,
                _ => self.set_underline_color(color),
            }
        }
        advance
    }
}
