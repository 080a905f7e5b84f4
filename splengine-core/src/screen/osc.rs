//! Operating system commands: titles, links, colours.

use super::extras::RareAttrs;
use super::term::Term;

impl Term {
    pub(super) fn command(&mut self, data: &[u8]) {
        let split = data.iter().position(|byte| *byte == b';');
        let (code, rest) = match split {
            Some(at) => (&data[..at], &data[at + 1..]),
            None => (data, &data[data.len()..]),
        };
        let code = std::str::from_utf8(code).ok().filter(|code| !code.is_empty());
        let Some(code) = code.and_then(|code| code.parse::<u32>().ok()) else { return };
        let text = String::from_utf8_lossy(rest);
        match code {
            0 | 2 => {
                let mut end = text.len().min(MAX_TITLE_BYTES);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text[..end].clone_into(&mut self.title);
            }
            4 => self.palette(&text),
            8 => self.link(&text),
            10..=12 => self.special_color(code as usize - 10, &text),
            104 if text.is_empty() => self.extras.colors.palette.clear(),
            104 => {
                for index in text.split(';').filter_map(|index| index.parse().ok()) {
                    self.extras.colors.palette.remove(&index);
                }
            }
            110..=112 => self.extras.colors.special[code as usize - 110] = None,
            _ => {}
        }
    }

    fn link(&mut self, text: &str) {
        let Some((params, address)) = text.split_once(';') else { return };
        let underline = self.extras.rare(self.look.extra).underline;
        let link = if address.is_empty() {
            if !params.trim().is_empty() {
                return;
            }
            0
        } else {
            let name = params.split(':').find_map(|param| param.strip_prefix("id="));
            if self.extras.wants_rare_sweep() {
                self.spend_all();
                let (normal, alternate) = (&mut self.normal.rows, &mut self.alternate.rows);
                self.extras.sweep_rare(&mut self.look, normal.iter_mut().chain(alternate));
            }
            self.spend(self.extras.look_up_cost());
            self.extras.number_of_link(name.unwrap_or_default(), address)
        };
        self.look.extra = self.extras.number_of(RareAttrs { underline, link });
    }

    /// Pairs of an index and a colour; `?` asks for it.
    fn palette(&mut self, text: &str) {
        let parts: Vec<&str> = text.split(';').collect();
        for pair in parts.chunks_exact(2) {
            let Ok(index) = pair[0].parse::<u8>() else { continue };
            if pair[1] == "?" {
                let color = self.extras.colors.palette.get(&index).copied();
                let color = spec(color.unwrap_or_else(|| usual(index)));
                self.replies.push(&format!("\x1b]4;{index};{color}\x1b\\"));
            } else if let Some(color) = parse(pair[1]) {
                self.extras.colors.palette.insert(index, color);
            }
        }
    }

    /// Colours of the text, the background and the cursor, from `first` on.
    fn special_color(&mut self, first: usize, text: &str) {
        for (which, part) in (first..3).zip(text.split(';')) {
            if part == "?" {
                let defaults = self.extras.colors.defaults.unwrap_or([[255; 3], [0; 3], [255; 3]]);
                let color = spec(self.extras.colors.special[which].unwrap_or(defaults[which]));
                self.replies.push(&format!("\x1b]{};{color}\x1b\\", which + 10));
            } else if let Some(color) = parse(part) {
                self.extras.colors.special[which] = Some(color);
            }
        }
    }
}

/// A colour as X11 writes it (XParseColor(3)).
pub(super) fn spec([red, green, blue]: [u8; 3]) -> String {
    format!("rgb:{red:02x}{red:02x}/{green:02x}{green:02x}/{blue:02x}{blue:02x}")
}

fn parse(text: &str) -> Option<[u8; 3]> {
    let scaled = |digits: &str| {
        let value = u32::from_str_radix(digits, 16).ok()?;
        let most = 16u32.checked_pow(u32::try_from(digits.len()).ok()?)? - 1;
        u8::try_from((value * 255 + most / 2) / most).ok()
    };
    if let Some(rest) = text.strip_prefix("rgb:") {
        let parts: Vec<&str> = rest.split('/').collect();
        let fits = parts.len() == 3
            && parts.iter().all(|part| (1..=4).contains(&part.len()) && part.is_ascii());
        return fits.then(|| Some([scaled(parts[0])?, scaled(parts[1])?, scaled(parts[2])?]))?;
    }
    let digits = text.strip_prefix('#').filter(|digits| digits.is_ascii())?;
    let each = match digits.len() {
        3 | 6 | 9 | 12 => digits.len() / 3,
        _ => return None,
    };
    Some([scaled(&digits[..each])?, scaled(&digits[each..2 * each])?, scaled(&digits[2 * each..])?])
}

/// The palette that terminals come with.
fn usual(index: u8) -> [u8; 3] {
    const NAMED: [u32; 16] = [
        0x2e3436, 0xcc0000, 0x4e9a06, 0xc4a000, 0x3465a4, 0x75507b, 0x06989a, 0xd3d7cf, 0x555753,
        0xef2929, 0x8ae234, 0xfce94f, 0x729fcf, 0xad7fa8, 0x34e2e2, 0xeeeeec,
    ];
    match index {
        0..=15 => {
            let [_, red, green, blue] = NAMED[usize::from(index)].to_be_bytes();
            [red, green, blue]
        }
        16..=231 => {
            let level = |value: u8| if value == 0 { 0 } else { 55 + 40 * value };
            let value = index - 16;
            [level(value / 36), level(value / 6 % 6), level(value % 6)]
        }
        _ => [8 + 10 * (index - 232); 3],
    }
}

const MAX_TITLE_BYTES: usize = 1024;
