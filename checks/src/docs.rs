//! Rules for the documentation of public items.

use crate::examples::compiling_examples;
use crate::item::{Kind, PublicItem};

/// A rule for the documentation of public items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// The summary begins with a noun phrase or a verb, not with a relative clause, a pronoun or a
    /// preposition.
    Opening,
    /// The summary has the field's words.
    Words,
    /// The summary names its subject: it has at least three words, and a short one does not end in a
    /// pronoun.
    Subject,
    /// An asynchronous function says what is lost when its future is dropped.
    CancelSafety,
    /// A fallible function says when it fails.
    Errors,
    /// A builder or handle has an example that compiles.
    Example,
}

/// Words with which no summary begins: a summary is read alone, and begins with its subject or verb. So
/// relative clauses, pronouns and prepositions are out.
const OPENINGS: &[&str] = &[
    "what",
    "how",
    "whether",
    "why",
    "which",
    "who",
    "whom",
    "whose",
    "whoever",
    "whatever",
    "where",
    "when",
    "if",
    "it",
    "its",
    "this",
    "that",
    "they",
    "them",
    "their",
    "he",
    "him",
    "his",
    "she",
    "her",
    "we",
    "our",
    "i",
    "you",
    "your",
    "one",
    "ones",
    "these",
    "those",
    "the same",
    "nothing",
    "nobody",
    "somebody",
    "something",
    "after",
    "as",
    "at",
    "before",
    "below",
    "beside",
    "between",
    "by",
    "for",
    "from",
    "in",
    "of",
    "on",
    "over",
    "to",
    "until",
    "with",
    "within",
    "without",
];

/// Words of no standard meaning, and what to write in their place. Each is compared with a whole word,
/// or with several in a row.
const WORDS: &[(&str, &str)] = &[
    ("door", "server, adapter, or port"),
    ("doors", "servers, adapters, or ports"),
    ("stranger", "unauthenticated client"),
    ("strangers", "unauthenticated clients"),
    ("whoever", "the caller, the client, or the process that"),
    ("somebody", "a caller, a client, or a user"),
    ("someone", "a caller, a client, or a user"),
    ("nobody", "no caller, no client, or no process"),
    ("anybody", "any caller or client"),
    ("anyone", "any caller or client"),
    ("knife", "abort handle"),
    ("luck", "random number"),
    ("manieth", "number"),
    ("can't be had", "is not available"),
    ("gone on with", "resumed"),
    ("goes on with", "resumes"),
    ("room for", "capacity or memory for"),
    ("the room", "the capacity or the memory"),
    ("the hands of", "the handle of"),
    ("look at", "read of, or check of"),
    ("the most", "maximum"),
    ("the longest", "maximum length or maximum duration"),
    ("so many", "a number, named"),
    ("so much", "an amount, named"),
    ("from elsewhere", "from, and then the source"),
];

/// Words in which no short summary ends: they stand for a subject that the summary does not name. A
/// longer one may have named it.
const PRONOUNS: &[&str] = &["it", "them", "this", "that", "these", "those", "one", "ones"];

/// Verbs after a pronoun at the end of a summary, as in "Resolves when it is.".
const LEFT_OPEN: &[&str] = &["is", "are", "was", "were", "does", "do", "did", "has", "have", "can"];

/// Words of a summary, at least: fewer do not name a subject and say something about it.
const MIN_WORDS: usize = 3;

/// Words of a short summary, at most.
const MAX_SHORT_WORDS: usize = 8;

/// Ends of the names of types that have to have an example, as builders and settings.
const EXAMPLE_SUFFIXES: &[&str] = &["Builder", "Policy", "Options", "Request", "Limits", "Server"];

