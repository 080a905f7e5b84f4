use serde_json::json;

use super::*;

fn refused(mut definitions: Vec<Value>) -> String {
    apply(&mut definitions, 1).expect_err("it is beyond a limit")
}

fn accepted(mut definitions: Vec<Value>) -> Vec<Value> {
    apply(&mut definitions, 1).expect("it is within the limits");
    definitions
}

fn record(name: &str, types: impl IntoIterator<Item = Value>) -> Value {
    let field = |(place, schema)| json!({"name": format!("f{place}"), "type": schema});
    let fields: Vec<Value> = types.into_iter().enumerate().map(field).collect();
    json!({"type": "record", "name": name, "fields": fields})
}

fn request(schema: Value) -> Value {
    record("q", [schema])
}

/// An array of arrays, of so many levels with the integer within.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!("int"), |items, _| json!({"type": "array", "items": items}))
}

/// Records that each refer to the next, the last of which to `last`.
fn chain(count: usize, last: Value) -> Vec<Value> {
    (0..count)
        .map(|place| {
            let next =
                if place + 1 == count { last.clone() } else { json!(format!("T{}", place + 1)) };
            record(&format!("T{place}"), [next])
        })
        .collect()
}

fn with_request(mut types: Vec<Value>, schema: Value) -> Vec<Value> {
    types.push(request(schema));
    types
}

