//! What the modules of a crate import of one another.

use std::collections::HashSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Item, Visibility};

use crate::cfg;
use crate::resolve::{Target, used};
use crate::source::{Module, SourceTree};

/// A path that begins with `crate`, `self`, `super` or a module's own child, in a `use` or in the code.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Import {
    /// Module in which the path stands.
    pub from: ModuleName,
    /// Path, as it stands there.
    pub path: Vec<String>,
    /// Line of the module's file, from 1.
    pub line: usize,
    /// Module that the path names, or that defines the item which it names.
    pub to: ModuleName,
    /// Name of the item; `None` for a module.
    pub item: Option<String>,
    /// `true` for what is re-exported and not used by the module itself.
    pub is_reexport: bool,
}

/// A module, apart from the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleName {
    /// Names from the crate's root on.
    pub path: Vec<String>,
    /// File in which its items are.
    pub file: String,
    /// `true` for a `mod.rs` or `lib.rs` that declares, imports and re-exports only.
    pub is_table_of_contents: bool,
}

impl From<&Module> for ModuleName {
    fn from(module: &Module) -> Self {
        Self {
            path: module.path.clone(),
            file: module.file.display().to_string(),
            is_table_of_contents: module.is_table_of_contents(),
        }
    }
}

/// Finds all imports of a crate's modules from that crate. Documentation and what is compiled for tests
/// only are left out.
#[must_use]
pub fn imports(tree: &SourceTree) -> Vec<Import> {
    let mut all = Vec::new();
    for (from, module) in tree.modules.iter().enumerate() {
        let mut scan =
            Scan { children: module.children.keys().cloned().collect(), found: Vec::new() };
        let mut idents = HashSet::new();
        for item in &module.items {
            if !matches!(item, Item::Use(_)) {
                let tokens = item.to_token_stream();
                collect_idents(tokens.clone(), &mut idents);
                scan.scan(tokens);
            }
        }
        let mut found: Vec<_> =
            scan.found.into_iter().map(|(path, line)| (path, line, false)).collect();
        for item in &module.items {
            let Item::Use(item) = item else { continue };
            let line = item.use_token.span.start().line;
            let is_inherited = matches!(item.vis, Visibility::Inherited);
            for used in used(&item.tree) {
                let is_used = used.name.is_none_or(|name| idents.contains(&name));
                found.push((used.path, line, !is_inherited && !is_used));
            }
        }
        for (path, line, is_reexport) in found {
            if let Some(target) = tree.resolve(from, &path) {
                let to = &tree.modules[target.module()];
                let item = match target {
                    Target::Module(_) => None,
                    Target::Item(_, name) => Some(name),
                };
                let (from, to) = (module.into(), to.into());
                all.push(Import { from, path, line, to, item, is_reexport });
            }
        }
    }
    all
}

fn collect_idents(tokens: TokenStream, idents: &mut HashSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => drop(idents.insert(ident.to_string())),
            TokenTree::Group(group) => collect_idents(group.stream(), idents),
            _ => {}
        }
    }
}

/// Finds paths in tokens, those in macros' arguments and attributes among them.
struct Scan {
    children: HashSet<String>,
    found: Vec<(Vec<String>, usize)>,
}

