//! `all_in_one/SETTINGS.md`, generated from the sources that read the settings.

use std::fmt::Write as _;

use splengine_core::Scope;
use syn::{Expr, Field, Fields, Item, Lit, Meta};

const FLAGS: &str = include_str!("../../all_in_one/args.rs");
const FILE: &str = include_str!("../../all_in_one/file.rs");
const README: &str = include_str!("../../../README.md");
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/all_in_one/SETTINGS.md");

const HEAD: &str = "# Settings of the all-in-one server

Generated from `args.rs` and `file.rs`: change those, then run
`UPDATE=1 cargo test -p examples --test it -- settings_reference`.

A flag outranks the environment, which outranks the file of `--config`. With an unknown key or an invalid value the
server does not start; its error names the file and the line, or the key. Times are in milliseconds unless a setting
says otherwise, and sizes in bytes. Relative paths, also those in the file, begin in the directory that the server is
started in.
";

#[test]
fn it_is_what_the_sources_say() {
    let made = reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(REFERENCE, &made).expect("written");
    }
    let kept = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    assert!(
        kept == made,
        "SETTINGS.md is not what the sources say: run \
        `UPDATE=1 cargo test -p examples --test it -- settings_reference`"
    );
}

#[test]
fn each_setting_tells_its_default() {
    for (table, fields) in tables(FILE) {
        for field in fields.iter().filter(|field| !is_skipped(field)) {
            let told = doc(&field.attrs);
            let tells = ["Default", "Required", "see ["].iter().any(|word| told.contains(word));
            assert!(tells, "{table}.{}: {told}", name(field));
        }
    }
}

#[test]
fn each_scope_is_told() {
    let names: Vec<_> = Scope::ALL.iter().map(|scope| format!("`{}`", scope.name())).collect();
    let names = names.join(", ");
    for (document, text) in [("file.rs", FILE), ("README.md", README)] {
        assert!(text.contains(&names), "{document} does not tell of the scopes {names}");
    }
}

fn reference() -> String {
    let mut text = HEAD.to_owned();
    text += "\n## Flags\n\n| flag | environment | |\n|---|---|---|\n";
    let (_, flags) = tables(FLAGS).remove(0);
    for field in flags.iter().filter(|field| !is_skipped(field)) {
        let flag = name(field);
        let variable = format!("SPLENGINE_{}", flag.to_uppercase().replace('-', "_"));
        let told = doc(&field.attrs);
        writeln!(text, "| `--{flag}` | `{variable}` | {told}. |").expect("a text");
    }
    text += "\n## The file of `--config`\n";
    let all = tables(FILE);
    let (_, top) = all.iter().find(|(table, _)| table == "File").expect("it is there");
    write_rows(&mut text, top);
    for field in top {
        let syn::Type::Path(path) = &field.ty else { continue };
        let mut named = path.path.segments.last().expect("a type").clone();
        // Of a map, the table of each value.
        if let syn::PathArguments::AngleBracketed(arguments) = &named.arguments
            && let Some(syn::GenericArgument::Type(syn::Type::Path(inner))) = arguments.args.last()
        {
            named = inner.path.segments.last().expect("a type").clone();
        }
        let Some((_, fields)) = all.iter().find(|(table, _)| named.ident == table) else {
            continue;
        };
        let title = if name(field) == "users" { "users.NAME".to_owned() } else { name(field) };
        let about = about(&named.ident.to_string());
        let (_, about) = about.split_once(": ").expect("`[table]: what it is`");
        let (first, rest) = about.split_at(1);
        write!(text, "\n### `{title}`\n\n{}{rest}\n", first.to_uppercase()).expect("a text");
        write_rows(&mut text, fields);
    }
    text
}

fn write_rows(text: &mut String, fields: &[Field]) {
    *text += "\n| key | |\n|---|---|\n";
    for field in fields.iter().filter(|field| !is_skipped(field)) {
        let told = doc(&field.attrs).replace('|', "\\|");
        if is_flattened(field) {
            writeln!(text, "| each of | {told} |").expect("a text");
        } else {
            writeln!(text, "| `{}` | {told} |", name(field)).expect("a text");
        }
    }
}

/// The structs of a source, with their fields.
pub(crate) fn tables(source: &str) -> Vec<(String, Vec<Field>)> {
    let items = syn::parse_file(source).expect("Rust").items;
    let structs = items.into_iter().filter_map(|item| match item {
        Item::Struct(item) => match item.fields {
            Fields::Named(fields) => {
                Some((item.ident.to_string(), fields.named.into_iter().collect()))
            }
            _ => None,
        },
        _ => None,
    });
    structs.collect()
}

fn about(table: &str) -> String {
    let items = syn::parse_file(FILE).expect("Rust").items;
    let found = items.into_iter().find_map(|item| match item {
        Item::Struct(item) if item.ident == table => Some(doc(&item.attrs)),
        _ => None,
    });
    found.expect("a table")
}

fn name(field: &Field) -> String {
    field.ident.as_ref().expect("a name").to_string().replace('_', "-")
}

fn is_skipped(field: &Field) -> bool {
    has_attribute(field, "skip")
}

fn is_flattened(field: &Field) -> bool {
    has_attribute(field, "flatten")
}

fn has_attribute(field: &Field, word: &str) -> bool {
    field.attrs.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.tokens.to_string().split(", ").any(|token| token == word),
        _ => false,
    })
}

/// The doc comment, in one line.
fn doc(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}
