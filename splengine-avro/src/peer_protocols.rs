//! The protocols of clients, and how each of their messages is read.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::RecordField;
use apache_avro::schema_equality::{SchemataEq as _, StructFieldEq};
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::Bytes;
use splengine_core::UserName;

use crate::datum::Reader;
use crate::protocol::{Declared, Hash, hash_of, known_messages, ours};
use crate::validate::skip;

/// The protocol of clients.
#[derive(Debug)]
pub(crate) struct ClientProtocol {
    pub(crate) hash: Hash,
    /// What it takes, in bytes.
    cost: usize,
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
        let messages = Declared::parse_client(text, |name| KNOWN.contains(name)).map(|declared| {
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
        Self::with(hash_of(text), messages.map_err(|problem| in_short(&problem)))
    }

    /// One that was not parsed, for a reason that is no fault of its text.
    pub(crate) fn refused(hash: Hash, reason: impl Into<String>) -> Self {
        Self::with(hash, Err(reason.into()))
    }

    fn with(hash: Hash, messages: Result<HashMap<String, ClientMessage>, String>) -> Self {
        let cost = match &messages {
            Ok(messages) => messages
                .values()
                .filter_map(|message| message.written_with.as_ref())
                .map(cost_of)
                .sum(),
            Err(problem) => problem.len(),
        };
        Self { hash, cost: cost + FIXED_COST_BYTES, messages }
    }

    /// What it takes, in bytes.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Whether it takes next to nothing, as our own does.
    pub(crate) fn is_light(&self) -> bool {
        self.cost <= FIXED_COST_BYTES + MAX_PROBLEM_CHARS * 4
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
            Err(problem) => Err(format!("your protocol can't be read: {problem}")),
        }
    }
}

impl ClientMessage {
    /// Whether its parameters are written as our own schema has them.
    pub(crate) fn is_ours(&self) -> bool {
        self.written_with.is_none()
    }

    /// The memory that it takes to read the parameters as our own schema has them, in bytes, about; the
    /// error is for people.
    pub(crate) fn cost(&self, name: &str, written: &Bytes) -> Result<usize, String> {
        let Some(theirs) = &self.written_with else { return Ok(0) };
        let unreadable = |error| of_parameters("can't be read", name, &error);
        let mut reader = Reader::new(written.clone());
        let cost = skip(theirs, request(name)?, &mut reader).map_err(unreadable)?;
        reader.finish().map_err(unreadable)?;
        Ok(cost)
    }

    /// The parameters, of which the [cost](Self::cost) is known, as our own schema has them; the error is for
    /// people.
    pub(crate) fn parameters(&self, name: &str, written: Bytes) -> Result<Reader, String> {
        let Some(theirs) = &self.written_with else { return Ok(Reader::new(written)) };
        let resolved = resolved(theirs, request(name)?, &written);
        let bytes = resolved.map_err(|error| of_parameters("do not fit", name, &error))?;
        Ok(Reader::new(bytes.into()))
    }
}

/// What we read the parameters of a message as.
fn request(name: &str) -> Result<&'static Schema, String> {
    let message = ours().declared.message(name);
    message.map(|message| &message.request).ok_or_else(|| format!("there is no message `{name}`"))
}

fn resolved(theirs: &Schema, ours: &Schema, written: &[u8]) -> Result<Vec<u8>, apache_avro::Error> {
    let reader = GenericDatumReader::builder(theirs).reader_schema(ours).build()?;
    let value = reader.read_value(&mut &*written)?;
    let mut bytes = Vec::with_capacity(written.len());
    GenericDatumWriter::builder(ours).build()?.write_value_ref(&mut bytes, &value)?;
    Ok(bytes)
}

fn of_parameters(what: &str, name: &str, problem: &dyn Display) -> String {
    in_short(&format_args!("the parameters of `{name}` {what}: {problem}"))
}

/// The library tells of whole schemas and values in its errors, which are not written to their ends.
fn in_short(problem: &dyn Display) -> String {
    struct Short {
        text: String,
        left: usize,
    }

    impl fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
                self.text.push(character);
            }
            Ok(())
        }
    }

    let mut short = Short { text: String::new(), left: MAX_PROBLEM_CHARS };
    // It fails at the bound.
    let _ = fmt::write(&mut short, format_args!("{problem}"));
    short.text
}

/// The memory that a schema takes, in bytes, about.
fn cost_of(schema: &Schema) -> usize {
    let (mut cost, mut pending) = (0, vec![schema]);
    while let Some(schema) = pending.pop() {
        cost += size_of::<Schema>() + schema.name().map_or(0, |name| name.as_ref().len());
        match schema {
            Schema::Record(record) => {
                for field in &record.fields {
                    // In the list of fields and in that of their names.
                    cost += 2 * (size_of::<RecordField>() + field.name.len());
                    pending.push(&field.schema);
                }
            }
            Schema::Enum(symbols) => {
                let size = |symbol: &String| size_of::<String>() + symbol.len();
                cost += symbols.symbols.iter().map(size).sum::<usize>();
            }
            Schema::Array(array) => pending.push(&array.items),
            Schema::Map(map) => pending.push(&map.types),
            Schema::Union(union) => pending.extend(union.variants()),
            _ => {}
        }
    }
    cost
}

