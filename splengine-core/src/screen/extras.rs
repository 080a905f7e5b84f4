//! Data that few cells have, kept apart so that cells stay small: texts of several characters, links,
//! and colours of underlines. Each is bounded; beyond the bound a cell does without.

use std::collections::{BTreeMap, HashMap};

use super::cell::{Cell, Color};
use super::row::Row;
use super::width::width;

#[derive(Debug, Default)]
pub(super) struct Extras {
    texts: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u32>,
    /// How many there were after the last sweep.
    swept: usize,
    /// So many texts are to come before it is swept again, since the last sweep found too little.
    rests: usize,
    /// The same for links and underlines.
    rare_rests: usize,
    /// What the numbers of cells stand for; 0 is nothing.
    rare: Vec<RareAttrs>,
    links: Vec<Link>,
    pub(super) colors: Colors,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RareAttrs {
    pub(super) underline: Color,
    /// The number of a link, from 1.
    pub(super) link: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Those with the same name are one link; without, each is its own.
    pub(super) name: String,
    pub(super) address: String,
}

/// The colours that a program has set, as `#rrggbb`.
#[derive(Debug, Clone, Default)]
pub(super) struct Colors {
    pub(super) palette: BTreeMap<u8, [u8; 3]>,
    /// Of the text, its background and the cursor.
    pub(super) special: [Option<[u8; 3]>; 3],
    /// What these are where a program has set none; `None` is white on black.
    pub(super) defaults: Option<[[u8; 3]; 3]>,
}

impl Extras {
    /// What stands for `text` with `mark` added.
    pub(super) fn combined(&mut self, text: u32, mark: char) -> u32 {
        let mut whole = String::new();
        self.write(text, &mut whole);
        if whole.len() >= MAX_TEXT_BYTES {
            return text;
        }
        whole.push(mark);
        if let Some(number) = self.numbers.get(whole.as_str()) {
            return Cell::COMBINED | number;
        }
        if self.texts.len() >= MAX_TEXTS {
            return text;
        }
        let number = self.texts.len() as u32;
        self.texts.push(whole.clone().into());
        self.numbers.insert(whole.into(), number);
        Cell::COMBINED | number
    }

    /// Adds what `text` stands for.
    pub(super) fn write(&self, text: u32, to: &mut String) {
        if text & Cell::COMBINED != 0 {
            to.push_str(self.texts.get((text & !Cell::COMBINED) as usize).map_or("", |text| text));
        } else if let Some(character) = char::from_u32(text).filter(|_| text != 0) {
            to.push(character);
        }
    }

    /// Adds what `text` stands for, with a space before marks that have no character, which would
    /// join what stands before them.
    pub(super) fn write_with_base(&self, text: u32, to: &mut String) {
        let begin = to.len();
        self.write(text, to);
        if to[begin..].chars().next().is_some_and(|first| width(first) == 0) {
            to.insert(begin, ' ');
        }
    }

    /// Returns whether to [`sweep`](Self::sweep): rarely where most of the texts are in use, since that
    /// is a look at every cell.
    pub(super) fn wants_sweep(&mut self) -> bool {
        if self.rests > 0 {
            self.rests -= 1;
            return false;
        }
        self.texts.len() >= MAX_TEXTS || self.texts.len() >= 2 * self.swept.max(2048)
    }

    /// Forgets texts that no cell has any more.
    pub(super) fn sweep<'a>(&mut self, rows: impl Iterator<Item = &'a mut Row>) {
        let old = std::mem::take(&mut self.texts);
        self.numbers.clear();
        for row in rows {
            for at in 0..row.cells().len() {
                let mut cell = row.get(at);
                if cell.text & Cell::COMBINED == 0 {
                    continue;
                }
                let Some(text) = old.get((cell.text & !Cell::COMBINED) as usize) else { continue };
                let number = *self.numbers.entry(text.clone()).or_insert_with(|| {
                    self.texts.push(text.clone());
                    (self.texts.len() - 1) as u32
                });
                cell.text = Cell::COMBINED | number;
                row.set(at, cell);
            }
        }
        self.swept = self.texts.len();
        self.rests = SWEEP_INTERVAL;
    }

    /// Returns whether to [`sweep_rare`](Self::sweep_rare).
    pub(super) fn wants_rare_sweep(&mut self) -> bool {
        if self.rare_rests > 0 {
            self.rare_rests -= 1;
            return false;
        }
        self.rare.len() >= MAX_RARE || self.links.len() >= MAX_LINKS
    }

    /// What it costs to look for a link or an underline among those that there are, in cells.
    pub(super) fn look_up_cost(&self) -> usize {
        self.rare.len() + 4 * self.links.len()
    }

    pub(super) fn rare(&self, number: u16) -> RareAttrs {
        match number {
            0 => RareAttrs::default(),
            number => self.rare.get(usize::from(number) - 1).copied().unwrap_or_default(),
        }
    }

    pub(super) fn number_of(&mut self, rare: RareAttrs) -> u16 {
        if rare == RareAttrs::default() {
            return 0;
        }
        if let Some(at) = self.rare.iter().rposition(|known| *known == rare) {
            return at as u16 + 1;
        }
        if self.rare.len() >= MAX_RARE {
            return 0;
        }
        self.rare.push(rare);
        self.rare.len() as u16
    }

    pub(super) fn link(&self, number: u16) -> Option<&Link> {
        self.links.get(usize::from(number).checked_sub(1)?)
    }

    pub(super) fn number_of_link(&mut self, name: &str, address: &str) -> u16 {
        let link = Link { name: name.to_owned(), address: address.to_owned() };
        if !name.is_empty()
            && let Some(at) = self.links.iter().position(|known| *known == link)
        {
            return at as u16 + 1;
        }
        let bytes: usize = name.len() + address.len();
        if self.links.len() >= MAX_LINKS || bytes > MAX_LINK_BYTES {
            return 0;
        }
        self.links.push(link);
        self.links.len() as u16
    }

    /// Forgets links and underlines that no cell has any more.
    pub(super) fn sweep_rare<'a>(
        &mut self,
        look: &mut Cell,
        rows: impl Iterator<Item = &'a mut Row>,
    ) {
        self.rare_rests = SWEEP_INTERVAL;
        let old = Self {
            rare: std::mem::take(&mut self.rare),
            links: std::mem::take(&mut self.links),
            ..Self::default()
        };
        let mut numbers: HashMap<u16, u16> = HashMap::new();
        let mut links: HashMap<u16, u16> = HashMap::new();
        let mut renumber = |number: u16, new: &mut Self| {
            if number == 0 {
                return 0;
            }
            if let Some(number) = numbers.get(&number) {
                return *number;
            }
            let mut rare = old.rare(number);
            if let Some(link) = old.link(rare.link) {
                rare.link = *links.entry(rare.link).or_insert_with(|| {
                    new.links.push(link.clone());
                    new.links.len() as u16
                });
            }
            let renumbered = new.number_of(rare);
            numbers.insert(number, renumbered);
            renumbered
        };
        look.extra = renumber(look.extra, self);
        for row in rows {
            for at in 0..row.cells().len() {
                let mut cell = row.get(at);
                if cell.extra != 0 {
                    cell.extra = renumber(cell.extra, self);
                    row.set(at, cell);
                }
            }
        }
    }
}

const MAX_TEXTS: usize = 32 << 10;
const MAX_TEXT_BYTES: usize = 64;
/// Number of texts, or links, between two sweeps at the least.
const SWEEP_INTERVAL: usize = 256;
const MAX_RARE: usize = 4096;
const MAX_LINKS: usize = 2048;
const MAX_LINK_BYTES: usize = 4096;
