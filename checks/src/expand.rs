//! Items that are made by macros of the crate's own: those of one rule, of fragments that need no
//! grammar to find their end.

use std::collections::HashMap;
use std::iter::Peekable;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree, token_stream};
use syn::Item;

use crate::cfg;
use crate::source::attributes;

/// A macro's one rule: what is matched, and what is made of it.
#[derive(Debug)]
pub(crate) struct Rule {
    pattern: TokenStream,
    body: TokenStream,
}

/// The macros among these items that have one rule.
pub(crate) fn macros<'i>(items: impl Iterator<Item = &'i Item>) -> HashMap<String, Rule> {
    let mut found = HashMap::new();
    for item in items {
        let Item::Macro(item) = item else { continue };
        let Some(name) = item.ident.as_ref().filter(|_| item.mac.path.is_ident("macro_rules"))
        else {
            continue;
        };
        let groups: Vec<_> = item
            .mac
            .tokens
            .clone()
            .into_iter()
            .filter_map(|token| match token {
                TokenTree::Group(group) => Some(group.stream()),
                _ => None,
            })
            .collect();
        if let [pattern, body] = groups.as_slice() {
            found.insert(name.to_string(), Rule { pattern: pattern.clone(), body: body.clone() });
        }
    }
    found
}

/// The items that those of `items` make which are uses of these macros.
pub(crate) fn expand(items: &[Item], macros: &HashMap<String, Rule>) -> Vec<Item> {
    let mut made = Vec::new();
    for item in items {
        let Item::Macro(item) = item else { continue };
        let Some(rule) = item.mac.path.get_ident().and_then(|name| macros.get(&name.to_string()))
        else {
            continue;
        };
        let mut bound = Bound::default();
        let mut input = item.mac.tokens.clone().into_iter().peekable();
        if !matches(rule.pattern.clone(), &mut input, &mut bound) || input.peek().is_some() {
            continue;
        }
        if let Ok(file) = syn::parse2::<syn::File>(substitute(rule.body.clone(), &bound)) {
            made.extend(expand(&file.items, macros));
            made.extend(file.items.into_iter().filter(|item| cfg::applies(attributes(item))));
        }
    }
    made
}

/// What the names of a pattern stand for, and each round of its repetitions.
#[derive(Debug, Default, Clone)]
struct Bound {
    names: HashMap<String, TokenStream>,
    rounds: Vec<(Vec<String>, Vec<Self>)>,
}

type Tokens = Peekable<token_stream::IntoIter>;

fn matches(pattern: TokenStream, input: &mut Tokens, bound: &mut Bound) -> bool {
    let mut pattern = pattern.into_iter().peekable();
    while let Some(token) = pattern.next() {
        match token {
            TokenTree::Punct(dollar) if dollar.as_char() == '$' => match pattern.next() {
                Some(TokenTree::Group(inner)) => {
                    let (separator, sign) = repetition(&mut pattern);
                    let mut rounds = Vec::new();
                    while input.peek().is_some() {
                        let (mut attempt, mut round) = (input.clone(), Bound::default());
                        let is_next = rounds.is_empty()
                            || separator.is_none_or(|char| take_punct(&mut attempt, char));
                        if !is_next || !matches(inner.stream(), &mut attempt, &mut round) {
                            break;
                        }
                        *input = attempt;
                        rounds.push(round);
                        if sign == '?' {
                            break;
                        }
                    }
                    bound.rounds.push((names(inner.stream()), rounds));
                }
                Some(TokenTree::Ident(name)) => {
                    pattern.next();
                    let Some(TokenTree::Ident(kind)) = pattern.next() else { return false };
                    let Some(found) = fragment(&kind.to_string(), input) else { return false };
                    bound.names.insert(name.to_string(), found);
                }
                _ => return false,
            },
            TokenTree::Group(group) => match input.next() {
                Some(TokenTree::Group(given)) if given.delimiter() == group.delimiter() => {
                    let mut inner = given.stream().into_iter().peekable();
                    if !matches(group.stream(), &mut inner, bound) || inner.peek().is_some() {
                        return false;
                    }
                }
                _ => return false,
            },
            token => match input.next() {
                Some(given) if given.to_string() == token.to_string() => {}
                _ => return false,
            },
        }
    }
    true
}

/// What follows a repetition's group: its separator and its sign.
fn repetition(pattern: &mut Tokens) -> (Option<char>, char) {
    let mut separator = None;
    while let Some(TokenTree::Punct(punct)) = pattern.next() {
        match punct.as_char() {
            sign @ ('*' | '+' | '?') => return (separator, sign),
            char => separator = Some(char),
        }
    }
    (separator, '*')
}

