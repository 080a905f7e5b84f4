//! What of the bytes that a client of HTTP/2 sends its library keeps, and how.

use std::collections::VecDeque;

use crate::net::hpack::HpackWalk;

/// Follows the frames that a client of HTTP/2 sends (RFC 9113, sections 3.4, 4.1, 6.1, 6.2 and 6.10), as far as it
/// takes to know what of them the library may keep. It decodes none of them, and takes whatever bytes come.
#[derive(Debug)]
pub(crate) struct Http2Frames {
    at: Position,
    /// How many bytes have come.
    count: u64,
    /// The request that was begun last: what comes later of it, or of one before it, are trailers.
    last_stream: u32,
    block: Block,
    table: Table,
}

/// What some bytes of a client were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// How many requests they began.
    pub(crate) requests: usize,
    /// How much memory trailers among them take.
    pub(crate) trailers: usize,
    /// How many frames of bodies they began, but for empty ones.
    pub(crate) data_frames: usize,
    /// How many bytes those frames have.
    pub(crate) data_bytes: usize,
}

/// A block of headers, which may be in several frames.
#[derive(Debug, Default)]
struct Block {
    are_trailers: bool,
    /// How much memory it takes as far as it has come.
    memory: usize,
    walk: HpackWalk,
}

/// What the dynamic table of HPACK may hold of what was read: an entry keeps the buffer that it was cut out of.
#[derive(Debug, Default)]
struct Table {
    /// What there was before each entry and after the one before it.
    gaps: VecDeque<u16>,
    bytes: usize,
    last: u64,
}

#[derive(Debug)]
enum Position {
    /// In what every client of HTTP/2 begins with.
    Preface {
        seen: usize,
    },
    Header {
        header: [u8; HEADER_BYTES],
        seen: usize,
    },
    Payload {
        left: usize,
        kind: Payload,
    },
    /// In another protocol.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payload {
    Headers {
        are_last: bool,
        /// The first byte is how many there are at the end that mean nothing.
        is_padded: bool,
        /// So many bytes come before the headers.
        before: usize,
        /// So many bytes come after them.
        after: usize,
    },
    Other,
}

impl Http2Frames {
    pub(crate) fn new() -> Self {
        Self {
            at: Position::Preface { seen: 0 },
            count: 0,
            last_stream: 0,
            block: Block::default(),
            table: Table::default(),
        }
    }

