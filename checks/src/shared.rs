//! What servers share, and must not have a copy of.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::Item;

use crate::source::SourceTree;

/// Finds in a server's crate what core has for all servers: an accept loop, a parser of bearer tokens, a
/// check of origins, a table of exit codes, a count by key. Each is told with its file and line.
///
/// They are found by their looks: `.accept()` within a loop; `"bearer"` compared with something; a URL's
/// scheme split off, or the check of names that are open to DNS rebinding; a `Reason` or an
/// `ExecuteError` matched to a number, or a constant that is one of a shell's codes; a field that is a
/// map from users or addresses to numbers or semaphores.
#[must_use]
pub fn copies_of_shared_code(tree: &SourceTree) -> Vec<String> {
    let mut found = Vec::new();
    for module in &tree.modules {
        let file = module.file.display();
        let with_turns: Vec<String> = module.items.iter().filter_map(has_semaphore).collect();
        for item in &module.items {
            let mut search = Search { with_turns: with_turns.clone(), found: Vec::new() };
            match item {
                Item::Const(constant) => search.constant(constant),
                Item::Struct(of) => search.fields(of),
                _ => {}
            }
            search.tokens(item.to_token_stream(), false);
            found.extend(search.found.iter().map(|(line, what)| format!("{file}:{line}: {what}")));
        }
    }
    found
}

/// The name of a structure with a semaphore in it.
fn has_semaphore(item: &Item) -> Option<String> {
    let Item::Struct(of) = item else { return None };
    let has =
        of.fields.iter().any(|field| field.ty.to_token_stream().to_string().contains("Semaphore"));
    has.then(|| of.ident.to_string())
}

struct Search {
    /// Names of structures that have a semaphore.
    with_turns: Vec<String>,
    found: Vec<(usize, &'static str)>,
}

impl Search {
    fn constant(&mut self, constant: &syn::ItemConst) {
        let kind = constant.ty.to_token_stream().to_string();
        let value = constant.expr.to_token_stream().to_string();
        if ["i32", "u32"].contains(&kind.as_str()) && SHELL_CODES.contains(&value.as_str()) {
            self.found.push((constant.ident.span().start().line, "an exit code of its own"));
        }
    }

    fn fields(&mut self, of: &syn::ItemStruct) {
        for field in &of.fields {
            let kind = field.ty.to_token_stream().to_string().replace(' ', "");
            let is_map = kind.contains("HashMap<") || kind.contains("BTreeMap<");
            let of_peers = PEERS.iter().any(|key| kind.contains(&format!("Map<{key},")));
            let counts = COUNTS.iter().any(|value| kind.contains(&format!(",{value}>")));
            // A semaphore for each of something, whatever that is.
            let has_turns = kind.contains("Semaphore>")
                || self.with_turns.iter().any(|name| kind.contains(&format!(",{name}>")));
            if is_map && (has_turns || of_peers && counts) {
                self.found.push((of.ident.span().start().line, "a count by key of its own"));
            }
        }
    }

    /// Looks through an expression, or whatever it is; `loops` is whether it is repeated.
    fn tokens(&mut self, tokens: TokenStream, loops: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut begins_loop = false;
        for (place, token) in tokens.iter().enumerate() {
            let line = token.span().start().line;
            let next = |count: usize| tokens.get(place + count);
            match token {
                TokenTree::Group(group) => {
                    let is_body = group.delimiter() == Delimiter::Brace;
                    self.tokens(group.stream(), loops || (is_body && begins_loop));
                    begins_loop &= !is_body;
                }
                TokenTree::Ident(name) => {
                    let name = name.to_string();
                    begins_loop |= ["loop", "while"].contains(&name.as_str());
                    let arguments = next(1).and_then(arguments).unwrap_or_default();
                    if loops && name == "accept" && next(1).is_some_and(is_empty) {
                        self.found.push((line, "an accept loop of its own"));
                    }
                    let compares = COMPARISONS.contains(&name.as_str());
                    let shown = arguments.to_lowercase();
                    if compares && (shown == "\"bearer\"" || shown.starts_with("\"bearer ")) {
                        self.found.push((line, "a parser of bearer tokens of its own"));
                    }
                    if compares && SCHEMES.contains(&arguments.as_str()) {
                        self.found.push((line, "a check of origins of its own"));
                    }
                    if name == "is_rebindable_host" {
                        self.found.push((line, "a check of hosts of its own"));
                    }
                    if ["Reason", "ExecuteError"].contains(&name.as_str())
                        && gives_number(&tokens[place..])
                    {
                        self.found.push((line, "a table of exit codes of its own"));
                    }
                }
                _ => {}
            }
        }
    }
}

/// What stands in the parentheses that `token` is.
fn arguments(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
            Some(group.stream().to_string())
        }
        _ => None,
    }
}