fn take_punct(input: &mut Tokens, char: char) -> bool {
    matches!(input.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn fragment(kind: &str, input: &mut Tokens) -> Option<TokenStream> {
    match kind {
        "vis" => {
            let mut found = TokenStream::new();
            if matches!(input.peek(), Some(TokenTree::Ident(ident)) if *ident == "pub") {
                found.extend(input.next());
                if matches!(input.peek(), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
                {
                    found.extend(input.next());
                }
            }
            Some(found)
        }
        "ident" => match input.next() {
            Some(token @ TokenTree::Ident(_)) => Some(token.into()),
            _ => None,
        },
        "literal" => match input.next() {
            Some(token @ TokenTree::Literal(_)) => Some(token.into()),
            _ => None,
        },
        "tt" | "block" => input.next().map(TokenStream::from),
        // All that stands before a comma, a semicolon, or the end.
        "ty" | "expr" | "meta" | "path" => {
            let (mut found, mut depth) = (TokenStream::new(), 0);
            while let Some(token) = input.peek() {
                if let TokenTree::Punct(punct) = token {
                    match punct.as_char() {
                        ',' | ';' if depth == 0 => break,
                        '<' => depth += 1,
                        '>' => depth -= 1,
                        _ => {}
                    }
                }
                found.extend(input.next());
            }
            (!found.is_empty()).then_some(found)
        }
        _ => None,
    }
}

/// The names behind `$` in a pattern or a body.
fn names(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    let mut after_dollar = false;
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '$' => {
                after_dollar = true;
                continue;
            }
            TokenTree::Ident(name) if after_dollar => found.push(name.to_string()),
            TokenTree::Group(group) => found.extend(names(group.stream())),
            _ => {}
        }
        after_dollar = false;
    }
    found
}

fn substitute(body: TokenStream, bound: &Bound) -> TokenStream {
    let mut made = TokenStream::new();
    let mut body = body.into_iter().peekable();
    while let Some(token) = body.next() {
        match token {
            TokenTree::Punct(dollar) if dollar.as_char() == '$' => match body.next() {
                Some(TokenTree::Ident(name)) => match bound.names.get(&name.to_string()) {
                    Some(found) => made.extend(found.clone()),
                    None => made.extend([TokenTree::Ident(name)]),
                },
                Some(TokenTree::Group(inner)) => {
                    let (separator, _) = repetition(&mut body);
                    let wanted = names(inner.stream());
                    let rounds = bound
                        .rounds
                        .iter()
                        .find(|(names, _)| names.iter().any(|name| wanted.contains(name)));
                    for (n, round) in rounds.into_iter().flat_map(|(_, rounds)| rounds).enumerate()
                    {
                        if let Some(separator) = separator.filter(|_| n > 0) {
                            made.extend([TokenTree::Punct(proc_macro2::Punct::new(
                                separator,
                                Spacing::Alone,
                            ))]);
                        }
                        let mut all = round.clone();
                        for (name, tokens) in &bound.names {
                            all.names.entry(name.clone()).or_insert_with(|| tokens.clone());
                        }
                        all.rounds.extend(bound.rounds.iter().cloned());
                        made.extend(substitute(inner.stream(), &all));
                    }
                }
                _ => {}
            },
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), substitute(group.stream(), bound));
                inner.set_span(group.span());
                made.extend([TokenTree::Group(inner)]);
            }
            token => made.extend([token]),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use quote::ToTokens as _;

    use super::*;

    fn expanded(source: &str) -> Vec<String> {
        let items = syn::parse_file(source).expect("Rust").items;
        let macros = macros(items.iter());
        expand(&items, &macros).iter().map(|item| item.to_token_stream().to_string()).collect()
    }

    #[test]
    fn names_are_put_in() {
        let made = expanded(
            "macro_rules! id { ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
                $(#[$doc])* pub struct $name(Arc<str>);
                impl $name { pub const PREFIX: &str = $prefix; }
             }; }
             id! { /// The name. \n Id, \"id-\" }",
        );
        assert_eq!(
            made,
            [
                "# [doc = \" The name. \"] pub struct Id (Arc < str >) ;",
                "impl Id { pub const PREFIX : & str = \"id-\" ; }",
            ]
        );
    }

    #[test]
    fn repetitions_are_put_in_each_in_its_round() {
        let made = expanded(
            "macro_rules! records { ($($vis:vis struct $name:ident { $($of:vis $field:ident: $type:ty,)* })*) => {
                $($vis struct $name { $($of $field: $type),* })*
             }; }
             records! { pub struct A { pub x: Vec<(u8, u8)>, y: u8, } struct B {} }",
        );
        assert_eq!(made, ["pub struct A { pub x : Vec < (u8 , u8) > , y : u8 }", "struct B { }"]);
    }

    #[test]
    fn what_does_not_fit_is_left() {
        assert!(expanded("macro_rules! m { ($a:ident) => { struct $a; }; } m!(1);").is_empty());
        assert!(expanded("thread_local! { static A: u8 = 1; }").is_empty());
    }
}
