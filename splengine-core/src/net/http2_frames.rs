//! What of the bytes that a client of HTTP/2 sends are headers that its library keeps decoded.

/// Finds the blocks of headers among the frames that a client of HTTP/2 sends (RFC 9113, sections 3.4, 4.1, 6.2
/// and 6.10). It decodes none of them, and takes whatever bytes come.
#[derive(Debug)]
pub(crate) struct Http2Frames {
    at: Position,
    /// The request that was begun last: what comes later of it, or of one before it, are trailers.
    last_stream: u32,
    block: Block,
}

/// What some bytes of a client were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// How many requests they began.
    pub(crate) requests: usize,
    /// How many bytes of trailers were among them.
    pub(crate) trailers: usize,
}

/// A block of headers, which may be in several frames.
#[derive(Debug, Default)]
struct Block {
    are_trailers: bool,
    /// How many bytes of it have come.
    bytes: usize,
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
    Headers { are_last: bool },
    Other,
}

impl Http2Frames {
    pub(crate) fn new() -> Self {
        let block = Block::default();
        Self { at: Position::Preface { seen: 0 }, last_stream: 0, block }
    }

    /// Whether the client has begun as one of HTTP/2 does.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.at, Position::Header { .. } | Position::Payload { .. })
    }

    /// How many bytes have come of the head of a request that is not at its end.
    pub(crate) fn unfinished_head(&self) -> usize {
        if self.block.are_trailers { 0 } else { self.block.bytes }
    }

    /// Goes on by what has come next.
    pub(crate) fn advance(&mut self, mut bytes: &[u8]) -> Arrived {
        let mut arrived = Arrived::default();
        while !bytes.is_empty() {
            match &mut self.at {
                Position::Other => break,
                Position::Preface { seen } => {
                    let taken = bytes.len().min(PREFACE.len() - *seen);
                    let is_expected = PREFACE[*seen..].starts_with(&bytes[..taken]);
                    *seen += taken;
                    bytes = &bytes[taken..];
                    if !is_expected {
                        self.at = Position::Other;
                    } else if *seen == PREFACE.len() {
                        self.at = NEXT_HEADER;
                    }
                }
                Position::Header { header, seen } => {
                    let taken = bytes.len().min(HEADER_BYTES - *seen);
                    header[*seen..*seen + taken].copy_from_slice(&bytes[..taken]);
                    *seen += taken;
                    bytes = &bytes[taken..];
                    if *seen == HEADER_BYTES {
                        let header = *header;
                        arrived.requests += usize::from(self.begin(header));
                    }
                }
                Position::Payload { left, kind } => {
                    let (taken, kind) = (bytes.len().min(*left), *kind);
                    *left -= taken;
                    let is_over = *left == 0;
                    bytes = &bytes[taken..];
                    if kind != Payload::Other {
                        self.block.bytes = self.block.bytes.saturating_add(taken);
                        arrived.trailers += if self.block.are_trailers { taken } else { 0 };
                    }
                    if is_over {
                        self.end(kind);
                    }
                }
            }
        }
        arrived
    }

    /// Begins the payload of a frame, and returns whether it begins a request.
    fn begin(&mut self, header: [u8; HEADER_BYTES]) -> bool {
        let [a, b, c, kind, flags, s, t, u, v] = header;
        let left = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([s, t, u, v]) & STREAM_BITS;
        let are_last = flags & END_HEADERS != 0;
        let is_request = kind == HEADERS && stream > self.last_stream;
        let kind = match kind {
            HEADERS => {
                self.block = Block { are_trailers: !is_request, bytes: 0 };
                self.last_stream = self.last_stream.max(stream);
                Payload::Headers { are_last }
            }
            CONTINUATION => Payload::Headers { are_last },
            _ => Payload::Other,
        };
        match left {
            0 => self.end(kind),
            _ => self.at = Position::Payload { left, kind },
        }
        is_request
    }

    fn end(&mut self, kind: Payload) {
        if kind == (Payload::Headers { are_last: true }) {
            self.block = Block::default();
        }
        self.at = NEXT_HEADER;
    }
}

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
const NEXT_HEADER: Position = Position::Header { header: [0; HEADER_BYTES], seen: 0 };
/// Kinds of frames.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// A flag of both.
const END_HEADERS: u8 = 4;
const STREAM_BITS: u32 = u32::MAX >> 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.resize(frame.len() + payload, 0x82);
        frame
    }

    const NOTHING: Arrived = Arrived { requests: 0, trailers: 0 };
    const REQUEST: Arrived = Arrived { requests: 1, trailers: 0 };

    fn trailers(trailers: usize) -> Arrived {
        Arrived { requests: 0, trailers }
    }

    #[test]
    fn headers_of_a_request_that_was_begun_are_trailers() {
        let mut frames = Http2Frames::new();
        assert_eq!(frames.advance(PREFACE), NOTHING);
        assert!(frames.is_http2());
        // A head in two frames, and the part of one.
        assert_eq!(frames.advance(&frame(HEADERS, 0, 1, 100)), REQUEST);
        assert_eq!(frames.unfinished_head(), 100);
        assert_eq!(frames.advance(&frame(CONTINUATION, END_HEADERS, 1, 50)), NOTHING);
        assert_eq!(frames.unfinished_head(), 0);
        assert_eq!(frames.advance(&frame(0, 0, 1, 9)), NOTHING, "data");
        assert_eq!(frames.advance(&frame(HEADERS, END_HEADERS, 3, 70)), REQUEST);
        // Trailers of the first, with the bit that means nothing.
        let reserved = 1 | !STREAM_BITS;
        assert_eq!(frames.advance(&frame(HEADERS, 1, reserved, 20)), trailers(20));
        assert_eq!(frames.advance(&frame(CONTINUATION, 0, 1, 0)), NOTHING);
        assert_eq!(frames.advance(&frame(CONTINUATION, END_HEADERS, 1, 30)), trailers(30));
        assert_eq!(frames.advance(&frame(HEADERS, 1 | END_HEADERS, 3, 7)), trailers(7));
        assert_eq!(frames.advance(&frame(HEADERS, END_HEADERS, 5, 70)), REQUEST, "the next");
    }

    #[test]
    fn another_protocol_has_no_frames() {
        for other in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.0\r\n\r\nSM\r\n\r\n", b"\x16"]
        {
            let mut frames = Http2Frames::new();
            let mut bytes = other.to_vec();
            bytes.extend(frame(HEADERS, END_HEADERS, 0, 70));
            assert_eq!(frames.advance(&bytes), NOTHING);
            assert!(!frames.is_http2() && frames.unfinished_head() == 0);
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_is_all_the_same(
            pieces in prop::collection::vec((0_u8..12, any::<u8>(), 0_u32..6, 0_usize..40), 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..20),
        ) {
            let mut bytes = PREFACE.to_vec();
            for (kind, flags, stream, payload) in pieces {
                bytes.extend(frame(kind, flags, stream, payload));
            }
            let mut whole = Http2Frames::new();
            let expected = whole.advance(&bytes);
            let mut cut = Http2Frames::new();
            let mut found = NOTHING;
            let mut cuts = cuts.iter().cycle();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, next) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
                let Arrived { requests, trailers } = cut.advance(piece);
                found.requests += requests;
                found.trailers += trailers;
                rest = next;
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(cut.unfinished_head(), whole.unfinished_head());
        }

        #[test]
        fn whatever_comes_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut frames = Http2Frames::new();
            frames.advance(PREFACE);
            prop_assert!(frames.advance(&bytes).trailers <= bytes.len());
        }
    }
}