/// Names of further types that have to have an example: those that callers hold and act by.
const HANDLES: &[&str] = &[
    "Accounts",
    "Attachment",
    "Authenticator",
    "BatchEvents",
    "BatchJob",
    "BatchResultReader",
    "Batches",
    "Caller",
    "Cancel",
    "ClientInput",
    "Command",
    "Engine",
    "Execute",
    "FileListing",
    "FileWatch",
    "Files",
    "HostKeys",
    "HttpService",
    "LocalExecutor",
    "MemoryBudget",
    "OpenFile",
    "Output",
    "PtyHost",
    "RedbStore",
    "Run",
    "SalvagedStore",
    "Screen",
    "Session",
    "Sessions",
    "StaticTokens",
    "Stdin",
    "Step",
    "StepLog",
    "StepOutput",
    "Stopper",
    "Store",
    "Terminal",
    "Users",
    "WsService",
    "AvroService",
];

/// The first sentence of some documentation.
#[must_use]
pub fn summary(docs: &str) -> String {
    let paragraph: Vec<_> = docs
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .collect();
    let paragraph = paragraph.join(" ");
    let mut is_code = false;
    for (at, char) in paragraph.char_indices() {
        is_code ^= char == '`';
        let rest = &paragraph[at + char.len_utf8()..];
        let is_abbreviation =
            ["e.g", "i.e", "etc", " vs"].iter().any(|each| paragraph[..at].ends_with(each));
        if char == '.' && !is_code && !is_abbreviation && (rest.is_empty() || rest.starts_with(' '))
        {
            return paragraph[..=at].to_owned();
        }
    }
    paragraph
}

/// Returns how an item breaks a rule, as a sentence that says what is wrong and what would be right;
/// `None` where it keeps the rule or the rule is not for it.
#[must_use]
pub fn breaks(rule: Rule, item: &PublicItem) -> Option<String> {
    match rule {
        Rule::Opening => opening(&summary(&item.docs)),
        Rule::Words => word(&summary(&item.docs)),
        Rule::Subject => subject(&summary(&item.docs)),
        Rule::CancelSafety => {
            (item.is_async && !has_heading(&item.docs, "Cancel safety")).then(|| {
                "has no `# Cancel safety` section: say what is lost, and what goes on, when the future is \
                 dropped"
                    .to_owned()
            })
        }
        Rule::Errors => {
            (item.is_fallible && !has_heading(&item.docs, "Errors")).then(|| {
                "has no `# Errors` section: say which errors there are, and when".to_owned()
            })
        }
        Rule::Example => {
            let name = item.path.rsplit("::").next().unwrap_or_default();
            let is_handle = matches!(item.kind, Kind::Type | Kind::Trait)
                && (EXAMPLE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) || HANDLES.contains(&name));
            (is_handle && compiling_examples(&item.docs) == 0).then(|| {
                "has no example that compiles: show the shortest real use, in a ``` block".to_owned()
            })
        }
    }
}

fn opening(summary: &str) -> Option<String> {
    let lower = summary.to_lowercase();
    let found = OPENINGS.iter().find(|opening| {
        lower.strip_prefix(**opening).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    })?;
    Some(format!(
        "the summary begins with `{found}`: begin with a noun phrase or a verb in the third person \
         (\"Returns whether ...\", \"Maximum number of ...\"): {summary}"
    ))
}

