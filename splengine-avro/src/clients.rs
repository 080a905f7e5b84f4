//! What clients speak: their protocols, and how each of their messages is read.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema_equality::{SchemataEq as _, StructFieldEq};
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::Bytes;

use crate::datum::Reader;
use crate::protocol::{Declared, Hash, hash_of, known_messages, ours};
use crate::walk::skip;

/// The protocol of clients.
#[derive(Debug)]
pub(crate) struct ClientProtocol {
    pub(crate) hash: Hash,
    size: usize,
    /// Of the messages that we know, or why there are none.
    messages: Result<HashMap<String, ClientMessage>, String>,
}

/// A message as these clients send it.
#[derive(Debug)]
pub(crate) struct ClientMessage {
    pub(crate) is_one_way: bool,
    /// What its parameters are written with, where that is not our own schema.
    written_with: Option<Schema>,
}

static KNOWN: LazyLock<HashSet<&'static str>> = LazyLock::new(known_messages);

/// Tells whether two schemata are encoded alike, by names and fields. Their canonical forms would
/// tell it too, but apache-avro panics on making one of a schema with attributes of certain names.
const ALIKE: StructFieldEq = StructFieldEq { include_attributes: false };

impl ClientProtocol {
    /// Reads a client's protocol. One that can't be read is one whose every call is answered by
    /// the reason: the handshake itself has no word for it.
    pub(crate) fn new(text: &str) -> Self {
        let messages = Declared::parse(text, |name| KNOWN.contains(name)).map(|declared| {
            KNOWN
                .iter()
                .filter_map(|name| {
                    let message = declared.message(name)?;
                    let request = &ours().declared.message(name)?.request;
                    let is_same = ALIKE.compare(&message.request, request);
                    let written_with = (!is_same).then(|| message.request.clone());
                    let is_one_way = message.is_one_way;
                    Some(((*name).to_owned(), ClientMessage { is_one_way, written_with }))
                })
                .collect()
        });
        Self { hash: hash_of(text), size: text.len(), messages }
    }

    /// How this message is sent, with its name as it is kept; the error is for people.
    pub(crate) fn message(&self, name: &str) -> Result<(&str, &ClientMessage), String> {
        match &self.messages {
            Ok(messages) => messages
                .get_key_value(name)
                .map(|(name, message)| (&name[..], message))
                .ok_or_else(|| {
                    let shown: String = name.chars().take(80).collect();
                    if KNOWN.contains(name) {
                        format!("your protocol has no message `{shown}`")
                    } else {
                        format!("there is no message `{shown}`")
                    }
                }),
            Err(problem) => {
                let problem: String = problem.chars().take(300).collect();
                Err(format!("your protocol can't be read: {problem}"))
            }
        }
    }
}

impl ClientMessage {
    /// The parameters, as our own schema has them; the error is for people.
    pub(crate) fn parameters(&self, name: &str, written: Bytes) -> Result<Reader, String> {
        let Some(theirs) = &self.written_with else { return Ok(Reader::new(written)) };
        let unreadable = |problem: &dyn std::fmt::Display| in_short("can't be read", name, problem);
        let mut reader = Reader::new(written.clone());
        skip(theirs, &mut reader).map_err(|error| unreadable(&error))?;
        reader.finish().map_err(|error| unreadable(&error))?;
        let resolve = || {
            let ours = &ours().declared.message(name).ok_or("it is unknown").ok()?.request;
            Some(resolved(theirs, ours, &written))
        };
        match resolve() {
            Some(Ok(bytes)) => Ok(Reader::new(bytes.into())),
            Some(Err(error)) => Err(in_short("do not fit", name, &error)),
            None => Err(format!("there is no message `{name}`")),
        }
    }
}

fn resolved(theirs: &Schema, ours: &Schema, written: &[u8]) -> Result<Vec<u8>, apache_avro::Error> {
    let reader = GenericDatumReader::builder(theirs).reader_schema(ours).build()?;
    let value = reader.read_value(&mut &*written)?;
    let mut bytes = Vec::with_capacity(written.len());
    GenericDatumWriter::builder(ours).build()?.write_value_ref(&mut bytes, &value)?;
    Ok(bytes)
}

