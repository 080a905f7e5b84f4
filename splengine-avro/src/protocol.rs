//! Protocols (specification 1.12, "Protocol Declaration"): ours, and what a client's makes of its
//! calls.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use apache_avro::Schema;
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use crate::limits;

/// The MD5 of a protocol's text, by which both sides know it.
pub(crate) type Hash = [u8; 16];

/// The text of the protocol as it is hashed: minified.
pub(crate) fn text() -> &'static str {
    &OURS.text
}

pub(crate) fn ours() -> &'static Ours {
    &OURS
}

pub(crate) fn hash_of(text: &str) -> Hash {
    Md5::digest(text.as_bytes()).into()
}

/// Our own protocol.
pub(crate) struct Ours {
    pub(crate) text: String,
    pub(crate) hash: Hash,
    pub(crate) declared: Declared,
}

static OURS: LazyLock<Ours> = LazyLock::new(|| {
    let text = minified(include_str!("../protocol/SPlectrumEngine.avpr"));
    let declared = Declared::parse(&text).expect("our protocol is one, as a test says");
    Ours { hash: hash_of(&text), text, declared }
});

/// What a protocol says of its messages.
#[derive(Debug)]
pub(crate) struct Declared {
    messages: HashMap<String, Message>,
    schemata: Vec<Schema>,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    /// The parameters, as a record.
    pub(crate) request: Schema,
    pub(crate) is_one_way: bool,
}

impl Declared {
    /// Parses our own protocol.
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse_with(text, |_| true, |_, _| Ok(()))
    }

    /// Parses a client's protocol, and of its messages those that are `wanted`. What it takes is
    /// bounded by [`limits`]. The error is for people.
    pub(crate) fn parse_client(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Self, String> {
        if text.len() > limits::MAX_TEXT_BYTES {
            return Err(too_long());
        }
        Self::parse_with(text, wanted, limits::apply)
    }

    /// `prepare` is given all types, of which the last ones are the requests, and how many those are.
    fn parse_with(
        text: &str,
        wanted: impl Fn(&str) -> bool,
        prepare: impl FnOnce(&mut [Value], usize) -> Result<(), String>,
    ) -> Result<Self, String> {
        // Refuses what is nested more than 127 deep.
        let protocol: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(mut protocol) = protocol else {
            return Err("it is no JSON object".to_owned());
        };
        let types = match protocol.remove("types") {
            None => Vec::new(),
            Some(Value::Array(types)) => types,
            Some(_) => return Err("its `types` are no array".to_owned()),
        };
        let declared = match protocol.remove("messages") {
            None => Map::new(),
            Some(Value::Object(messages)) => messages,
            Some(_) => return Err("its `messages` are no object".to_owned()),
        };
        let namespace = protocol.get("namespace").and_then(Value::as_str);
        if types.len() + declared.len() > limits::MAX_NAMES {
            return Err(limits::too_many_names());
        }
        let mut all: Vec<Value> = types.into_iter().map(|each| within(each, namespace)).collect();
        let mut messages = HashMap::new();
        let mut names = Vec::new();
        for (name, mut message) in declared.into_iter().filter(|(name, _)| wanted(name)) {
            let fields = message.get_mut("request").map_or_else(|| json!([]), Value::take);
            // Apart from the types' own names.
            let record = json!({"type": "record", "name": record_name(&name), "fields": fields});
            all.push(within(record, namespace));
            let is_one_way = message.get("one-way") == Some(&Value::Bool(true));
            names.push((name, is_one_way));
        }
        prepare(&mut all, names.len())?;
        let all: Vec<String> = all.iter().map(Value::to_string).collect();
        let schemata = Schema::parse_list(&all).map_err(|error| error.to_string())?;
        for (name, is_one_way) in names {
            let wanted = record_name(&name);
            let is_it = |schema: &&Schema| schema.name().is_some_and(|name| name.name() == wanted);
            let found = schemata.iter().find(is_it).ok_or("a message is not what it seems")?;
            let mut request = found.clone();
            request.denormalize(&schemata).map_err(|error| error.to_string())?;
            messages.insert(name, Message { request, is_one_way });
        }
        Ok(Self { messages, schemata })
    }

    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        self.messages.get(name)
    }

    /// The schema of the type with this name, with all that it needs.
    pub(crate) fn schema(&self, name: &str) -> Option<Schema> {
        let is_it = |schema: &&Schema| schema.name().is_some_and(|known| known.name() == name);
        let mut schema = self.schemata.iter().find(is_it)?.clone();
        schema.denormalize(&self.schemata).ok()?;
        Some(schema)
    }
}

/// A type of a protocol as a schema of its own: in the protocol's namespace, an error as the record
/// that it is.
fn within(mut schema: Value, namespace: Option<&str>) -> Value {
    if let Value::Object(members) = &mut schema {
        if members.get("type").and_then(Value::as_str) == Some("error") {
            members.insert("type".to_owned(), "record".into());
        }
        let is_bare =
            members.get("name").and_then(Value::as_str).is_some_and(|name| !name.contains('.'));
        if is_bare && let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
            members.entry("namespace").or_insert_with(|| namespace.into());
        }
    }
    schema
}

/// JSON without the white space between its tokens.
fn minified(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |character: &char| {
        let is_kept = in_string || !character.is_ascii_whitespace();
        if !escaped && *character == '"' {
            in_string = !in_string;
        }
        escaped = in_string && !escaped && *character == '\\';
        is_kept
    };
    json.chars().filter(keep).collect()
}

fn record_name(message: &str) -> String {
    format!("{message}__request")
}

/// The names of all that we answer to.
pub(crate) fn known_messages() -> HashSet<&'static str> {
    OURS.declared.messages.keys().map(String::as_str).collect()
}

/// Why a text beyond [`limits::MAX_TEXT_BYTES`] is none.
pub(crate) fn too_long() -> String {
    format!("it is longer than {} bytes", limits::MAX_TEXT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_protocol_is_one() {
        assert_eq!(ours().hash, hash_of(text()));
        assert!(ours().declared.message("keepAlive").expect("it is there").is_one_way);
        // As fastavro tells it.
        let schema = ours().declared.schema("ExecutionResult").expect("it is there");
        let fingerprint = schema.fingerprint::<apache_avro::rabin::Rabin>();
        assert_eq!(fingerprint.to_string(), "fde2fce2839ddd31");
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "[]",
            "{\"types\": 1}",
            "{\"messages\": []}",
            "{\"types\": [1]}",
            "{\"types\": [{\"type\": \"record\", \"name\": \"a\", \"fields\": [{\"name\": \"b\", \"type\": \"c\"}]}]}",
        ] {
            assert!(Declared::parse_client(text, |_| true).is_err(), "{text}");
        }
        let deep = format!("{{\"types\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert!(Declared::parse_client(&deep, |_| true).is_err());
    }
}
