//! Error messages for a file of settings that can't be read: where it is wrong, and what would be
//! right.

const REFERENCE: &str = include_str!("SETTINGS.md");

/// What is wrong at byte `start` of `text`, if the place is known, which `problem` says in the words of the TOML reader.
///
/// Names the line, and what the key there is for: its unit, its bounds and its default. No value is shown, for
/// it may be a token.
pub(crate) fn of(text: &str, start: Option<usize>, problem: &str) -> String {
    let Some(start) = start else { return plain(problem) };
    let before = text.get(..start).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    let problem = plain(problem);
    let row = text.lines().nth(line - 1).unwrap_or_default();
    let about = key_of(row).and_then(|key| {
        let table = before.lines().rev().chain([row]).find_map(|line| {
            let name = line.trim().strip_prefix('[')?.split(']').next()?;
            Some(name.split('.').next().unwrap_or_default().to_owned())
        });
        described(&table.unwrap_or_default(), key)
    });
    match about {
        Some(about) if problem.contains("expected") => format!("line {line}: {problem}. {about}"),
        _ => format!("line {line}: {problem}"),
    }
}

fn key_of(row: &str) -> Option<&str> {
    let key = row.split_once('=')?.0.trim();
    (!key.is_empty() && !key.contains(['.', '"', ' '])).then_some(key)
}

/// The row of the reference for this key, as a sentence that begins with it.
fn described(table: &str, key: &str) -> Option<String> {
    let heading = match table {
        "" => "## The file of `--config`".to_owned(),
        "users" => "### `users.NAME`".to_owned(),
        table => format!("### `{table}`"),
    };
    let section = REFERENCE.split_once(&format!("\n{heading}\n"))?.1;
    let section = section.split("\n#").next()?;
    let row = section.lines().find_map(|line| line.strip_prefix(&format!("| `{key}` | ")))?;
    Some(format!("`{key}`: {}", row.trim_end_matches(" |").trim_end_matches('.')))
}

/// The reader's words without those of Rust, and without a value that is text.
fn plain(problem: &str) -> String {
    let problem = match problem.split_once("string \"").zip(problem.rsplit_once("\", expected")) {
        Some(((head, _), (_, wanted))) => format!("{head}a text, expected{wanted}"),
        None => problem.to_owned(),
    };
    let words = [
        ("cannot recurse further; max recursion depth met", "is nested too deep"),
        ("recursion limit", "is nested too deep"),
        ("a nonzero u64", "a whole number of at least 1"),
        ("a nonzero u32", "a whole number of at least 1, and of at most 4294967295"),
        ("expected usize", "expected a whole number"),
        ("expected u64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected a sequence", "expected a list, in brackets"),
        ("expected a boolean", "expected true or false"),
        ("expected struct", "expected a table"),
    ];
    words.into_iter().fold(problem, |text, (of_rust, plain)| text.replace(of_rust, plain))
}