fn word(summary: &str) -> Option<String> {
    let plain = summary.to_lowercase();
    let words: Vec<_> = plain
        .split(|char: char| !(char.is_alphanumeric() || char == '\'' || char == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    let plain = format!(" {} ", words.join(" "));
    let (word, better) = WORDS.iter().find(|(word, _)| plain.contains(&format!(" {word} ")))?;
    Some(format!("the summary has the words `{word}`: write {better}: {summary}"))
}

fn subject(summary: &str) -> Option<String> {
    let plain = summary.to_lowercase();
    let words: Vec<_> = plain
        .split(char::is_whitespace)
        .map(|word| word.trim_matches(|char: char| !char.is_alphanumeric() && char != '`'))
        .filter(|word| word.contains(char::is_alphanumeric))
        .collect();
    if words.len() < MIN_WORDS {
        return Some(format!(
            "the summary has fewer than {MIN_WORDS} words: name its subject, and say what it is or \
             does: {summary}"
        ));
    }
    if words.len() > MAX_SHORT_WORDS {
        return None;
    }
    let said = match words.split_last() {
        Some((last, before)) if LEFT_OPEN.contains(last) => before,
        _ => &words,
    };
    let last = said.last().filter(|last| PRONOUNS.contains(last))?;
    Some(format!("the summary ends in `{last}`: name what it stands for: {summary}"))
}

fn has_heading(docs: &str, heading: &str) -> bool {
    docs.lines().any(|line| line.trim_start_matches('#').trim() == heading && line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn item(docs: &str, is_function: bool) -> PublicItem {
        PublicItem {
            path: "c::RunBuilder".to_owned(),
            kind: if is_function { Kind::Function } else { Kind::Type },
            line: String::new(),
            docs: docs.to_owned(),
            file: PathBuf::from("lib.rs"),
            at: 1,
            is_async: is_function,
            is_fallible: is_function,
        }
    }

    #[test]
    fn a_summary_is_the_first_sentence() {
        for (docs, expected) in [
            ("A thing. It is more.\nB.", "A thing."),
            (
                "\nVersion 1.2 of `a. b`, e.g. this,\nfor all. More.",
                "Version 1.2 of `a. b`, e.g. this, for all.",
            ),
            ("A list\n\nMore.", "A list"),
            ("Größe – von allem. Mehr.", "Größe – von allem."),
            ("", ""),
        ] {
            assert_eq!(summary(docs), expected);
        }
    }

    #[test]
    fn summaries_begin_with_their_subject() {
        for bad in [
            "Whether it runs.",
            "It runs.",
            "The same, later.",
            "One of them.",
            "To run.",
            "For runs.",
        ] {
            assert!(breaks(Rule::Opening, &item(bad, false)).is_some(), "{bad}");
        }
        for good in
            ["Returns whether it runs.", "Items.", "The sameness.", "Onerous.", "`It`.", "Total."]
        {
            assert_eq!(breaks(Rule::Opening, &item(good, false)), None, "{good}");
        }
    }

    #[test]
    fn summaries_have_no_private_words() {
        for bad in ["Clients of a door.", "Whoever asks.", "Directory that can't be had."] {
            assert!(breaks(Rule::Words, &item(bad, false)).is_some(), "{bad}");
        }
        for good in ["Indoors.", "Clients of a server. A door."] {
            assert_eq!(breaks(Rule::Words, &item(good, false)), None, "{good}");
        }
    }

    #[test]
    fn summaries_name_their_subject() {
        for bad in [
            "The engine.",
            "Any body.",
            "Any [`Session`].",
            "Empties it.",
            "Resolves when it is.",
            "Returns the first of them.",
            "Tells all clients that one – is.",
        ] {
            assert!(breaks(Rule::Subject, &item(bad, false)).is_some(), "{bad}");
        }
        for good in [
            "Builds the engine.",
            "Wraps any body.",
            "Returns what it is for.",
            "Number of `it`.",
            "Name of the user, for protocols in which a client says it.",
            "Returns whether one is running.",
        ] {
            assert_eq!(breaks(Rule::Subject, &item(good, false)), None, "{good}");
        }
    }

    #[test]
    fn functions_tell_what_is_lost_and_what_fails() {
        for (rule, docs) in [
            (Rule::CancelSafety, "F.\n\n# Cancel safety\n\nSafe."),
            (Rule::Errors, "F.\n\n# Errors\n\nE."),
        ] {
            assert!(breaks(rule, &item("F.", true)).is_some());
            assert_eq!(breaks(rule, &item(docs, true)), None);
            assert_eq!(breaks(rule, &item("F.", false)), None);
        }
    }

    #[test]
    fn builders_have_an_example() {
        assert!(breaks(Rule::Example, &item("A builder.\n\n```text\n```", false)).is_some());
        assert_eq!(breaks(Rule::Example, &item("A builder.\n\n```\nf();\n```", false)), None);
    }
}
