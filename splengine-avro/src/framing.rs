//! Messages out of bytes, and back: the specification's framing, the Netty one, and which of them
//! a client speaks. Pure.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Protocol of a connection, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireFormat {
    Http,
    Tls,
    /// SASL (Avro's SASL profile), and the specification's framing after it.
    Sasl,
    /// `{ serial, count, count x (length, bytes) }`, all numbers 32 bits, big-endian.
    Netty,
    /// `{ length, bytes }*`, then a length of 0 (specification 1.12, "Message Framing").
    Classic,
    Unknown,
}

/// Number of bytes by which the protocol of a connection is recognised.
pub(crate) const PREFIX: usize = 12;

impl WireFormat {
    pub(crate) fn of(first: &[u8; PREFIX], max_frame: usize) -> Self {
        let word = |at: usize| {
            u32::from_be_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]])
        };
        let fits = |length: u32| usize::try_from(length).is_ok_and(|length| length <= max_frame);
        const METHODS: [&[u8]; 9] =
            [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"PATC", b"DELE", b"CONN", b"PRI "];
        if METHODS.iter().any(|method| first.starts_with(method)) {
            return Self::Http;
        }
        if first.starts_with(&[0x16, 0x03]) && first[5] == 1 {
            return Self::Tls;
        }
        let mechanism = u32::from_be_bytes([first[1], first[2], first[3], first[4]]);
        let is_mechanism =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let shown = usize::try_from(mechanism).unwrap_or(usize::MAX).min(PREFIX - 5);
        if first[0] == 0
            && (1..=20).contains(&mechanism)
            && first[5..5 + shown].iter().all(|byte| is_mechanism(*byte))
        {
            return Self::Sasl;
        }
        if (1..=1024).contains(&word(4)) && fits(word(8)) {
            return Self::Netty;
        }
        if word(0) > 0 && fits(word(0)) { Self::Classic } else { Self::Unknown }
    }
}

/// Messages of either framing, out of bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct Frames {
    is_netty: bool,
    max_frame: usize,
    state: State,
    /// What has come of the message: one that comes in many small buffers takes no more than its bytes.
    gathered: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between two messages.
    Idle,
    /// Within one: so many buffers are to come; of the specification's framing that is not known.
    Buffers { serial: u32, left: u32 },
}

/// A message that breaks its framing or a bound. The connection can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

impl Frames {
    pub(crate) fn netty(max_frame: usize) -> Self {
        Self { is_netty: true, ..Self::classic(max_frame) }
    }

    pub(crate) fn classic(max_frame: usize) -> Self {
        Self { is_netty: false, max_frame, state: State::Idle, gathered: BytesMut::new() }
    }

    pub(crate) fn is_netty(&self) -> bool {
        self.is_netty
    }

    /// Whether a message has begun and is not whole.
    pub(crate) fn is_midway(&self, input: &BytesMut) -> bool {
        self.state != State::Idle || !input.is_empty()
    }

    /// The serial of a message that is not whole.
    pub(crate) fn serial(&self) -> u32 {
        match self.state {
            State::Buffers { serial, .. } => serial,
            State::Idle => 0,
        }
    }

    /// The memory of a message that is not whole, in bytes.
    pub(crate) fn gathered(&self) -> usize {
        self.gathered.capacity()
    }

