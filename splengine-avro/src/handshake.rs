//! The handshake (specification 1.12, "Handshake"), and what of a message is a call. Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Weak};

use bytes::Bytes;

use crate::datum::{Datum as _, DatumError, Reader, write_sized};
use crate::limits::MAX_TEXT_BYTES;
use crate::peer_protocols::{ClientProtocol, Clients};
use crate::protocol::{Hash, hash_of, ours, too_long};

/// What one client and we know of each other.
#[derive(Debug)]
pub(crate) struct Conversation {
    clients: Arc<Clients>,
    /// Over HTTP every message begins with a handshake.
    is_stateless: bool,
    client: Option<Established>,
    /// A hash that the client gave to a text which has another, and that one: this connection alone
    /// knows the text by the former.
    mislabelled: Option<(Hash, Hash)>,
}

#[derive(Debug)]
struct Established {
    /// What the client says its protocol's hash is.
    hash: Hash,
    protocol: Kept,
}

/// A protocol that the client of a connection has. Only the cache keeps what takes much before its
/// client is authenticated, so that all of those together are bounded as that is.
#[derive(Debug)]
enum Kept {
    Here(Arc<ClientProtocol>),
    InCache(Weak<ClientProtocol>),
}

/// A message of which the handshake was read.
#[derive(Debug)]
pub(crate) enum Received {
    Opened(Opened),
    /// One whose client brings a protocol that is not known yet: [learned](Conversation::learn) before
    /// anything else is received.
    Unknown(Unknown),
}

/// A message, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// What the answer begins with: that of the handshake, if there was one.
    pub(crate) answer: Vec<u8>,
    /// `None` for a message that was a handshake only, or whose handshake did not come about.
    pub(crate) call: Option<(Arc<ClientProtocol>, Bytes)>,
    /// Whether a one-way call is answered all the same: it is unless the connection knew its client
    /// before.
    pub(crate) is_answered: bool,
}

/// A message whose client's protocol is still to be parsed.
#[derive(Debug)]
pub(crate) struct Unknown {
    /// The protocol's text, until it is parsed.
    pub(crate) text: String,
    /// The hash of that.
    pub(crate) hash: Hash,
    claimed: Hash,
    server_hash: Hash,
    call: Bytes,
}

struct Request {
    client_hash: Hash,
    client_protocol: Option<String>,
    server_hash: Hash,
}

impl Conversation {
    pub(crate) fn new(clients: Arc<Clients>, is_stateless: bool) -> Self {
        Self { clients, is_stateless, client: None, mislabelled: None }
    }

    pub(crate) fn is_established(&self) -> bool {
        self.client.is_some()
    }

    /// Keeps the client's protocol as long as there is the connection: for a client that is
    /// authenticated.
    pub(crate) fn keep(&mut self) {
        if let Some(Established { protocol, .. }) = &mut self.client
            && let Kept::InCache(cached) = protocol
            && let Some(cached) = cached.upgrade()
        {
            *protocol = Kept::Here(cached);
        }
    }

    /// Takes the handshake off a message, if it begins with one. An error is one after which
    /// nothing can be understood.
    pub(crate) fn open(&mut self, message: Bytes) -> Result<Received, DatumError> {
        if let Some(known) = self.client.as_ref().filter(|_| !self.is_stateless) {
            // No call begins so: it would claim metadata of an absurd size.
            if !message.starts_with(&known.hash) {
                let protocol = match &known.protocol {
                    Kept::Here(protocol) => Arc::clone(protocol),
                    Kept::InCache(cached) => {
                        cached.upgrade().unwrap_or_else(|| Arc::clone(&FORGOTTEN))
                    }
                };
                let call = Some((protocol, message));
                let opened = Opened { answer: Vec::new(), call, is_answered: false };
                return Ok(Received::Opened(opened));
            }
        }
        let mut reader = Reader::new(message);
        let Request { client_hash: claimed, client_protocol, server_hash } =
            Request::read(&mut reader)?;
        let protocol = match client_protocol {
            Some(text) if text.len() > MAX_TEXT_BYTES => {
                Some(Arc::new(ClientProtocol::refused(claimed, too_long())))
            }
            Some(text) => {
                let hash = hash_of(&text);
                let Some(known) = self.clients.get(&hash) else {
                    let call = reader.rest();
                    return Ok(Received::Unknown(Unknown {
                        text,
                        hash,
                        claimed,
                        server_hash,
                        call,
                    }));
                };
                Some(known)
            }
            None => self.find(&claimed),
        };
        Ok(Received::Opened(match protocol {
            Some(protocol) => self.establish(claimed, server_hash, protocol, reader.rest()),
            None => Opened { answer: answer(NONE), call: None, is_answered: true },
        }))
    }

    /// Goes on with a message once its client's protocol has been parsed, or `refused` for now.
    pub(crate) fn learn(
        &mut self,
        message: Unknown,
        parsed: Result<Arc<ClientProtocol>, String>,
    ) -> Opened {
        let protocol = match parsed {
            Ok(protocol) => protocol,
            Err(reason) => Arc::new(ClientProtocol::refused(message.hash, reason)),
        };
        self.establish(message.claimed, message.server_hash, protocol, message.call)
    }

    fn establish(
        &mut self,
        hash: Hash,
        server_hash: Hash,
        protocol: Arc<ClientProtocol>,
        call: Bytes,
    ) -> Opened {
        if protocol.hash != hash {
            self.mislabelled = Some((hash, protocol.hash));
        }
        let kept = if protocol.is_light() {
            Kept::Here(Arc::clone(&protocol))
        } else {
            Kept::InCache(Arc::downgrade(&protocol))
        };
        self.client = Some(Established { hash, protocol: kept });
        let agreement = if server_hash == ours().hash { BOTH } else { CLIENT };
        let call = (!call.is_empty()).then_some((protocol, call));
        Opened { answer: answer(agreement), call, is_answered: true }
    }

