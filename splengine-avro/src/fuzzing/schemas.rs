//! Protocols' texts, made of bytes.

use serde_json::{Value, json};

/// A protocol whose types and messages are as the bytes tell: most of them are protocols, and many
/// are near the limits or beyond them.
pub(super) fn protocol(bytes: &[u8]) -> String {
    let mut made = Made { bytes, types: Vec::new() };
    while !made.bytes.is_empty() && made.types.len() < 2000 {
        made.types();
    }
    let last = made.types.len().saturating_sub(1);
    let request = |schema| json!({"request": [{"name": "a", "type": schema}], "response": "null"});
    let protocol = json!({
        "protocol": "P",
        "namespace": "com.splectrum.rpc",
        "types": made.types,
        "messages": {"execute": request("T0".to_owned()), "run": request(format!("T{last}"))},
    });
    protocol.to_string()
}

struct Made<'b> {
    bytes: &'b [u8],
    types: Vec<Value>,
}

impl Made<'_> {
    fn next(&mut self) -> usize {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first.into()
    }

    fn types(&mut self) {
        let (kind, count) = (self.next() % 8, self.next());
        match kind {
            // Each refers to the next, once or twice.
            0 | 1 => {
                for _ in 0..count {
                    let below = json!(format!("T{}", self.types.len() + 1));
                    self.record(vec![below; kind + 1]);
                }
                self.record(Vec::new());
            }
            // They refer to each other in circles, or to what there is.
            2 => {
                for _ in 0..count % 16 {
                    let fields = (0..self.next() % 4).map(|_| self.schema(0)).collect();
                    self.record(fields);
                }
            }
            3 => {
                let items = |items, _| json!({"type": "array", "items": items});
                let nested = (0..count % 120).fold(json!("int"), items);
                self.record(vec![nested]);
            }
            4 => {
                let wide = vec![json!("string"); count * self.next() % 10_000];
                self.record(wide);
            }
            5 => {
                self.record(vec![json!("bytes")]);
                let aliases: Vec<String> =
                    (0..count % 80).map(|alias| format!("A{alias}")).collect();
                let namespace = "n".repeat(self.next() * 2);
                if let Some(last) = self.types.last_mut() {
                    last["aliases"] = json!(aliases);
                    last["namespace"] = json!(namespace);
                }
            }
            6 => {
                let within = |inner, place| {
                    let name = format!("W{}_{place}", self.types.len());
                    json!({"type": "record", "name": name, "fields": [{"name": "w", "type": inner}]})
                };
                let inner = (0..count % 40).fold(json!("long"), within);
                self.record(vec![inner]);
            }
            _ => {
                let schema = self.schema(0);
                self.record(vec![schema]);
            }
        }
    }

    fn record(&mut self, types: Vec<Value>) {
        let field = |(place, schema)| json!({"name": format!("f{place}"), "type": schema});
        let fields: Vec<Value> = types.into_iter().enumerate().map(field).collect();
        let name = format!("T{}", self.types.len());
        self.types.push(json!({"type": "record", "name": name, "fields": fields}));
    }

    fn schema(&mut self, depth: usize) -> Value {
        if depth > 20 {
            return json!("null");
        }
        match self.next() % 10 {
            0 => json!("null"),
            1 => json!("boolean"),
            2 => json!({"type": "long", "logicalType": "timestamp-millis"}),
            3 => json!({"type": "double", "logicalType": "uuid", "x": [[1]]}),
            4 => json!({"type": "array", "items": self.schema(depth + 1)}),
            5 => json!({"type": "map", "values": self.schema(depth + 1)}),
            6 => {
                let variants: Vec<Value> =
                    (0..self.next() % 5).map(|_| self.schema(depth + 1)).collect();
                json!(variants)
            }
            7 => {
                json!({"type": "enum", "name": format!("E{}", self.next()), "symbols": ["a", "b"]})
            }
            8 => json!({"type": "fixed", "name": format!("F{}", self.next()), "size": self.next()}),
            _ => json!(format!("T{}", self.next())),
        }
    }
}
