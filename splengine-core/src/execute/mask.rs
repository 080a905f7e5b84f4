//! Replacing secrets in what a program prints.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

/// Texts that are not to be seen, as an automaton that finds all of them at once (Aho and Corasick).
#[derive(Debug)]
pub(crate) struct Secrets {
    /// The first one is the root: nothing was read of any text.
    nodes: Vec<Node>,
    /// By the first byte of a text; the root where none begins with it.
    roots: [u32; 256],
}

/// So much of one text, or of several, was read.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    byte: u8,
    /// How many bytes that is.
    depth: u32,
    /// How long the longest text is that ends here, 0 for none.
    longest: u32,
    /// The node for the longest end of what was read that a text begins with, too.
    fallback: u32,
    /// The nodes with one byte more are a list, which ends with the root.
    child: u32,
    sibling: u32,
}

impl Secrets {
    /// `None` where there is nothing to hide.
    pub(crate) fn new<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Option<Arc<Self>> {
        let mut secrets = Self { nodes: vec![Node::default()], roots: [ROOT; 256] };
        for text in texts {
            secrets.add(text);
        }
        secrets.link();
        (secrets.nodes.len() > 1).then(|| Arc::new(secrets))
    }

    fn add(&mut self, text: &[u8]) {
        let mut node = ROOT;
        for byte in text {
            node = match self.child(node, *byte) {
                ROOT => self.grow(node, *byte),
                child => child,
            };
        }
        self.nodes[node as usize].longest = self.nodes[node as usize].depth;
    }

    fn grow(&mut self, parent: u32, byte: u8) -> u32 {
        let new = u32::try_from(self.nodes.len()).expect("texts are bounded");
        let Node { depth, child: sibling, .. } = self.nodes[parent as usize];
        self.nodes.push(Node { byte, depth: depth + 1, sibling, ..Node::default() });
        if parent == ROOT {
            self.roots[usize::from(byte)] = new;
        }
        self.nodes[parent as usize].child = new;
        new
    }

    /// Finds the fallbacks, the shortest first.
    fn link(&mut self) {
        let mut open = VecDeque::from([ROOT]);
        while let Some(parent) = open.pop_front() {
            let mut child = self.nodes[parent as usize].child;
            while child != ROOT {
                let Node { byte, sibling, .. } = self.nodes[child as usize];
                let fallback = match parent {
                    ROOT => ROOT,
                    parent => self.next(self.nodes[parent as usize].fallback, byte),
                };
                let shorter = self.nodes[fallback as usize].longest;
                let node = &mut self.nodes[child as usize];
                node.fallback = fallback;
                node.longest = node.longest.max(shorter);
                open.push_back(child);
                child = sibling;
            }
        }
    }

    fn child(&self, node: u32, byte: u8) -> u32 {
        if node == ROOT {
            return self.roots[usize::from(byte)];
        }
        let mut child = self.nodes[node as usize].child;
        while child != ROOT && self.nodes[child as usize].byte != byte {
            child = self.nodes[child as usize].sibling;
        }
        child
    }

    fn next(&self, mut node: u32, byte: u8) -> u32 {
        loop {
            match self.child(node, byte) {
                ROOT if node != ROOT => node = self.nodes[node as usize].fallback,
                child => return child,
            }
        }
    }
}

/// Replaces secrets in one stream, however it is cut. Holds back what may be the beginning of one: no
/// more than the longest is.
#[derive(Debug)]
pub(crate) struct Mask {
    secrets: Arc<Secrets>,
    node: u32,
    /// What was not given back yet, and at which place of the stream that begins.
    held: BytesMut,
    begin: u64,
    /// Where secrets are in it; those that overlap are one.
    found: VecDeque<(u64, u64)>,
    /// The end of one that was replaced already.
    hidden_until: u64,
}

impl Mask {
    pub(crate) fn new(secrets: Arc<Secrets>) -> Self {
        let (held, found) = (BytesMut::new(), VecDeque::new());
        Self { secrets, node: ROOT, held, begin: 0, found, hidden_until: 0 }
    }

    /// Takes what was printed; gives what can be seen of it by now.
    pub(crate) fn push(&mut self, data: Bytes) -> Bytes {
        let before = self.begin + self.held.len() as u64;
        for (place, byte) in (before + 1..).zip(&data) {
            self.node = self.secrets.next(self.node, *byte);
            let longest = self.secrets.nodes[self.node as usize].longest;
            if longest > 0 {
                self.find(place - u64::from(longest), place);
            }
        }
        let end = before + data.len() as u64;
        if self.held.is_empty()
            && self.node == ROOT
            && self.found.is_empty()
            && self.hidden_until <= before
        {
            self.begin = end;
            return data;
        }
        self.held.extend_from_slice(&data);
        self.give(end - u64::from(self.secrets.nodes[self.node as usize].depth))
    }

