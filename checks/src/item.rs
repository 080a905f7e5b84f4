//! The items of a public interface.

use std::path::PathBuf;

use syn::{Attribute, Expr, ExprLit, Lit, Meta};

use crate::cfg;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The crate itself, or a module.
    Module,
    /// A struct, an enum, or an alias of a type.
    Type,
    /// A trait.
    Trait,
    /// A function, with or without a receiver.
    Function,
    /// A field or a variant.
    Part,
    /// A constant, a static, or an associated type.
    Value,
    /// A macro.
    Macro,
    /// An implementation of a trait, or another path of an item; without documentation of its own.
    Mention,
}

/// An item of a crate's public interface.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PublicItem {
    /// Shortest path by which the item is reached, without generics.
    pub path: String,
    /// What the item is.
    pub kind: Kind,
    /// Declaration in one line.
    pub line: String,
    /// Documentation, as Markdown.
    pub docs: String,
    /// File of the declaration, relative to the workspace.
    pub file: PathBuf,
    /// Line of the declaration in its file, from 1.
    pub at: usize,
    /// `true` for a function that is asynchronous or returns a future.
    pub is_async: bool,
    /// `true` for a function that returns a `Result`, at once or by its future.
    pub is_fallible: bool,
}

/// The Markdown of documentation comments and `doc` attributes.
pub(crate) fn docs(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        if !pair.path.is_ident("doc") {
            continue;
        }
        let line = match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => line.value(),
            Expr::Macro(made) => concatenated(&made.mac),
            _ => continue,
        };
        for line in line.split('\n') {
            text.push_str(line.strip_prefix(' ').unwrap_or(line));
            text.push('\n');
        }
    }
    text
}

/// What `concat!` makes of literals and of `stringify!`.
fn concatenated(made: &syn::Macro) -> String {
    use proc_macro2::TokenTree;
    let mut text = String::new();
    for token in made.tokens.clone() {
        match token {
            TokenTree::Literal(literal) => {
                if let Lit::Str(piece) = Lit::new(literal) {
                    text.push_str(&piece.value());
                }
            }
            TokenTree::Group(group) => text.push_str(&group.stream().to_string()),
            _ => {}
        }
    }
    text
}

/// Returns whether an item is kept out of the documentation, or of the build.
pub(crate) fn is_hidden(attributes: &[Attribute]) -> bool {
    !cfg::applies(attributes)
        || attributes.iter().any(|each| {
            let Meta::List(list) = &each.meta else { return false };
            each.path().is_ident("doc") && list.tokens.to_string() == "hidden"
        })
}

#[cfg(test)]
mod tests {
    use syn::{ItemStruct, parse_quote};

    use super::*;

    #[test]
    fn comments_and_attributes_are_documentation() {
        let item: ItemStruct = parse_quote! {
            /// The first.
            ///
            /// ```
            ///     code
            /// ```
            #[doc = concat!("Not a [`", stringify!(Id), "`].")]
            #[doc(hidden)]
            struct A;
        };
        assert_eq!(docs(&item.attrs), "The first.\n\n```\n    code\n```\nNot a [`Id`].\n");
        assert!(is_hidden(&item.attrs));
    }
}