    /// The next whole message, with its serial, out of what has come.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<(u32, Bytes)>, Broken> {
        loop {
            match self.state {
                State::Idle if self.is_netty => {
                    let Some(mut head) = input.get(..8) else { return Ok(None) };
                    let (serial, left) = (head.get_u32(), head.get_u32());
                    if left == 0 || left > MAX_BUFFERS {
                        return Err(Broken);
                    }
                    input.advance(8);
                    self.state = State::Buffers { serial, left };
                }
                State::Idle => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    self.state = State::Buffers { serial: 0, left: MAX_BUFFERS };
                }
                State::Buffers { serial, left } => {
                    let Some(mut head) = input.get(..4) else { return Ok(None) };
                    let length = usize::try_from(head.get_u32()).map_err(|_| Broken)?;
                    if length > self.max_frame - self.gathered.len() {
                        return Err(Broken);
                    }
                    if !self.is_netty && length == 0 {
                        input.advance(4);
                        if self.gathered.is_empty() {
                            // No message is empty. Java's client over HTTP sends an empty buffer of
                            // parameters, which says that the message ends, and then its end.
                            self.state = State::Idle;
                            continue;
                        }
                        return Ok(Some((serial, self.whole())));
                    }
                    if input.len() < 4 + length {
                        return Ok(None);
                    }
                    input.advance(4);
                    if self.gathered.is_empty() && length >= MIN_KEPT_BYTES {
                        self.gathered = input.split_to(length);
                    } else {
                        // A small buffer that is kept would keep all that was read with it.
                        self.gathered.extend_from_slice(&input[..length]);
                        input.advance(length);
                    }
                    let left = left - 1;
                    self.state = State::Buffers { serial, left };
                    if left == 0 {
                        if self.is_netty {
                            return Ok(Some((serial, self.whole())));
                        }
                        return Err(Broken);
                    }
                }
            }
        }
    }

    fn whole(&mut self) -> Bytes {
        self.state = State::Idle;
        let whole = std::mem::take(&mut self.gathered);
        if whole.capacity() - whole.len() < MIN_KEPT_BYTES {
            return whole.freeze();
        }
        // It takes no more than its bytes from now on.
        Vec::from(whole).into_boxed_slice().into()
    }

    /// Appends an answer to `output`.
    pub(crate) fn write(&self, serial: u32, answer: &[u8], output: &mut BytesMut) {
        // No answer is longer than what a length can say: outputs are bounded far below.
        let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
        output.reserve(answer.len() + 12);
        if self.is_netty {
            output.put_u32(serial);
            output.put_u32(1);
        }
        output.put_u32(length);
        output.put_slice(answer);
        if !self.is_netty {
            output.put_u32(0);
        }
    }
}

/// What a client of the SASL profile begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sasl {
    /// There is more to come.
    Unfinished,
    /// It wants to be nobody, which is fine: who it is is told by its calls.
    Anonymous,
    /// It wants another mechanism.
    Other,
}

impl Sasl {
    /// Takes the START message off `input`.
    pub(crate) fn start(input: &mut BytesMut) -> Result<Self, Broken> {
        let Some(mut head) = input.get(1..5) else { return Ok(Self::Unfinished) };
        let name = usize::try_from(head.get_u32()).map_err(|_| Broken)?;
        if name > 20 {
            return Err(Broken);
        }
        let Some(mut head) = input.get(5 + name..9 + name) else { return Ok(Self::Unfinished) };
        let payload = usize::try_from(head.get_u32()).map_err(|_| Broken)?;
        if payload > MAX_SASL_PAYLOAD_BYTES {
            return Err(Broken);
        }
        if input.len() < 9 + name + payload {
            return Ok(Self::Unfinished);
        }
        let is_anonymous = &input[5..5 + name] == b"ANONYMOUS";
        input.advance(9 + name + payload);
        Ok(if is_anonymous { Self::Anonymous } else { Self::Other })
    }

    /// COMPLETE, without a payload. It must not wait for the first answer: Java's client sends
    /// nothing before.
    pub(crate) const COMPLETE: &[u8] = &[3, 0, 0, 0, 0];

    /// FAIL, with what would be right.
    pub(crate) const FAIL: &[u8] = b"\x02\0\0\0\x1fANONYMOUS is what is known here";
}

