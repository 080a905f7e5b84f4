//! The code map of ARCHITECTURE.md has every file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MAP: &str = include_str!("../../../ARCHITECTURE.md");

/// The words between backticks, each without what stands before its last slash.
fn names(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|quoted| quoted.trim_end_matches('/').rsplit('/').next()).collect()
}

/// What follows the line that begins with `head`, up to the next line that begins with one of `ends`.
fn part<'a>(text: &'a str, head: &str, ends: &[&str]) -> &'a str {
    let begin = text.find(&format!("\n{head}")).unwrap_or_else(|| panic!("no line begins: {head}"));
    let rest = &text[begin + 1..];
    let end = ends.iter().filter_map(|end| rest[1..].find(&format!("\n{end}"))).min();
    &rest[..end.map_or(rest.len(), |end| end + 1)]
}

/// The Rust files below a folder, but for tests and for lists of modules.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a text").to_owned();
        if path.is_dir() {
            found.extend(files(&path));
        } else if name.ends_with(".rs")
            && !["lib.rs", "mod.rs", "tests.rs", "testing.rs", "error.rs"].contains(&name.as_str())
            && !name.ends_with("_tests.rs")
        {
            found.push(path);
        }
    }
    found
}

fn missing(folder: &Path, of_map: &str) -> Vec<String> {
    let names = names(of_map);
    let stem = |path: &PathBuf| path.file_stem().and_then(|stem| stem.to_str().map(str::to_owned));
    let files = files(folder);
    let left = files.iter().filter(|file| !names.contains(stem(file).expect("a text").as_str()));
    left.map(|file| file.display().to_string()).collect()
}

#[test]
fn each_file_is_in_the_code_map() {
    let workspace = checks::workspace();
    let (_, map) = MAP.split_once("\n## Code map\n").expect("a code map");
    let mut left = Vec::new();
    for package in crate::PUBLISHED {
        let of_crate = part(map, &format!("### `{package}`"), &["### ", "## "]);
        let source = workspace.join(package).join("src");
        if *package != "splengine-core" {
            left.extend(missing(&source, of_crate));
            continue;
        }
        // Each of its folders has a table of its own.
        for entry in fs::read_dir(&source).expect("a folder").map(|entry| entry.expect("an entry"))
        {
            let name = entry.file_name().into_string().expect("a text");
            if entry.path().is_dir() {
                let table = part(of_crate, &format!("`src/{name}/`: "), &["`src/"]);
                left.extend(missing(&entry.path(), table));
            }
        }
        let table = part(of_crate, "Files directly in `src/`:", &["`src/"]);
        let names = names(table);
        for file in files(&source).iter().filter(|file| file.parent() == Some(&source)) {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a text");
            if !names.contains(stem) {
                left.push(file.display().to_string());
            }
        }
    }
    let server = part(map, "### The all-in-one server", &["### ", "## "]);
    left.extend(missing(&workspace.join("examples/all_in_one"), server));
    assert!(left.is_empty(), "not in the code map of ARCHITECTURE.md:\n{}", left.join("\n"));
}