fn in_short(what: &str, name: &str, problem: &dyn std::fmt::Display) -> String {
    let text = format!("the parameters of `{name}` {what}: {problem}");
    text.chars().take(300).collect()
}

/// The protocols of clients that came before, by their hashes. Shared by all connections, so it
/// takes none whose hash is not what it says. At its bound the one not used for longest is
/// forgotten, and its clients send it once more.
#[derive(Debug)]
pub(crate) struct Clients(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    known: HashMap<Hash, (Arc<ClientProtocol>, u64)>,
    size: usize,
    clock: u64,
}

impl Clients {
    pub(crate) fn new() -> Self {
        let clients = Self(Mutex::default());
        clients.add(Arc::new(ClientProtocol::new(&ours().text)));
        clients
    }

    pub(crate) fn get(&self, hash: &Hash) -> Option<Arc<ClientProtocol>> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let now = cache.clock;
        let (found, used) = cache.known.get_mut(hash)?;
        *used = now;
        Some(Arc::clone(found))
    }

    pub(crate) fn add(&self, protocol: Arc<ClientProtocol>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = &mut *cache;
        cache.clock += 1;
        cache.size += protocol.size;
        if let Some((old, _)) = cache.known.insert(protocol.hash, (protocol, cache.clock)) {
            cache.size -= old.size;
        }
        while cache.size > MOST_TEXT || cache.known.len() > MOST_CLIENTS {
            let oldest = cache.known.iter().min_by_key(|(_, (_, used))| *used);
            let Some(hash) = oldest.map(|(hash, _)| *hash) else { break };
            if let Some((old, _)) = cache.known.remove(&hash) {
                cache.size -= old.size;
            }
        }
    }
}

