//! How many headers a block has, and which of them are put into the dynamic table of HPACK.

/// Walks through a block of headers as far as it takes to count them, and those that are put into the dynamic table
/// (RFC 7541, sections 5 and 6): it decodes no string, and takes whatever bytes come.
#[derive(Debug, Default)]
pub(crate) struct HpackWalk {
    next: Next,
    /// An integer that goes on: what is known of it, and by how much the next byte is shifted.
    integer: Option<(usize, u32)>,
    /// So many bytes of a string are left.
    string: usize,
    is_inserted: bool,
}

/// What was found in a part of a block.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fields {
    /// How many headers begin in it.
    pub(crate) count: usize,
    /// How many are known by it to go into the table.
    pub(crate) inserted: usize,
}

/// What begins next.
#[derive(Debug, Default, Clone, Copy)]
enum Next {
    #[default]
    Field,
    /// An index follows that is all of the field, or the new size of the table.
    Short,
    /// The index of a name follows, or zero and then the name.
    NameIndex,
    Name,
    Value,
}

impl HpackWalk {
    /// Goes on by the next bytes of the block.
    pub(crate) fn advance(&mut self, mut bytes: &[u8]) -> Fields {
        let mut found = Fields::default();
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.string > 0 {
                let skipped = self.string.min(bytes.len());
                self.string -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            let value = match self.integer.take() {
                Some((value, shift)) => {
                    let more = usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(usize::MAX);
                    let value = value.saturating_add(more);
                    if byte & 0x80 != 0 {
                        self.integer = Some((value, shift.saturating_add(7).min(MAX_SHIFT)));
                        continue;
                    }
                    value
                }
                None => {
                    found.count += usize::from(matches!(self.next, Next::Field));
                    let prefix = self.begin(byte);
                    let value = byte & prefix;
                    if value == prefix {
                        self.integer = Some((usize::from(value), 0));
                        continue;
                    }
                    usize::from(value)
                }
            };
            found.inserted += usize::from(self.take(value));
        }
        found
    }

    /// Takes the first byte of what begins next, and returns the bits in which its integer begins.
    fn begin(&mut self, byte: u8) -> u8 {
        if !matches!(self.next, Next::Field) {
            // The length of a string, and whether it is coded by Huffman.
            return 0x7f;
        }
        let (next, prefix) = match byte {
            0x80.. => (Next::Short, 0x7f),
            0x40.. => (Next::NameIndex, 0x3f),
            0x20.. => (Next::Short, 0x1f),
            _ => (Next::NameIndex, 0x0f),
        };
        self.is_inserted = (0x40..0x80).contains(&byte);
        self.next = next;
        prefix
    }

    /// Takes an integer, and returns whether with it a field is known that goes into the table.
    fn take(&mut self, value: usize) -> bool {
        match self.next {
            Next::Field | Next::Short => self.next = Next::Field,
            Next::NameIndex => self.next = if value == 0 { Next::Name } else { Next::Value },
            Next::Name => (self.string, self.next) = (value, Next::Value),
            Next::Value => {
                (self.string, self.next) = (value, Next::Field);
                return self.is_inserted;
            }
        }
        false
    }
}

/// No integer of a client has as many bits.
const MAX_SHIFT: u32 = 28;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn integer(block: &mut Vec<u8>, first: u8, prefix: u8, mut value: usize) {
        if value < usize::from(prefix) {
            block.push(first | value as u8);
            return;
        }
        block.push(first | prefix);
        value -= usize::from(prefix);
        while value >= 0x80 {
            block.push(0x80 | (value & 0x7f) as u8);
            value >>= 7;
        }
        block.push(value as u8);
    }

    /// A field of one of the kinds, which goes into the table if its kind is 1.
    fn field(
        block: &mut Vec<u8>,
        kind: u8,
        index: usize,
        name: usize,
        value: usize,
        huffman: bool,
    ) {
        let (first, prefix) =
            [(0x80, 0x7f), (0x40, 0x3f), (0x20, 0x1f), (0x10, 0x0f), (0, 0x0f)][usize::from(kind)];
        integer(block, first, prefix, index);
        if matches!(kind, 1 | 3 | 4) {
            let mut string = |length| {
                integer(block, if huffman { 0x80 } else { 0 }, 0x7f, length);
                // As if a field that is inserted began with each byte.
                block.resize(block.len() + length, 0x40);
            };
            if index == 0 {
                string(name);
            }
            string(value);
        }
    }

    #[test]
    fn examples_of_the_specification_are_walked_through() {
        // Appendix C.2.1, C.2.2, C.2.3 and C.2.4.
        let inserted = b"\x40\x0acustom-key\x0dcustom-header";
        let found = |block: &[u8]| {
            let Fields { count, inserted } = HpackWalk::default().advance(block);
            (count, inserted)
        };
        assert_eq!(found(inserted), (1, 1));
        assert_eq!(found(b"\x04\x0c/sample/path"), (1, 0));
        assert_eq!(found(b"\x10\x08password\x06secret"), (1, 0));
        assert_eq!(found(b"\x82"), (1, 0));
        // Appendix C.4.1, by Huffman: the authority goes into the table.
        let request = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(found(request), (4, 1));
    }

    proptest! {
        #[test]
        fn all_that_is_inserted_is_found(
            fields in prop::collection::vec(
                (0_u8..5, 0_usize..300, 0_usize..300, 0_usize..9000, any::<bool>()),
                0..20,
            ),
            cut in 1_usize..50,
        ) {
            let mut block = Vec::new();
            for &(kind, index, name, value, huffman) in &fields {
                field(&mut block, kind, index, name, value, huffman);
            }
            let inserted = fields.iter().filter(|(kind, ..)| *kind == 1).count();
            let mut walk = HpackWalk::default();
            let found = block.chunks(cut).map(|piece| walk.advance(piece));
            let found = found.fold((0, 0), |sum, of| (sum.0 + of.count, sum.1 + of.inserted));
            prop_assert_eq!(found, (fields.len(), inserted));
        }

        #[test]
        fn whatever_comes_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(HpackWalk::default().advance(&bytes).count <= bytes.len());
        }
    }
}
