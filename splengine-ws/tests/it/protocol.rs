//! `PROTOCOL.md`, and the frames and close codes that the sources have.

use std::collections::BTreeSet;

const PROTOCOL: &str = include_str!("../../PROTOCOL.md");
const FRAMES: &str = include_str!("../../src/frame.rs");
const SENDERS: [&str; 5] = [
    include_str!("../../src/encode.rs"),
    include_str!("../../src/connection/listen.rs"),
    include_str!("../../src/connection/serve.rs"),
    include_str!("../../src/connection/tell.rs"),
    include_str!("../../src/connection/typing.rs"),
];

/// What stands in the sources between `before` and the next `"`.
fn names(before: &str) -> BTreeSet<&'static str> {
    let texts = SENDERS.iter().flat_map(|text| text.split(before).skip(1));
    texts.filter_map(|rest| rest.split('"').next()).collect()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[test]
fn each_frame_of_clients_is_described() {
    let (_, frames) = FRAMES.split_once("enum Frame {").expect("the enum");
    let (frames, _) = frames.split_once("#[serde(other)]").expect("its last variant");
    let names = frames.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.split([' ', ',']).next()?;
        name.starts_with(char::is_uppercase).then_some(name)
    });
    let names: Vec<String> = names.map(snake_case).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(PROTOCOL.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn each_frame_of_the_server_is_described() {
    let types = names("\"type\": \"");
    assert!(types.len() > 10, "{types:?}");
    for name in types {
        assert!(PROTOCOL.contains(&format!("| `{name}` |")), "{name}");
    }
    let kinds = names("\"kind\": \"");
    assert!(kinds.len() > 5, "{kinds:?}");
    for kind in kinds.into_iter().filter(|kind| *kind != "unknown") {
        assert!(PROTOCOL.contains(&format!("`{kind}`")), "{kind}");
    }
}

#[test]
fn each_close_code_is_described() {
    let words =
        SENDERS.iter().flat_map(|text| text.split(|letter: char| !letter.is_alphanumeric()));
    let codes: BTreeSet<_> = words
        .filter(|word| word.len() == 4 && (word.starts_with("44") || word.starts_with("10")))
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .collect();
    assert!(codes.contains("4404") && codes.contains("1012"), "{codes:?}");
    let (_, told) = PROTOCOL.split_once("## Close codes").expect("the table");
    for code in codes {
        assert!(told.contains(code), "{code}");
    }
}