/// The protocols of clients that came before, by the hashes of their texts. Shared by all connections.
/// It is bounded by what they take in memory, of one caller by half of that, and of all unauthenticated clients
/// together; at the bound the one not used for longest is forgotten, and its clients send it once more.
#[derive(Debug)]
pub(crate) struct Clients(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    known: HashMap<Hash, Cached>,
    clock: u64,
}

#[derive(Debug)]
struct Cached {
    protocol: Arc<ClientProtocol>,
    used: u64,
    /// Who has sent it, if they were authenticated before.
    user: Option<UserName>,
}

impl Clients {
    pub(crate) fn new() -> Self {
        let clients = Self(Mutex::default());
        clients.add(Arc::new(ClientProtocol::new(&ours().text)), None);
        clients
    }

    pub(crate) fn get(&self, hash: &Hash) -> Option<Arc<ClientProtocol>> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let now = cache.clock;
        let found = cache.known.get_mut(hash)?;
        found.used = now;
        Some(Arc::clone(&found.protocol))
    }

    /// Adds a protocol that `user` has sent, or an unauthenticated client.
    pub(crate) fn add(&self, protocol: Arc<ClientProtocol>, user: Option<UserName>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let (hash, used) = (protocol.hash, cache.clock);
        cache.known.insert(hash, Cached { protocol, used, user: user.clone() });
        cache.trim(|cached| cached.user == user, MAX_CACHED / 2, MAX_CACHE_BYTES / 2);
        cache.trim(|_| true, MAX_CACHED, MAX_CACHE_BYTES);
    }

    #[cfg(test)]
    pub(crate) fn remove(&self, hash: &Hash) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.remove(hash);
    }
}

impl Cache {
    /// Forgets those not used for longest of some protocols, until they are at most `max`, and take at most
    /// `max_bytes`.
    fn trim(&mut self, is_counted: impl Fn(&Cached) -> bool, max: usize, max_bytes: usize) {
        let counted = self.known.iter().filter(|(_, cached)| is_counted(cached));
        let mut counted: Vec<_> =
            counted.map(|(hash, cached)| (cached.used, *hash, cached.protocol.cost)).collect();
        let mut bytes: usize = counted.iter().map(|(_, _, cost)| cost).sum();
        // The latest come first.
        counted.sort_unstable_by(|a, b| b.cmp(a));
        while let Some((_, hash, cost)) = counted.pop_if(|_| bytes > max_bytes) {
            self.known.remove(&hash);
            bytes -= cost;
        }
        for (_, hash, _) in counted.iter().skip(max) {
            self.known.remove(hash);
        }
    }
}

/// Maximum of what all protocols in the cache take, in bytes.
const MAX_CACHE_BYTES: usize = 16 << 20;
/// Maximum number of protocols in the cache.
const MAX_CACHED: usize = 256;
/// What a protocol takes beside its schemas, in bytes: its table of messages.
const FIXED_COST_BYTES: usize = 8 << 10;
/// Maximum length of the reason why something can't be read.
const MAX_PROBLEM_CHARS: usize = 300;

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
        let written = Bytes::copy_from_slice(written);
        message.cost("execute", &written)?;
        let mut reader = message.parameters("execute", written)?;
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
            bomb(&doubling(levels), &[], "take more than");
        }
        bomb(&doubling(10), &[], "do not fit");
        let empty = r#"{"type": "array", "items": "R5"}"#;
        let many = doubling(6).replace(r#""a", "type": "R5""#, &format!(r#""a", "type": {empty}"#));
        // 64 values of no bytes each.
        bomb(&many, &[0x80, 0xb4, 0x89, 0x13, 0], "hold more than");
        bomb(&many, &[&[0xd0, 0x0f][..], &[0]].concat(), "too much memory");
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

    /// Adds as many empty protocols of `user`, and returns their hashes.
    fn add(clients: &Clients, user: &str, count: usize) -> Vec<Hash> {
        let user: Option<UserName> = user.parse().ok();
        let protocol = |number| {
            let name = user.as_ref().map_or("", UserName::as_str);
            let text = format!(r#"{{"protocol": "{name}{number}"}}"#);
            let protocol = Arc::new(ClientProtocol::new(&text));
            clients.add(Arc::clone(&protocol), user.clone());
            protocol.hash
        };
        (0..count).map(protocol).collect()
    }

    #[test]
    fn the_cache_is_bounded() {
        let clients = Clients::new();
        let alices = add(&clients, "alice", 2);
        let [unauthenticated, bobs] = ["", "bob"].map(|user| add(&clients, user, MAX_CACHED));
        for hashes in [&unauthenticated, &bobs] {
            let known = hashes.iter().filter(|hash| clients.get(hash).is_some()).count();
            assert!((1..=MAX_CACHED / 2).contains(&known), "{known}");
            assert!(clients.get(&hashes[MAX_CACHED - 1]).is_some(), "the latest");
        }
        assert!(clients.0.lock().expect("no panic").known.len() <= MAX_CACHED);
        // Those that were used longest ago go first.
        assert!(clients.get(&alices[0]).is_none());
        let clients = Clients::new();
        let alices = add(&clients, "alice", 2);
        add(&clients, "bob", MAX_CACHED);
        assert!(alices.iter().all(|hash| clients.get(hash).is_some()), "bob has half of it");
    }
}