impl Scan {
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => self.attribute(&tokens, at),
                TokenTree::Ident(ident) if *ident == "pub" => match tokens.get(at + 1) {
                    Some(TokenTree::Group(group))
                        if group.delimiter() == Delimiter::Parenthesis
                            && is_visibility(group.stream()) =>
                    {
                        at + 2
                    }
                    _ => at + 1,
                },
                TokenTree::Ident(ident) => {
                    let name = ident.to_string();
                    let begins = matches!(name.as_str(), "crate" | "self" | "super")
                        || self.children.contains(&name);
                    if begins && !is_after_path_or_dot(&tokens, at) && is_separator(&tokens, at + 1)
                    {
                        self.path(&tokens, at, Vec::new())
                    } else {
                        at + 1
                    }
                }
                TokenTree::Group(group) => {
                    self.scan(group.stream());
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Reads an attribute, and leaves out what it keeps out of the build.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let Some(TokenTree::Group(group)) = tokens.get(at + 1) else { return at + 1 };
        let (pound, body) = (&tokens[at], &tokens[at + 1]);
        let whole = TokenStream::from_iter([pound.clone(), body.clone()]);
        let is_left_out = syn::parse::Parser::parse2(syn::Attribute::parse_outer, whole)
            .is_ok_and(|attributes| !cfg::applies(&attributes));
        if !is_left_out {
            self.scan(group.stream());
            return at + 2;
        }
        let mut at = at + 2;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Punct(punct) if matches!(punct.as_char(), ';' | ',') => break,
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    // `use a::{b, c};` ends behind the braces.
                    if let Some(TokenTree::Punct(punct)) = tokens.get(at)
                        && matches!(punct.as_char(), ';' | ',')
                    {
                        at += 1;
                    }
                    break;
                }
                _ => {}
            }
        }
        at
    }

    /// Reads a path whose next name is at `at`; returns where it ends.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, mut path: Vec<String>) -> usize {
        let line = tokens[at].span().start().line;
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(ident)) => {
                    path.push(ident.to_string());
                    at += 1;
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    let mut next = 0;
                    while next < inner.len() {
                        match &inner[next] {
                            TokenTree::Punct(_) => next += 1,
                            TokenTree::Ident(ident) if *ident == "as" => next += 2,
                            _ => next = self.path(&inner, next, path.clone()),
                        }
                    }
                    return at + 1;
                }
                _ => break,
            }
            if !is_separator(tokens, at) {
                break;
            }
            at += 2;
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        self.found.push((path, line));
        at
    }
}

fn is_visibility(inner: TokenStream) -> bool {
    matches!(inner.into_iter().next(), Some(TokenTree::Ident(ident))
        if ["crate", "super", "self", "in"].iter().any(|word| ident == word))
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_after_path_or_dot(tokens: &[TokenTree], at: usize) -> bool {
    let before = |n: usize| at.checked_sub(n).and_then(|at| tokens.get(at));
    is_punct(before(1), '.') || (is_punct(before(1), ':') && is_punct(before(2), ':'))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources =
            files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        let tree = SourceTree::parse("c", Path::new("lib.rs"), &sources);
        imports(&tree)
            .into_iter()
            .map(|import| {
                let name = import.item.map(|name| format!("#{name}")).unwrap_or_default();
                let sign = if import.is_reexport { " again" } else { "" };
                format!("{}:{} {}{name}{sign}", import.from.file, import.line, import.to.file)
            })
            .collect()
    }

    #[test]
    fn imports_and_paths_in_code_are_found_where_they_are_defined() {
        let found = found(&[
            ("lib.rs", "mod a; mod b; pub use b::Thing;"),
            (
                "a.rs",
                "use crate::{Thing, b::{self, c::Deep as D}};\nfn f() {\n  super::b::g();\n  \
                 log!(crate::b::c::h());\n  let x = self.b::<u8>();\n}",
            ),
            (
                "b/mod.rs",
                "pub mod c; pub use self::t::*; mod t { pub struct Thing; } pub fn g() {}",
            ),
            ("b/c.rs", "pub struct Deep; pub fn h() {}"),
        ]);
        assert_eq!(
            found,
            [
                "lib.rs:1 b/mod.rs#Thing again",
                "a.rs:3 b/mod.rs#g",
                "a.rs:4 b/c.rs#h",
                "a.rs:1 b/mod.rs#Thing",
                "a.rs:1 b/mod.rs",
                "a.rs:1 b/c.rs#Deep",
                "b/mod.rs:1 b/mod.rs",
            ]
        );
    }

    #[test]
    fn tests_documentation_and_visibilities_import_nothing() {
        let found = found(&[
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "//! See [`crate::b::B`].\npub(in crate::b) struct X;\n#[cfg(test)] use crate::b::{B, C};\n\
                 struct Y { #[cfg(test)] b: crate::b::B, c: u8 }\n#[cfg(test)] mod tests { use crate::b::B; }\n\
                 impl Y { #[cfg(test)] fn g() { crate::b::h() } #[error(\"{0}\", crate::b::h())] fn k() {} }",
            ),
            ("b.rs", "pub struct B; pub struct C; pub fn h() {}"),
        ]);
        assert_eq!(found, ["a.rs:6 b.rs#h"]);
    }
}