#[test]
fn depth_counts_what_is_referred_to() {
    // The request is one level itself.
    accepted(vec![request(nested(MAX_DEPTH - 1))]);
    assert_eq!(refused(vec![request(nested(MAX_DEPTH))]), too_deep());
    accepted(with_request(chain(MAX_DEPTH - 2, json!("int")), json!("T0")));
    assert_eq!(refused(with_request(chain(MAX_DEPTH - 1, json!("int")), json!("T0"))), too_deep());
    // Half of it written, half referred to.
    let half = MAX_DEPTH / 2;
    let below = |levels| vec![record("Below", [nested(levels)]), request(nested(half))];
    let refer = |levels| {
        let mut all = below(levels);
        let text = all[1].to_string().replace(r#""int""#, r#""Below""#);
        all[1] = serde_json::from_str(&text).expect("JSON");
        all
    };
    accepted(refer(half - 2));
    assert_eq!(refused(refer(half)), too_deep());
    // Whatever no request needs is parsed all the same.
    assert_eq!(refused(with_request(chain(MAX_DEPTH, json!("int")), json!("int"))), too_deep());
}

#[test]
fn types_that_refer_to_themselves_are_as_deep_as_all_of_them() {
    let around = |count| with_request(chain(count, json!(["null", "T0"])), json!("T0"));
    accepted(around(3));
    accepted(around((MAX_DEPTH - 4) / 2));
    assert_eq!(refused(around(MAX_DEPTH / 2)), too_deep());
    let own = record(
        "T",
        [json!({"type": "array", "items": "T"}), json!({"type": "map", "values": "T"})],
    );
    accepted(with_request(vec![own], json!("T")));
}

#[test]
fn references_are_counted_with_what_they_name() {
    let doubling = |levels: usize| {
        let mut all = vec![record("R0", [])];
        for level in 1..levels {
            let below = json!(format!("R{}", level - 1));
            all.push(record(&format!("R{level}"), [below.clone(), below]));
        }
        with_request(all, json!(format!("R{}", levels - 1)))
    };
    accepted(doubling(10));
    for levels in [12, 40, 62] {
        assert!(refused(doubling(levels)).contains("take more than 4096"), "{levels}");
    }
}

#[test]
fn everything_is_counted() {
    let fields =
        |count: usize| vec![request(json!("int")), record("q2", vec![json!("int"); count])];
    accepted(vec![record("T", vec![json!("int"); MAX_NODES - 3]), request(json!("int"))]);
    let problem = refused(vec![record("T", vec![json!("int"); MAX_NODES]), request(json!("int"))]);
    assert!(problem.contains("more than 8192 fields"), "{problem}");
    let problem = refused(fields(MAX_EXPANDED_NODES));
    assert!(problem.contains("take more than 4096"), "{problem}");
    let symbols: Vec<String> = (0..MAX_NODES).map(|symbol| format!("s{symbol}")).collect();
    let symbols = json!({"type": "enum", "name": "E", "symbols": symbols});
    assert!(refused(with_request(vec![symbols], json!("E"))).contains("more than 8192 fields"));
    let references = record("T", vec![json!("U"); MAX_NODES]);
    let problem = refused(with_request(vec![references, record("U", [])], json!("int")));
    assert!(problem.contains("more than 8192 fields"), "{problem}");
    let names = (0..MAX_NAMES).map(|name| record(&format!("T{name}"), []));
    assert_eq!(refused(with_request(names.collect(), json!("int"))), too_many_names());
    let singles = |count| vec![record("T", vec![json!(["int"]); count]), request(json!("int"))];
    accepted(singles(MAX_SINGLE_UNIONS));
    assert!(refused(singles(MAX_SINGLE_UNIONS + 1)).contains("unions of one type"));
}

#[test]
fn what_the_library_copies_is_counted() {
    let aliases = |count: usize| {
        let aliases: Vec<String> = (0..count).map(|alias| format!("A{alias}")).collect();
        let mut named = record("T", [json!("int")]);
        named["aliases"] = json!(aliases);
        with_request(vec![named], json!("T"))
    };
    accepted(aliases(MAX_ALIASES));
    assert!(refused(aliases(MAX_ALIASES + 1)).contains("more than 64 aliases"));
    let mut field = request(json!("int"));
    field["fields"][0]["aliases"] = json!(vec!["a"; MAX_ALIASES + 1]);
    assert!(refused(vec![field]).contains("more than 64 aliases"));
    let mut large = record("T", vec![json!("int"); 4000]);
    large["aliases"] = json!(["A0", "A1", "A2", "A3", "A4", "A5", "A6", "A7"]);
    assert!(refused(with_request(vec![large], json!("int"))).contains("as more than 32768"));
    // Each is written within the next.
    let within = (0..40).fold(record("T", vec![json!("int"); 1000]), |inner, place| {
        record(&format!("U{place}"), [inner])
    });
    assert!(refused(with_request(vec![within], json!("int"))).contains("as more than 32768"));
}

#[test]
fn names_are_short_and_stand_for_one_type() {
    let long = "n".repeat(MAX_NAME_BYTES);
    let named = |name: &str, namespace: &str| {
        let mut named = record(name, [json!("int")]);
        named["namespace"] = json!(namespace);
        with_request(vec![named], json!("int"))
    };
    accepted(named(&long, ""));
    for definitions in [
        named(&format!("{long}n"), ""),
        named("T", &long),
        vec![record("q", [json!(format!("{long}n"))])],
        vec![json!({"type": "record", "name": "q", "fields": [
            {"name": format!("{long}n"), "type": "int"}]})],
        with_request(
            vec![json!({"type": "enum", "name": "E", "symbols": [format!("{long}n")]})],
            json!("E"),
        ),
    ] {
        assert!(refused(definitions).contains("longer than 256 bytes"));
    }
    let twice = vec![record("T", []), record("T", []), request(json!("T"))];
    assert!(refused(twice).contains("`T` twice"));
    let mut alias = record("U", []);
    alias["aliases"] = json!(["T"]);
    assert!(refused(vec![record("T", []), alias, request(json!("T"))]).contains("alias `T`"));
    assert!(refused(vec![request(json!("T"))]).contains("`T`, which it does not define"));
}

#[test]
fn what_is_no_definition_is_refused() {
    for definition in [
        json!(1),
        json!("int"),
        json!({"type": "T", "name": "A"}),
        json!({"type": "array", "name": "A", "items": "int"}),
        json!({"type": {"type": "record", "name": "T", "fields": []}, "name": "A"}),
        json!({"type": "record", "name": "T"}),
        json!({"type": "record", "name": "T", "fields": null}),
        json!({"type": "record", "fields": []}),
        json!({"type": "record", "name": "T", "fields": ["f"]}),
        json!({"type": "record", "name": "T", "fields": [{"name": "f"}]}),
        json!({"type": "record", "name": "T", "fields": [{"name": "f", "type": []}]}),
        json!({"type": "record", "name": "T", "fields": [{"name": "f", "type": {"type": "record"}}]}),
        json!({"type": "record", "name": "T", "fields": [{"name": "f", "type": {"type": "map"}}]}),
        json!({"type": "enum", "name": "T"}),
        json!({"type": "fixed", "name": "T"}),
    ] {
        refused(vec![definition, request(json!("int"))]);
    }
}

#[test]
fn names_are_made_absolute_and_the_rest_is_taken_out() {
    let inner = json!({"type": "enum", "name": "E", "symbols": ["a"], "default": "a", "x": 1});
    let plain = json!({"type": "fixed", "name": "F", "namespace": "", "size": 4, "doc": "d"});
    let definition = json!({"type": "record", "name": "T", "namespace": "a.b", "doc": "d", "fields": [
        {"name": "e", "type": inner, "default": "a", "order": "ignore", "aliases": ["f"]},
        {"name": "f", "type": plain},
        {"name": "g", "type": ["null", "E", "T"]},
        {"name": "h", "type": {"type": "long", "logicalType": "timestamp-millis", "x": {}}},
        {"name": "i", "type": {"type": "string", "logicalType": "uuid"}}]});
    let [definition, _] = &accepted(vec![definition, request(json!("a.b.T"))])[..] else {
        panic!("two went in");
    };
    let expected = json!({"type": "record", "name": "a.b.T", "fields": [
        {"name": "e", "type": {"type": "enum", "name": "a.b.E", "symbols": ["a"]}, "aliases": ["f"]},
        {"name": "f", "type": {"type": "fixed", "name": ".F", "size": 4}},
        {"name": "g", "type": ["null", "a.b.E", "a.b.T"]},
        {"name": "h", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "i", "type": {"type": "string"}}]});
    assert_eq!(definition, &expected);
}