    /// Whether the client has begun as one of HTTP/2 does.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.at, Position::Header { .. } | Position::Payload { .. })
    }

    /// How much memory the head of a request takes that has not come to its end.
    pub(crate) fn unfinished_head(&self) -> usize {
        if self.block.are_trailers { 0 } else { self.block.memory }
    }

    /// How many bytes the dynamic table of HPACK may hold, at most.
    pub(crate) fn table_bytes(&self) -> usize {
        self.table.bytes
    }

    /// Goes on by what has come next, but no further than up to the header of the frame that would begin one request
    /// more than `max_requests`, header included. Returns how far it went.
    pub(crate) fn advance(&mut self, bytes: &[u8], max_requests: usize) -> (usize, Arrived) {
        let mut arrived = Arrived::default();
        let mut rest = bytes;
        while !rest.is_empty() && !matches!(self.at, Position::Other) {
            if let Position::Header { header, seen: HEADER_BYTES } = self.at {
                if self.is_request(header) && arrived.requests >= max_requests {
                    break;
                }
                self.begin(header, &mut arrived);
                continue;
            }
            let taken = self.step(rest, &mut arrived);
            self.count += taken as u64;
            rest = &rest[taken..];
        }
        match self.at {
            Position::Other => rest = &[],
            // One that has no payload.
            Position::Header { header, seen: HEADER_BYTES }
                if !self.is_request(header) || arrived.requests < max_requests =>
            {
                self.begin(header, &mut arrived);
            }
            _ => {}
        }
        (bytes.len() - rest.len(), arrived)
    }

    /// Takes some of `bytes`, and returns how many.
    fn step(&mut self, bytes: &[u8], arrived: &mut Arrived) -> usize {
        match &mut self.at {
            Position::Other => bytes.len(),
            Position::Preface { seen } => {
                let taken = bytes.len().min(PREFACE.len() - *seen);
                let is_expected = PREFACE[*seen..].starts_with(&bytes[..taken]);
                *seen += taken;
                if !is_expected {
                    self.at = Position::Other;
                } else if *seen == PREFACE.len() {
                    self.at = NEXT_HEADER;
                }
                taken
            }
            Position::Header { header, seen } => {
                let taken = bytes.len().min(HEADER_BYTES - *seen);
                header[*seen..*seen + taken].copy_from_slice(&bytes[..taken]);
                *seen += taken;
                taken
            }
            Position::Payload { left, kind: Payload::Other } => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                if *left == 0 {
                    self.at = NEXT_HEADER;
                }
                taken
            }
            Position::Payload {
                left,
                kind: Payload::Headers { are_last, is_padded, before, after },
            } => {
                if *is_padded {
                    (*is_padded, *after) = (false, usize::from(bytes[0]));
                }
                let (are_last, after) = (*are_last, *after);
                let taken;
                if *before > 0 {
                    taken = bytes.len().min(*before).min(*left);
                    *before -= taken;
                } else {
                    let headers = left.saturating_sub(after);
                    taken = bytes.len().min(if headers > 0 { headers } else { *left });
                    if headers > 0 {
                        let found = self.block.walk.advance(&bytes[..taken]);
                        self.table.insert(found.inserted, self.count + taken as u64);
                        let memory = 2 * taken + FIELD_BYTES * found.count;
                        self.block.memory = self.block.memory.saturating_add(memory);
                        arrived.trailers += if self.block.are_trailers { memory } else { 0 };
                    }
                }
                *left -= taken;
                let is_over = *left == 0;
                if is_over {
                    self.end(are_last);
                }
                taken
            }
        }
    }

    fn is_request(&self, header: [u8; HEADER_BYTES]) -> bool {
        let [_, _, _, kind, _, s, t, u, v] = header;
        let stream = u32::from_be_bytes([s, t, u, v]) & STREAM_BITS;
        kind == HEADERS && stream > self.last_stream
    }

    /// Begins the payload of a frame.
    fn begin(&mut self, header: [u8; HEADER_BYTES], arrived: &mut Arrived) {
        let [a, b, c, kind, flags, s, t, u, v] = header;
        let left = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([s, t, u, v]) & STREAM_BITS;
        let are_last = flags & END_HEADERS != 0;
        let kind = match kind {
            HEADERS => {
                let is_request = self.is_request(header);
                self.block = Block { are_trailers: !is_request, ..Block::default() };
                self.last_stream = self.last_stream.max(stream);
                arrived.requests += usize::from(is_request);
                let is_padded = flags & PADDED != 0;
                let before = usize::from(is_padded) + if flags & PRIORITY == 0 { 0 } else { 5 };
                Payload::Headers { are_last, is_padded, before, after: 0 }
            }
            // No client may send one; it is refused once it is whole.
            PUSH_PROMISE => {
                self.block = Block::default();
                Payload::Headers { are_last, is_padded: false, before: 0, after: 0 }
            }
            CONTINUATION => Payload::Headers { are_last, is_padded: false, before: 0, after: 0 },
            DATA => {
                arrived.data_frames += usize::from(left > 0);
                arrived.data_bytes += left;
                Payload::Other
            }
            _ => Payload::Other,
        };
        self.at = Position::Payload { left, kind };
        if left == 0 {
            match kind {
                Payload::Headers { are_last, .. } => self.end(are_last),
                Payload::Other => self.at = NEXT_HEADER,
            }
        }
    }

    /// Ends a frame of headers.
    fn end(&mut self, are_last: bool) {
        if are_last {
            self.block = Block::default();
        }
        self.at = NEXT_HEADER;
    }
}

