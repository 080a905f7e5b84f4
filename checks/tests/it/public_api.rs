//! The public interface of each published crate, as `api/<crate>.txt` has it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::{env, fs};

use checks::workspace;

#[test]
fn the_public_interface_is_as_recorded() {
    let mut problems = String::new();
    for survey in crate::SURVEYS.iter() {
        let name = survey.package;
        let path = workspace().join(format!("checks/api/{name}.txt"));
        let lines: Vec<_> = survey.api.iter().map(|item| item.line.as_str()).collect();
        if env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(&path, lines.join("\n") + "\n").expect("written");
            continue;
        }
        let recorded = fs::read_to_string(&path).unwrap_or_default();
        let before: BTreeSet<_> = recorded.lines().collect();
        let now: BTreeSet<_> = lines.iter().copied().collect();
        for line in before.difference(&now) {
            writeln!(problems, "{name}: - {line}").expect("a string");
        }
        for line in now.difference(&before) {
            writeln!(problems, "{name}: + {line}").expect("a string");
        }
        if problems.is_empty() && recorded.lines().ne(lines.iter().copied()) {
            writeln!(problems, "{name}: the same lines in another order").expect("a string");
        }
    }
    assert!(
        problems.is_empty(),
        "The public interface has changed:\n{problems}If that is meant, run `UPDATE=1 cargo test -p checks` \
         and commit checks/api with the change."
    );
}

/// How values are stored and sent is private: a stored form may change while the public interface stays, and
/// the other way round.
#[test]
fn no_public_type_implements_serde() {
    let items = crate::SURVEYS.iter().flat_map(|survey| &survey.api);
    let found: Vec<_> =
        items.map(|item| item.line.as_str()).filter(|line| implements_serde(line)).collect();
    assert!(found.is_empty(), "Public types implement traits of serde:\n{}", found.join("\n"));
}

/// Whether a line of the interface says that something is serialized or deserialized by serde.
fn implements_serde(line: &str) -> bool {
    let Some((head, _)) = line.split_once(" for splengine_") else { return false };
    let words: Vec<_> = head.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    words.contains(&"impl")
        && words
            .iter()
            .any(|word| ["serde", "Serialize", "Deserialize", "DeserializeOwned"].contains(word))
}

#[test]
fn implementations_of_serde_are_noticed() {
    for line in [
        "impl Serialize for splengine_core::Step",
        "impl<'de> Deserialize<'de> for splengine_core::Step",
        "#[cfg(feature = \"testing\")] impl serde::Serialize for splengine_core::Step",
    ] {
        assert!(implements_serde(line), "{line}");
    }
    assert!(!implements_serde("impl Clone for splengine_core::Step"));
    assert!(!implements_serde("pub fn splengine_core::serialize(step: Step)"));
}
