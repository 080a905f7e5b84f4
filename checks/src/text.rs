//! Tokens as one line of text, spaced as rustfmt would.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;

/// The text of some tokens, without line breaks.
pub(crate) fn text(tokens: &impl ToTokens) -> String {
    let mut words = Vec::new();
    flatten(tokens.to_token_stream(), &mut words);
    let mut line = String::new();
    let mut last = "";
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).map(String::as_str);
        if word == "," && matches!(next, None | Some(")" | "]" | ">" | "}")) {
            continue;
        }
        if !last.is_empty() && is_apart(last, word) {
            line.push(' ');
        }
        line.push_str(word);
        last = word;
    }
    line
}

/// Splits tokens into words, with operators and lifetimes in one piece.
fn flatten(tokens: TokenStream, words: &mut Vec<String>) {
    let mut is_joint = false;
    for token in tokens {
        let mut joins_next = false;
        let word = match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                words.extend((!open.is_empty()).then(|| open.to_owned()));
                flatten(group.stream(), words);
                words.extend((!close.is_empty()).then(|| close.to_owned()));
                is_joint = false;
                continue;
            }
            TokenTree::Punct(punct) => {
                // `>>` closes two lists, `<'` and `&'` open a lifetime.
                let is_operator = matches!(punct.as_char(), '-' | '=' | ':' | '.' | '\'');
                joins_next = punct.spacing() == Spacing::Joint && is_operator;
                punct.as_char().to_string()
            }
            word => word.to_string(),
        };
        match words.last_mut().filter(|_| is_joint) {
            Some(last) => last.push_str(&word),
            None => words.push(word),
        }
        is_joint = joins_next;
    }
}

/// Returns whether a space stands between two words.
fn is_apart(before: &str, after: &str) -> bool {
    let is_word = |word: &str| word.starts_with(|char: char| char.is_alphanumeric() || char == '_');
    let is_keyword = matches!(before, "dyn" | "mut" | "as" | "in" | "where" | "const" | "impl");
    match (before, after) {
        (_, "," | ";" | ":" | ")" | "]" | ">" | "?" | "." | "..") => false,
        ("(" | "[" | "<" | "&" | "#" | "!" | "." | ".." | "::" | "*", _) => false,
        ("impl" | "for", "<") => false,
        (word, "(" | "[" | "<" | "::") if is_word(word) => is_keyword,
        (">", "(" | "::") | (_, "!") => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_spaced_as_usual() {
        for line in [
            "pub async fn f<'a, T: Into<String> + Send>(&'a mut self, x: &[u8], (a, b): (u8, &str)) -> Result<(), Box<dyn Error + Send>> where T: 'static",
            "fn f(self, at: impl FnOnce(&str) -> T) -> impl Future<Output = io::Result<[u8; 3]>> + Send",
            "impl<T> From<T> for crate::A<T, 3>",
            "const A: Option<&'static str>",
            "fn g<F>(f: F) -> <F as IntoFuture>::Output where F: for<'a> Fn(&'a str, &mut u8) -> bool",
            "type A = *const u8",
            "fn h(x: &dyn Fn(), y: Vec<Vec<u8>>, z: ())",
            "#[must_use]",
            "#[cfg(feature = \"redb\")]",
        ] {
            let tokens: TokenStream = line.parse().expect("tokens");
            assert_eq!(text(&tokens), line);
        }
    }
}