impl Table {
    /// Notes that entries were put into it by what had come up to `count` bytes.
    fn insert(&mut self, entries: usize, count: u64) {
        for _ in 0..entries {
            // What was decoded may have up to 1.6 times as many bytes.
            let gap = (2 * (count - self.last)).min(BUFFER_BYTES as u64) as u16;
            self.last = count;
            if self.gaps.len() == MAX_ENTRIES {
                self.bytes -= usize::from(self.gaps.pop_front().unwrap_or_default());
            }
            self.gaps.push_back(gap);
            self.bytes += usize::from(gap);
        }
    }
}

/// What a header takes beside its name and value, which are counted twice: they may be decoded to 1.6 times as much.
const FIELD_BYTES: usize = 128;
/// What the library reads at once into one buffer.
pub(crate) const BUFFER_BYTES: usize = 8 << 10;
/// The dynamic table has 4,096 bytes, of which an entry takes 33 at least (RFC 7541, section 4.1).
const MAX_ENTRIES: usize = 4096 / 33;
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
const NEXT_HEADER: Position = Position::Header { header: [0; HEADER_BYTES], seen: 0 };
/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
/// Flags of frames with headers.
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
const STREAM_BITS: u32 = u32::MAX >> 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Arrived = Arrived { requests: 0, trailers: 0, data_frames: 0, data_bytes: 0 };
    const REQUEST: Arrived = Arrived { requests: 1, ..NOTHING };

    /// What one of a byte takes.
    const FIELD: usize = FIELD_BYTES + 2;

    fn trailers(trailers: usize) -> Arrived {
        Arrived { trailers, ..NOTHING }
    }

    fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        frame_of(kind, flags, stream, &vec![0x82; payload])
    }

    /// Takes all of it.
    fn arrived(frames: &mut Http2Frames, bytes: &[u8]) -> Arrived {
        let (taken, arrived) = frames.advance(bytes, usize::MAX);
        assert_eq!(taken, bytes.len());
        arrived
    }

    fn begun() -> Http2Frames {
        let mut frames = Http2Frames::new();
        assert_eq!(arrived(&mut frames, PREFACE), NOTHING);
        assert!(frames.is_http2());
        frames
    }

    #[test]
    fn headers_of_a_request_that_was_begun_are_trailers() {
        let mut frames = begun();
        // A head in two frames, and the part of one.
        assert_eq!(arrived(&mut frames, &frame(HEADERS, 0, 1, 100)), REQUEST);
        assert_eq!(frames.unfinished_head(), 100 * FIELD);
        assert_eq!(arrived(&mut frames, &frame(CONTINUATION, END_HEADERS, 1, 50)), NOTHING);
        assert_eq!(frames.unfinished_head(), 0);
        let data = Arrived { data_frames: 1, data_bytes: 9, ..NOTHING };
        assert_eq!(arrived(&mut frames, &frame(DATA, 0, 1, 9)), data);
        assert_eq!(arrived(&mut frames, &frame(DATA, 1, 1, 0)), NOTHING, "an empty one");
        assert_eq!(arrived(&mut frames, &frame(HEADERS, END_HEADERS, 3, 70)), REQUEST);
        // Trailers of the first, with the bit that means nothing.
        let reserved = 1 | !STREAM_BITS;
        assert_eq!(arrived(&mut frames, &frame(HEADERS, 1, reserved, 20)), trailers(20 * FIELD));
        assert_eq!(arrived(&mut frames, &frame(CONTINUATION, 0, 1, 0)), NOTHING);
        assert_eq!(
            arrived(&mut frames, &frame(CONTINUATION, END_HEADERS, 1, 30)),
            trailers(30 * FIELD)
        );
        assert_eq!(
            arrived(&mut frames, &frame(HEADERS, 1 | END_HEADERS, 3, 7)),
            trailers(7 * FIELD)
        );
        assert_eq!(arrived(&mut frames, &frame(HEADERS, END_HEADERS, 5, 70)), REQUEST, "the next");
    }

    #[test]
    fn an_unfinished_promise_counts_as_a_head() {
        let mut frames = begun();
        assert_eq!(arrived(&mut frames, &frame(PUSH_PROMISE, 0, 1, 100)), NOTHING);
        assert_eq!(frames.unfinished_head(), 100 * FIELD);
    }

    #[test]
    fn only_so_many_requests_are_begun() {
        let mut frames = begun();
        let bytes: Vec<u8> =
            (0..4).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, 10)).collect();
        let (taken, first) = frames.advance(&bytes, 2);
        // To the header of the third.
        assert_eq!((taken, first.requests), (2 * 19 + 9, 2));
        assert_eq!(frames.advance(&bytes[taken..], 0), (0, NOTHING));
        let (more, rest) = frames.advance(&bytes[taken..], 1);
        assert_eq!((more, rest.requests), (10 + 9, 1));
        assert_eq!(arrived(&mut frames, &bytes[taken + more..]), REQUEST);
    }

    #[test]
    fn what_the_table_may_hold_is_known() {
        let inserted = b"\x40\x01a\x01b";
        let mut frames = begun();
        arrived(&mut frames, &frame_of(HEADERS, END_HEADERS, 1, inserted));
        let first = frames.table_bytes();
        assert_eq!(first, 2 * (24 + 9 + 5), "all that had come");
        // Padding and a priority are none of it; nor are fields that are not inserted.
        let padded = [&[3, 0, 0, 0, 0, 7][..], b"\x82\x40\x01a\x01b\x40\x40\x40"].concat();
        arrived(&mut frames, &frame_of(HEADERS, PADDED | PRIORITY, 3, &padded));
        arrived(&mut frames, &frame_of(CONTINUATION, END_HEADERS, 3, b"\x82"));
        assert_eq!(frames.table_bytes(), first + 2 * (9 + 12), "up to its end");
        // Each keeps a buffer, when much comes between them; the table is not endless.
        for stream in 0..300 {
            arrived(&mut frames, &frame(0xbb, 0, 0, 9000));
            arrived(&mut frames, &frame_of(HEADERS, END_HEADERS, 2 * stream + 5, inserted));
        }
        assert_eq!(frames.table_bytes(), MAX_ENTRIES * BUFFER_BYTES);
        // When nothing does, they lie together.
        for stream in 0..300 {
            arrived(&mut frames, &frame_of(HEADERS, END_HEADERS, 2 * stream + 605, inserted));
        }
        assert_eq!(frames.table_bytes(), MAX_ENTRIES * 2 * 14);
    }

    #[test]
    fn another_protocol_has_no_frames() {
        for other in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.0\r\n\r\nSM\r\n\r\n", b"\x16"]
        {
            let mut frames = Http2Frames::new();
            let mut bytes = other.to_vec();
            bytes.extend(frame(HEADERS, END_HEADERS, 0, 70));
            assert_eq!(arrived(&mut frames, &bytes), NOTHING);
            assert!(!frames.is_http2() && frames.unfinished_head() == 0);
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_is_all_the_same(
            pieces in prop::collection::vec(
                (0_u8..12, any::<u8>(), 0_u32..6, prop::collection::vec(any::<u8>(), 0..40)),
                0..20,
            ),
            cuts in prop::collection::vec(1_usize..30, 1..20),
        ) {
            let mut bytes = PREFACE.to_vec();
            for (kind, flags, stream, payload) in pieces {
                bytes.extend(frame_of(kind, flags, stream, &payload));
            }
            let mut whole = Http2Frames::new();
            let expected = arrived(&mut whole, &bytes);
            let mut cut = Http2Frames::new();
            let mut found = NOTHING;
            let mut cuts = cuts.iter().cycle();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, next) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
                let now = arrived(&mut cut, piece);
                found.requests += now.requests;
                found.trailers += now.trailers;
                found.data_frames += now.data_frames;
                found.data_bytes += now.data_bytes;
                rest = next;
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(cut.unfinished_head(), whole.unfinished_head());
        }

        #[test]
        fn whatever_comes_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(arrived(&mut begun(), &bytes).trailers <= bytes.len() * FIELD);
        }
    }
}