    /// What is left at the end.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.node = ROOT;
        self.give(self.begin + self.held.len() as u64)
    }

    fn find(&mut self, mut begin: u64, end: u64) {
        while let Some((first, last)) = self.found.back()
            && *last > begin
        {
            begin = begin.min(*first);
            self.found.pop_back();
        }
        if begin < self.hidden_until {
            self.hidden_until = end;
        } else {
            self.found.push_back((begin, end));
        }
    }

    /// What stands before this place, of which no secret can begin any more.
    fn give(&mut self, until: u64) -> Bytes {
        let mut given = BytesMut::new();
        while self.begin < until {
            let (end, is_hidden) = match self.found.front() {
                _ if self.begin < self.hidden_until => (self.hidden_until, true),
                Some((begin, end)) if *begin <= self.begin => {
                    given.extend_from_slice(STARS);
                    self.hidden_until = *end;
                    self.found.pop_front();
                    continue;
                }
                Some((begin, _)) => (*begin, false),
                None => (until, false),
            };
            let length = usize::try_from(end.min(until) - self.begin).expect("held");
            if !is_hidden {
                given.extend_from_slice(&self.held[..length]);
            }
            self.held.advance(length);
            self.begin += length as u64;
        }
        given.freeze()
    }
}

const ROOT: u32 = 0;
const STARS: &[u8] = b"***";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(secrets: &[&[u8]], pieces: &[&[u8]]) -> Vec<u8> {
        let Some(secrets) = Secrets::new(secrets.iter().copied()) else { return pieces.concat() };
        let mut mask = Mask::new(secrets);
        let mut seen = Vec::new();
        for piece in pieces {
            seen.extend(mask.push(Bytes::copy_from_slice(piece)));
        }
        seen.extend(mask.finish());
        seen
    }

    /// The same, by looking for each at each place.
    fn expected(secrets: &[&[u8]], text: &[u8]) -> Vec<u8> {
        let mut hidden = vec![false; text.len()];
        // Whether a secret begins here that none before it overlaps.
        let mut begins = vec![false; text.len()];
        let mut until = 0;
        for place in 0..text.len() {
            let longest = secrets.iter().filter(|secret| text[place..].starts_with(secret));
            let Some(longest) = longest.map(|secret| secret.len()).max().filter(|len| *len > 0)
            else {
                continue;
            };
            begins[place] = place >= until;
            until = until.max(place + longest);
            hidden[place..place + longest].fill(true);
        }
        let mut seen = Vec::new();
        for (place, byte) in text.iter().enumerate() {
            if begins[place] {
                seen.extend_from_slice(STARS);
            }
            if !hidden[place] {
                seen.push(*byte);
            }
        }
        seen
    }

    #[test]
    fn secrets_are_found_however_they_are_cut() {
        let secrets: &[&[u8]] = &[b"hunter2", b"hunt"];
        assert_eq!(masked(secrets, &[b"a hunter2 b"]), b"a *** b");
        assert_eq!(masked(secrets, &[b"a hun", b"te", b"r2", b" b"]), b"a *** b");
        assert_eq!(masked(secrets, &[b"hunting hun"]), b"***ing hun");
        assert_eq!(masked(&[], &[b"as it is"]), b"as it is");
        assert_eq!(masked(&[b""], &[b"as it is"]), b"as it is");
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let secrets = Secrets::new([b"aaaaaaaa".as_slice()]).expect("one");
        let mut mask = Mask::new(secrets);
        for _ in 0..1000 {
            mask.push(Bytes::from_static(&[b'a'; 100]));
            assert!(mask.held.len() <= 8 && mask.found.len() <= 1);
        }
        let mut mask = Mask::new(Secrets::new([b"secret".as_slice()]).expect("one"));
        assert_eq!(mask.push(Bytes::from_static(b"at once\n")), "at once\n");
        assert_eq!(mask.push(Bytes::from_static(b"ends: sec")), "ends: ");
    }

    proptest! {
        #[test]
        fn all_are_replaced_and_nothing_else(
            secrets in prop::collection::vec(prop::collection::vec(97u8..100, 0..6), 0..5),
            pieces in prop::collection::vec(prop::collection::vec(97u8..100, 0..12), 0..8),
        ) {
            let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(masked(&secrets, &pieces), expected(&secrets, &pieces.concat()));
        }
    }
}