/// The longest text of a protocol, in bytes.
pub(crate) const LONGEST_TEXT: usize = 256 << 10;
const MOST_TEXT: usize = 4 << 20;
const MOST_CLIENTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datum::Datum as _;
    use crate::records::Command;

    fn command_of(parameters: &str, written: &[u8]) -> Result<Command, String> {
        let text = format!(
            r#"{{"protocol": "Other", "namespace": "com.splectrum.rpc", "types": [{parameters}],
            "messages": {{"execute": {{"request": [{{"name": "command", "type": "Command"}}],
            "response": "null"}}}}}}"#
        );
        let protocol = ClientProtocol::new(&text);
        let (_, message) = protocol.message("execute")?;
        let mut reader = message.parameters("execute", written.to_vec().into())?;
        let command = Command::read(&mut reader).map_err(|error| error.to_string())?;
        reader.finish().map_err(|error| error.to_string())?;
        Ok(command)
    }

    #[test]
    fn the_protocols_own_text_needs_no_resolution() {
        let protocol = ClientProtocol::new(&ours().text);
        for name in known_messages() {
            let (_, message) = protocol.message(name).expect("it is there");
            assert!(message.written_with.is_none(), "{name}");
        }
    }

    #[test]
    fn other_texts_are_resolved_by_name() {
        let expected = Command {
            command: "echo".to_owned(),
            args: vec!["hi".to_owned()],
            workdir: None,
            session_id: None,
        };
        // Older: without the fields that have defaults.
        let older = r#"{"type": "record", "name": "Command", "fields": [
            {"name": "command", "type": "string"},
            {"name": "args", "type": {"type": "array", "items": "string"}}]}"#;
        assert_eq!(command_of(older, b"\x08echo\x02\x04hi\x00"), Ok(expected.clone()));
        // Newer, in another order, and with bytes for texts.
        let newer = r#"{"type": "record", "name": "Command", "fields": [
            {"name": "priority", "type": "int"},
            {"name": "args", "type": {"type": "array", "items": "bytes"}},
            {"name": "sessionId", "type": ["null", "bytes"]},
            {"name": "command", "type": "bytes"}]}"#;
        let session = Command { session_id: Some("s".to_owned()), ..expected.clone() };
        assert_eq!(command_of(newer, b"\x0e\x02\x04hi\x00\x02\x02s\x08echo"), Ok(session.clone()));
        // With types that are more than their bytes to others.
        let logical = r#"
            {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"},
            {"type": "record", "name": "Command", "fields": [
            {"name": "at", "type": {"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"}},
            {"name": "id", "type": "Id"},
            {"name": "text", "type": {"type": "string", "logicalType": "uuid"}, "default": ""},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9}},
            {"name": "command", "type": "string"},
            {"name": "args", "type": {"type": "array", "items": "string"}},
            {"name": "sessionId", "type": ["null", {"type": "string", "logicalType": "uuid"}]}]}"#;
        let written = [&[0; 28][..], b"\x02x\x04\x01\x02\x08echo\x02\x04hi\x00\x02\x02s"].concat();
        assert_eq!(command_of(logical, &written), Ok(session));
        // A plain text for an optional one.
        let plain = r#"{"type": "record", "name": "Command", "fields": [
            {"name": "command", "type": "string"},
            {"name": "args", "type": {"type": "array", "items": "string"}},
            {"name": "workdir", "type": "string"}]}"#;
        let data = Command { workdir: Some("data".to_owned()), ..expected };
        assert_eq!(command_of(plain, b"\x08echo\x02\x04hi\x00\x08data"), Ok(data));
        // What lacks what has no default.
        let lacking = r#"{"type": "record", "name": "Command", "fields": [
            {"name": "command", "type": "string"}]}"#;
        let problem = command_of(lacking, b"\x08echo").expect_err("it lacks args");
        assert!(problem.contains("args"), "{problem}");
    }

    #[test]
    fn attributes_of_any_name_do_no_harm() {
        for attribute in [r#""symbols": null"#, r#""precision": "x""#, r#""size": 1.5"#] {
            let record = format!(
                r#"{{"type": "record", "name": "Command", "fields": [
                {{"name": "command", "type": "string", {attribute}}},
                {{"name": "args", "type": {{"type": "array", "items": "string"}}, {attribute}}}]}}"#
            );
            let read = command_of(&record, b"\x08echo\x02\x04hi\x00");
            assert_eq!(read.expect("a command").args, ["hi"], "{attribute}");
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let bomb = |types: &str, written: &[u8], found: &str| {
            let problem = command_of(types, written).expect_err("a bomb");
            assert!(problem.contains(found), "it went off: {problem}");
        };
        let nulls = r#"{"type": "record", "name": "Command", "fields": [
            {"name": "args", "type": {"type": "array", "items": "null"}}]}"#;
        bomb(nulls, &[0x80, 0xb4, 0x89, 0x13, 0], "hold more than");
        for levels in [40, 16] {
            bomb(&doubling(levels), &[], "too deep");
        }
        let endless = r#"{"type": "record", "name": "Command", "fields": [
            {"name": "a", "type": "Command"}]}"#;
        bomb(endless, &[], "too deep");
    }

    fn doubling(levels: usize) -> String {
        let mut doubling = r#"{"type": "record", "name": "R0", "fields": []}"#.to_owned();
        for level in 1..levels {
            let below = level - 1;
            doubling += &format!(
                r#",{{"type": "record", "name": "R{level}", "fields": [
                {{"name": "a", "type": "R{below}"}}, {{"name": "b", "type": "R{below}"}}]}}"#
            );
        }
        let last = levels - 1;
        doubling
            + &format!(
                r#",{{"type": "record", "name": "Command", "fields": [
                {{"name": "a", "type": "R{last}"}}]}}"#
            )
    }

    #[test]
    fn the_cache_is_bounded() {
        let clients = Clients::new();
        let hashes: Vec<Hash> = (0..1000)
            .map(|number| {
                let protocol =
                    Arc::new(ClientProtocol::new(&format!("{{\"protocol\": \"{number}\"}}")));
                clients.add(Arc::clone(&protocol));
                protocol.hash
            })
            .collect();
        assert!(clients.get(&hashes[999]).is_some());
        assert!(clients.get(&hashes[0]).is_none());
        assert!(clients.0.lock().expect("no panic").known.len() <= MOST_CLIENTS);
    }
}