/// Buffers of one message; whoever sends more, sends too small ones.
const MAX_BUFFERS: u32 = 1 << 16;
/// A buffer of so many bytes is not copied, if it is the first.
const MIN_KEPT_BYTES: usize = 4 << 10;
const MAX_SASL_PAYLOAD_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 20;

    fn first(bytes: &[u8]) -> WireFormat {
        let mut prefix = [0; PREFIX];
        prefix.copy_from_slice(&bytes[..PREFIX]);
        WireFormat::of(&prefix, MAX)
    }

    fn pieces(frames: &mut Frames, bytes: &[u8], cut: usize) -> Vec<(u32, Bytes)> {
        let mut input = BytesMut::new();
        let mut all = Vec::new();
        for piece in bytes.chunks(cut.max(1)) {
            input.extend_from_slice(piece);
            while let Some(message) = frames.next(&mut input).expect("whole") {
                all.push(message);
            }
        }
        assert!(!frames.is_midway(&input));
        all
    }

    #[test]
    fn what_clients_begin_with_is_told_apart() {
        assert_eq!(first(b"POST / HTTP/1.1\r\n"), WireFormat::Http);
        assert_eq!(first(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03a"), WireFormat::Tls);
        assert_eq!(first(b"\0\0\0\0\x09ANONYMOUS"), WireFormat::Sasl);
        // avsc, Java, avro-js.
        assert_eq!(first(b"\0\0\0\0\0\0\0\x02\0\0\0\x22"), WireFormat::Netty);
        assert_eq!(first(b"\0\0\0\x01\0\0\0\x02\0\0\0\x2c"), WireFormat::Netty);
        assert_eq!(first(b"\0\0\0\x22\xa1\xf4\x60\x22\xb0\x2b\x58\x95"), WireFormat::Classic);
        assert_eq!(first(b"SSH-2.0-OpenSSH"), WireFormat::Unknown);
        assert_eq!(first(&[0; 12]), WireFormat::Unknown);
    }

    proptest! {
        #[test]
        fn messages_come_through_however_they_are_cut(
            messages in prop::collection::vec(
                (any::<u32>(), prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..5)),
                1..5,
            ),
            cut in 1..60_usize,
        ) {
            let (mut netty, mut classic) = (Vec::new(), Vec::new());
            let mut expected = Vec::new();
            for (serial, buffers) in &messages {
                netty.put_u32(*serial);
                netty.put_u32(buffers.len() as u32);
                for buffer in buffers {
                    netty.put_u32(buffer.len() as u32);
                    netty.extend_from_slice(buffer);
                    if !buffer.is_empty() {
                        classic.put_u32(buffer.len() as u32);
                        classic.extend_from_slice(buffer);
                    }
                }
                classic.put_u32(0);
                expected.push((*serial, Bytes::from(buffers.concat())));
            }
            prop_assert_eq!(&pieces(&mut Frames::netty(MAX), &netty, cut), &expected);
            expected.retain(|(_, message)| !message.is_empty());
            expected.iter_mut().for_each(|(serial, _)| *serial = 0);
            prop_assert_eq!(pieces(&mut Frames::classic(MAX), &classic, cut), expected);
        }

        #[test]
        fn nothing_from_outside_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for mut frames in [Frames::netty(100), Frames::classic(100)] {
                let mut input = BytesMut::from(&bytes[..]);
                while let Ok(Some((_, message))) = frames.next(&mut input) {
                    prop_assert!(message.len() <= 100);
                }
            }
            let _ = Sasl::start(&mut BytesMut::from(&bytes[..]));
        }
    }

    #[test]
    fn what_is_too_large_is_refused_at_its_head() {
        let mut netty = BytesMut::from(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 101][..]);
        assert_eq!(Frames::netty(100).next(&mut netty), Err(Broken));
        let mut many = BytesMut::from(&[0, 0, 0, 0, 0xff, 0, 0, 1][..]);
        assert_eq!(Frames::netty(100).next(&mut many), Err(Broken));
        let mut classic = BytesMut::from(&[0, 0, 0, 101][..]);
        assert_eq!(Frames::classic(100).next(&mut classic), Err(Broken));
    }

    #[test]
    fn a_message_of_many_small_buffers_takes_no_more_than_its_bytes() {
        const COUNT: usize = 30_000;
        const READ: usize = 16 << 10;
        for (mut frames, head) in
            [(Frames::classic(MAX), &[][..]), (Frames::netty(MAX), &[0, 0, 0, 0, 0, 0, 0xff, 0xff])]
        {
            let mut input = BytesMut::with_capacity(READ);
            input.extend_from_slice(head);
            for _ in 0..COUNT {
                input.extend_from_slice(b"\0\0\0\x01x");
                assert_eq!(frames.next(&mut input), Ok(None));
            }
            let held = frames.gathered();
            assert!((COUNT..3 * COUNT).contains(&held), "{held} bytes");
            // Nothing keeps what was read.
            assert!(input.is_empty() && input.try_reclaim(READ));
        }
    }

    #[test]
    fn the_start_of_sasl_is_taken_off() {
        let whole = b"\0\0\0\0\x09ANONYMOUS\0\0\0\x04rootrest";
        for until in 1..22 {
            let start = Sasl::start(&mut BytesMut::from(&whole[..until]));
            assert_eq!(start, Ok(Sasl::Unfinished), "{until}");
        }
        let mut input = BytesMut::from(&whole[..]);
        assert_eq!(Sasl::start(&mut input), Ok(Sasl::Anonymous));
        assert_eq!(&input[..], b"rest");
        assert_eq!(Sasl::FAIL.len(), 5 + usize::from(Sasl::FAIL[4]));
    }
}