    fn find(&self, hash: &Hash) -> Option<Arc<ClientProtocol>> {
        let own = self.mislabelled.as_ref().filter(|(claimed, _)| claimed == hash);
        own.and_then(|(_, hash)| self.clients.get(hash)).or_else(|| self.clients.get(hash))
    }

    /// The same as [`open`](Self::open), parsing what has to be where it stands.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn open_here(&mut self, message: Bytes) -> Result<Opened, DatumError> {
        Ok(match self.open(message)? {
            Received::Opened(opened) => opened,
            Received::Unknown(unknown) => {
                let parsed = Arc::new(ClientProtocol::new(&unknown.text));
                self.clients.add(Arc::clone(&parsed), None);
                self.learn(unknown, Ok(parsed))
            }
        })
    }
}

impl Unknown {
    /// How many bytes it holds while it waits.
    pub(crate) fn size(&self) -> usize {
        self.text.len() + self.call.len()
    }
}

/// Stands for the protocol of an unauthenticated client for which the cache has no memory.
static FORGOTTEN: LazyLock<Arc<ClientProtocol>> = LazyLock::new(|| {
    let reason = "it is no longer kept here; send it again, with credentials in the same message";
    Arc::new(ClientProtocol::refused(Hash::default(), reason))
});

impl Request {
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        let hash = |from: &mut Reader| {
            let mut hash = Hash::default();
            let length = hash.len();
            hash.copy_from_slice(&from.take(length)?);
            Ok(hash)
        };
        let client_hash = hash(from)?;
        let client_protocol: Option<String> = Option::read(from)?;
        let server_hash = hash(from)?;
        // Of what else it may hold we know nothing.
        Option::<BTreeMap<String, Bytes>>::read(from)?;
        Ok(Self { client_hash, client_protocol, server_hash })
    }
}

/// With our protocol wherever the client may not know it: some clients take it out unlooked.
fn answer(agreement: u8) -> Vec<u8> {
    let ours = ours();
    let mut bytes = vec![agreement];
    if agreement == BOTH {
        bytes.extend_from_slice(&[0, 0]);
    } else {
        bytes.push(2);
        write_sized(ours.text.as_bytes(), &mut bytes);
        bytes.push(2);
        bytes.extend_from_slice(&ours.hash);
    }
    bytes.push(0);
    bytes
}

/// The symbols of `HandshakeMatch`, as they are encoded.
const BOTH: u8 = 0;
const CLIENT: u8 = 2;
const NONE: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(client: Hash, text: Option<&str>, server: Hash) -> Vec<u8> {
        let mut bytes = client.to_vec();
        text.map(str::to_owned).write(&mut bytes);
        bytes.extend_from_slice(&server);
        bytes.push(0);
        bytes
    }

    const TEXT: &str = r#"{"protocol": "Mine", "messages": {}}"#;

    #[test]
    fn an_unknown_client_tells_its_protocol_once() {
        let clients = Arc::new(Clients::new());
        let mut conversation = Conversation::new(Arc::clone(&clients), false);
        let hash = hash_of(TEXT);
        let opened =
            conversation.open_here(handshake(hash, None, hash).into()).expect("a handshake");
        assert_eq!((opened.answer[0], opened.call.is_none()), (NONE, true));
        assert!(opened.answer.ends_with(&[&[2][..], &ours().hash, &[0]].concat()));
        assert!(!conversation.is_established());
        let opened =
            conversation.open_here(handshake(hash, Some(TEXT), ours().hash).into()).expect("one");
        assert_eq!(opened.answer, [BOTH, 0, 0, 0]);
        // Calls have none, and one may come again all the same.
        let opened = conversation.open_here(vec![0, 0].into()).expect("a ping");
        assert!(opened.answer.is_empty() && opened.call.is_some() && !opened.is_answered);
        let again = [handshake(hash, None, ours().hash), vec![0, 0]].concat();
        let opened = conversation.open_here(again.into()).expect("both");
        assert_eq!((opened.answer[0], opened.call.is_some()), (BOTH, true));
        // The next connection is known by it, with a server that it does not know.
        let mut other = Conversation::new(clients, false);
        let opened = other.open_here(handshake(hash, None, hash).into()).expect("a handshake");
        assert_eq!(opened.answer[0], CLIENT);
    }

    #[test]
    fn a_forged_hash_poisons_nobody() {
        let clients = Arc::new(Clients::new());
        let victim = hash_of("another");
        let mut forger = Conversation::new(Arc::clone(&clients), false);
        let opened =
            forger.open_here(handshake(victim, Some(TEXT), ours().hash).into()).expect("one");
        assert_eq!(opened.answer[0], BOTH);
        let opened = forger.open_here(handshake(victim, None, ours().hash).into()).expect("one");
        assert_eq!(opened.answer[0], BOTH, "its own connection believes it");
        let mut other = Conversation::new(clients, false);
        let opened = other.open_here(handshake(victim, None, ours().hash).into()).expect("one");
        assert_eq!(opened.answer[0], NONE);
    }

    #[test]
    fn over_http_every_message_has_one() {
        let mut conversation = Conversation::new(Arc::new(Clients::new()), true);
        let whole = [handshake(ours().hash, None, ours().hash), vec![0, 0]].concat();
        for _ in 0..2 {
            let opened = conversation.open_here(whole.clone().into()).expect("both");
            assert!(opened.call.is_some() && opened.is_answered);
        }
        assert!(conversation.open_here(vec![0, 0].into()).is_err());
    }
}
