//! The documentation of public items.

use std::fmt::Write as _;

use checks::{Kind, PublicItem, Rule, breaks, compiling_examples};

fn items() -> impl Iterator<Item = &'static PublicItem> {
    crate::SURVEYS.iter().flat_map(|survey| &survey.api).filter(|item| item.kind != Kind::Mention)
}

/// Fails unless a rule is broken as often as `left` says: seldomer is progress, which is to be kept.
fn check(rule: Rule, left: usize) {
    let found: Vec<_> =
        items().filter_map(|item| breaks(rule, item).map(|how| (item, how))).collect();
    let mut list = String::new();
    for (item, how) in &found {
        writeln!(list, "{}:{}: `{}`: {how}", item.file.display(), item.at, item.path)
            .expect("a string");
    }
    let count = found.len();
    assert!(count <= left, "{list}{count} items break the rule, of which only {left} were known");
    assert!(
        count == left,
        "Only {count} items still break the rule {rule:?}: write {count} for {left} in \
         checks/tests/it/docs.rs, so that no further one comes"
    );
}

#[test]
fn summaries_begin_with_their_subject_or_verb() {
    check(Rule::Opening, 0);
}

#[test]
fn summaries_have_the_words_of_the_field() {
    check(Rule::Words, 0);
}

#[test]
fn summaries_name_their_subject() {
    check(Rule::Subject, 0);
}

#[test]
fn asynchronous_functions_tell_their_cancel_safety() {
    check(Rule::CancelSafety, 0);
}

#[test]
fn fallible_functions_tell_their_errors() {
    check(Rule::Errors, 0);
}

#[test]
fn builders_and_handles_have_an_example() {
    check(Rule::Example, 0);
}

/// Examples in the documentation of public items that are compiled, at least.
const MIN_EXAMPLES: usize = 155;

#[test]
fn there_are_examples() {
    let count: usize = items().map(|item| compiling_examples(&item.docs)).sum();
    assert!(count >= MIN_EXAMPLES, "{count} examples are compiled, of at least {MIN_EXAMPLES}");
}
