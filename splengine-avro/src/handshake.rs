//! The handshake (specification 1.12, "Handshake"), and what of a message is a call. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::clients::{ClientProtocol, Clients, LONGEST_TEXT};
use crate::datum::{Datum as _, DatumError, Reader, write_sized};
use crate::protocol::{Hash, ours};

/// What one client and we know of each other.
#[derive(Debug)]
pub(crate) struct Conversation {
    clients: Arc<Clients>,
    /// Over HTTP every message begins with a handshake.
    is_stateless: bool,
    client: Option<Established>,
    /// What a client sent that was not what it called it: true for this connection only.
    mislabelled: Option<(Hash, Arc<ClientProtocol>)>,
}

#[derive(Debug, Clone)]
struct Established {
    /// What the client says its protocol's hash is.
    hash: Hash,
    protocol: Arc<ClientProtocol>,
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

    /// Takes the handshake off a message, if it begins with one. An error is one after which
    /// nothing can be understood.
    pub(crate) fn open(&mut self, message: Bytes) -> Result<Opened, DatumError> {
        if let Some(known) = self.client.as_ref().filter(|_| !self.is_stateless) {
            // No call begins so: it would claim metadata of an absurd size.
            if !message.starts_with(&known.hash) {
                let call = Some((Arc::clone(&known.protocol), message));
                return Ok(Opened { answer: Vec::new(), call, is_answered: false });
            }
        }
        let mut reader = Reader::new(message);
        let request = Request::read(&mut reader)?;
        let protocol = match request.client_protocol {
            Some(text) => Some(self.learn(request.client_hash, &text)),
            None => self.find(&request.client_hash),
        };
        let Some(protocol) = protocol else {
            return Ok(Opened { answer: answer(NONE), call: None, is_answered: true });
        };
        self.client =
            Some(Established { hash: request.client_hash, protocol: Arc::clone(&protocol) });
        let agreement = if request.server_hash == ours().hash { BOTH } else { CLIENT };
        let call = (reader.left() > 0).then(|| (protocol, reader.rest()));
        Ok(Opened { answer: answer(agreement), call, is_answered: true })
    }

    fn learn(&mut self, hash: Hash, text: &str) -> Arc<ClientProtocol> {
        if let Some(known) = self.clients.get(&crate::protocol::hash_of(text)) {
            if known.hash != hash {
                self.mislabelled = Some((hash, Arc::clone(&known)));
            }
            return known;
        }
        let protocol = Arc::new(ClientProtocol::new(text));
        if protocol.hash == hash {
            self.clients.add(Arc::clone(&protocol));
        } else {
            self.mislabelled = Some((hash, Arc::clone(&protocol)));
        }
        protocol
    }

    fn find(&self, hash: &Hash) -> Option<Arc<ClientProtocol>> {
        let own = self.mislabelled.as_ref().filter(|(known, _)| known == hash);
        own.map(|(_, protocol)| Arc::clone(protocol)).or_else(|| self.clients.get(hash))
    }
}

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
        if client_protocol.as_ref().is_some_and(|text| text.len() > LONGEST_TEXT) {
            return Err(DatumError::deep());
        }
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
    use crate::protocol::hash_of;

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
        let opened = conversation.open(handshake(hash, None, hash).into()).expect("a handshake");
        assert_eq!((opened.answer[0], opened.call.is_none()), (NONE, true));
        assert!(opened.answer.ends_with(&[&[2][..], &ours().hash, &[0]].concat()));
        assert!(!conversation.is_established());
        let opened =
            conversation.open(handshake(hash, Some(TEXT), ours().hash).into()).expect("one");
        assert_eq!(opened.answer, [BOTH, 0, 0, 0]);
        // Calls have none, and one may come again all the same.
        let opened = conversation.open(vec![0, 0].into()).expect("a ping");
        assert!(opened.answer.is_empty() && opened.call.is_some() && !opened.is_answered);
        let again = [handshake(hash, None, ours().hash), vec![0, 0]].concat();
        let opened = conversation.open(again.into()).expect("both");
        assert_eq!((opened.answer[0], opened.call.is_some()), (BOTH, true));
        // The next connection is known by it, with a server that it does not know.
        let mut other = Conversation::new(clients, false);
        let opened = other.open(handshake(hash, None, hash).into()).expect("a handshake");
        assert_eq!(opened.answer[0], CLIENT);
    }

    #[test]
    fn a_forged_hash_poisons_nobody() {
        let clients = Arc::new(Clients::new());
        let victim = hash_of("another");
        let mut forger = Conversation::new(Arc::clone(&clients), false);
        let opened = forger.open(handshake(victim, Some(TEXT), ours().hash).into()).expect("one");
        assert_eq!(opened.answer[0], BOTH);
        let opened = forger.open(handshake(victim, None, ours().hash).into()).expect("one");
        assert_eq!(opened.answer[0], BOTH, "its own connection believes it");
        let mut other = Conversation::new(clients, false);
        let opened = other.open(handshake(victim, None, ours().hash).into()).expect("one");
        assert_eq!(opened.answer[0], NONE);
    }

    #[test]
    fn over_http_every_message_has_one() {
        let mut conversation = Conversation::new(Arc::new(Clients::new()), true);
        let whole = [handshake(ours().hash, None, ours().hash), vec![0, 0]].concat();
        for _ in 0..2 {
            let opened = conversation.open(whole.clone().into()).expect("both");
            assert!(opened.call.is_some() && opened.is_answered);
        }
        assert!(conversation.open(vec![0, 0].into()).is_err());
    }
}