fn is_empty(token: &TokenTree) -> bool {
    arguments(token).is_some_and(|arguments| arguments.is_empty())
}

/// Whether the pattern that begins here is followed by `=>` and a number: it is an arm of a table.
fn gives_number(tokens: &[TokenTree]) -> bool {
    let is = |token: &TokenTree, sign: char| matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign);
    // A path, and perhaps fields; another pattern behind `|` is looked at by itself.
    let mut rest = tokens.iter().enumerate().skip_while(|(_, token)| match token {
        TokenTree::Ident(_) => true,
        TokenTree::Group(group) => group.delimiter() != Delimiter::Bracket,
        token => is(token, ':'),
    });
    let (Some((place, equals)), Some((_, greater))) = (rest.next(), rest.next()) else {
        return false;
    };
    let value = tokens.get(place + 2).map(ToString::to_string).unwrap_or_default();
    is(equals, '=') && is(greater, '>') && value.starts_with(|first: char| first.is_ascii_digit())
}

/// Codes with which shells and `timeout` end that say something of a command.
const SHELL_CODES: &[&str] = &["124", "125", "126", "127", "130", "137"];
const PEERS: &[&str] = &["UserName", "IpAddr", "SocketAddr", "Network"];
const COUNTS: &[&str] = &["usize", "u32", "u64"];
const COMPARISONS: &[&str] =
    &["eq_ignore_ascii_case", "starts_with", "strip_prefix", "split_once", "trim_start_matches"];
const SCHEMES: &[&str] = &["\"://\"", "\"http://\"", "\"https://\""];

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::source::Sources;

    fn copies(source: &str) -> Vec<String> {
        let root = Path::new("src/lib.rs");
        let sources: Sources = [(PathBuf::from(root), source.to_owned())].into();
        copies_of_shared_code(&SourceTree::parse("one", root, &sources))
    }

    #[test]
    fn copies_are_found() {
        for (source, what) in [
            ("async fn f(l: L) { loop { let c = l.accept().await; } }", "an accept loop"),
            (
                "async fn f(l: L) { while let Ok(c) = l.next() { g(l.accept()); } }",
                "an accept loop",
            ),
            ("fn f(s: &str) -> bool { s.eq_ignore_ascii_case(\"Bearer\") }", "bearer tokens"),
            ("fn f(s: &str) -> bool { g(|| s.starts_with(\"Bearer \")) }", "bearer tokens"),
            ("fn f(o: &str) { o.split_once(\"://\"); }", "origins"),
            ("fn f(o: &str) { o.strip_prefix(\"https://\"); }", "origins"),
            ("fn f(host: &str) -> bool { is_rebindable_host(host) }", "hosts"),
            (
                "fn f(r: Reason) -> i32 { match r { Reason::TimedOut => 124, _ => 0 } }",
                "exit codes",
            ),
            (
                "fn f(e: ExecuteError) -> u32 { match e { ExecuteError::Program { .. } => 127, \
                 _ => 0 } }",
                "exit codes",
            ),
            ("const LOST: i32 = 125;", "an exit code"),
            ("struct Open { of: Mutex<HashMap<UserName, usize>> }", "a count by key"),
            ("struct Open { of: HashMap<IpAddr, Arc<Semaphore>> }", "a count by key"),
            (
                "struct Turn { of: Arc<Semaphore> } struct All(HashMap<Key, Turn>);",
                "a count by key",
            ),
        ] {
            let found = copies(source);
            assert!(found.len() == 1 && found[0].contains(what), "{source}: {found:?}");
            assert!(found[0].starts_with("src/lib.rs:1: "), "{found:?}");
        }
    }

    #[test]
    fn others_are_let_be() {
        for source in [
            "async fn f(answer: A) { answer.accept().await; }",
            "async fn f(l: L) { loop { l.accept(tls).await; } }",
            "fn f(e: ExecuteError) -> u32 { match e { ExecuteError::Split(_) => MISUSE, _ => 0 } }",
            "fn f() -> H { H::from_static(\"Bearer\") }",
            "const SIZE: usize = 127;",
            "struct Entry { of: u8 } struct Known { of: HashMap<Hash, Entry> }",
            "struct Known { of: HashMap<String, usize> }",
            "fn f(l: u8) -> u64 { match l { 126 => 2, 127 => 8, _ => 0 } }",
        ] {
            assert_eq!(copies(source), Vec::<String>::new(), "{source}");
        }
    }
}
