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
