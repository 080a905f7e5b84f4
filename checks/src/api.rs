//! The public interface of a crate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use quote::ToTokens;
use syn::{
    Attribute, Fields, FnArg, Generics, ImplItem, Item, ItemImpl, Pat, Signature, TraitItem, Type,
    Visibility,
};

use crate::cfg;
use crate::item::{Kind, PublicItem, docs, is_hidden};
use crate::resolve::{Target, used};
use crate::returned::{is_async, is_fallible};
use crate::source::{SourceTree, attributes, declared_name};
use crate::text::text;

/// Finds all that users of a crate can name: its public items, by the shortest path that leads to each,
/// with their fields, variants, methods and implementations of traits, sorted by path.
///
/// What is hidden from the documentation is left out.
#[must_use]
pub fn public_api(tree: &SourceTree) -> Vec<PublicItem> {
    let reached = Reached::of(tree);
    let mut api = Api { tree, reached, items: Vec::new() };
    api.modules();
    api.declared();
    api.implemented();
    api.items.sort_by(|a, b| {
        let key =
            |item: &PublicItem| (item.path.clone(), item.kind == Kind::Mention, item.line.clone());
        key(a).cmp(&key(b))
    });
    api.items.dedup_by(|a, b| a.line == b.line);
    api.items
}

/// A path that leads to something, and the features that it takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    /// The number of names of the path comes first, so that the shortest is the least.
    length: usize,
    path: String,
    features: Vec<String>,
}

impl Way {
    fn to(&self, name: &str, attributes: &[Attribute]) -> Self {
        let mut features = self.features.clone();
        features.extend(cfg::features(attributes));
        features.sort();
        features.dedup();
        Self { length: self.length + 1, path: format!("{}::{name}", self.path), features }
    }
}

/// All that is reached from outside, with the ways that lead there.
struct Reached {
    ways: BTreeMap<Target, BTreeSet<Way>>,
    /// Re-exports of other crates' items: their way, and what they name.
    foreign: Vec<(Way, String, PathBuf, usize)>,
}

impl Reached {
    fn of(tree: &SourceTree) -> Self {
        let mut reached = Self { ways: BTreeMap::new(), foreign: Vec::new() };
        let root = Way { length: 1, path: tree.name.clone(), features: Vec::new() };
        let mut queue = VecDeque::from([(0, root)]);
        while let Some((at, way)) = queue.pop_front() {
            // A module that leads back to itself is followed once for each of a few paths.
            if way.length > 6
                || !reached.ways.entry(Target::Module(at)).or_default().insert(way.clone())
            {
                continue;
            }
            let module = &tree.modules[at];
            for (name, &child) in &module.children {
                let declared = &tree.modules[child];
                if matches!(declared.vis, Visibility::Public(_)) && !is_hidden(&declared.attrs) {
                    queue.push_back((child, way.to(name, &declared.attrs)));
                }
            }
            for item in module.all_items() {
                if is_hidden(attributes(item)) {
                    continue;
                }
                if let Item::Use(item) = item {
                    if matches!(item.vis, Visibility::Public(_)) {
                        reached.reexport(tree, at, &way, item, &mut queue);
                    }
                } else if let Some(name) = declared_name(item)
                    && is_public(item)
                {
                    reached.add(Target::Item(at, name.clone()), way.to(&name, attributes(item)));
                }
            }
        }
        reached
    }

    fn reexport(
        &mut self,
        tree: &SourceTree,
        at: usize,
        way: &Way,
        item: &syn::ItemUse,
        queue: &mut VecDeque<(usize, Way)>,
    ) {
        for used in used(&item.tree) {
            match (tree.resolve(at, &used.path), used.name) {
                (Some(Target::Module(of)), Some(name)) => {
                    queue.push_back((of, way.to(&name, &item.attrs)));
                }
                (Some(Target::Item(of, inner)), Some(name)) => {
                    let declared = tree.modules[of].all_items();
                    let mut same =
                        declared.filter(|item| declared_name(item).as_ref() == Some(&inner));
                    let Some(declared) = same.next() else { continue };
                    if is_hidden(attributes(declared)) {
                        continue;
                    }
                    let mut to = way.to(&name, &item.attrs);
                    to.features.extend(cfg::features(attributes(declared)));
                    to.features.sort();
                    to.features.dedup();
                    self.add(Target::Item(of, inner), to);
                }
                // All of a module: as if it stood here.
                (Some(Target::Module(of)), None) => {
                    for inner in tree.modules[of].all_items() {
                        if let Some(name) = declared_name(inner)
                            && is_public(inner)
                            && !is_hidden(attributes(inner))
                        {
                            self.add(
                                Target::Item(of, name.clone()),
                                way.to(&name, attributes(inner)),
                            );
                        }
                    }
                }
                (None, name) => {
                    let to = way.to(name.as_deref().unwrap_or("*"), &item.attrs);
                    let line = item.use_token.span.start().line;
                    let file = tree.modules[at].file.clone();
                    self.foreign.push((to, used.path.join("::"), file, line));
                }
                (Some(Target::Item(..)), None) => {}
            }
        }
    }

    fn add(&mut self, target: Target, way: Way) {
        self.ways.entry(target).or_default().insert(way);
    }

    /// The shortest way to something.
    fn shortest(&self, target: &Target) -> Option<&Way> {
        self.ways.get(target)?.first()
    }
}

struct Api<'t> {
    tree: &'t SourceTree,
    reached: Reached,
    items: Vec<PublicItem>,
}

/// Where something is declared.
struct Place<'t> {
    module: usize,
    attributes: &'t [Attribute],
    line: usize,
    features: Vec<String>,
}

impl Api<'_> {
    fn push(
        &mut self,
        place: &Place<'_>,
        kind: Kind,
        path: String,
        line: String,
    ) -> &mut PublicItem {
        let mut features = place.features.clone();
        features.extend(cfg::features(place.attributes));
        features.sort();
        features.dedup();
        let mut before: String =
            features.iter().map(|feature| format!("#[cfg(feature = \"{feature}\")] ")).collect();
        for each in place.attributes {
            if ["non_exhaustive", "must_use", "deprecated"]
                .iter()
                .any(|name| each.path().is_ident(name))
            {
                before.push_str(&text(each));
                before.push(' ');
            }
        }
        self.items.push(PublicItem {
            path,
            kind,
            line: before + &line,
            docs: docs(place.attributes),
            file: self.tree.modules[place.module].file.clone(),
            at: place.line,
            is_async: false,
            is_fallible: false,
        });
        self.items.last_mut().expect("it was pushed above")
    }

    /// The modules, and other ways to what is reached by a shorter one.
    fn modules(&mut self) {
        let ways: Vec<_> =
            self.reached.ways.iter().map(|(at, ways)| (at.clone(), ways.clone())).collect();
        for (target, ways) in ways {
            let shortest = ways.first().expect("each has one").clone();
            let module = target.module();
            for way in &ways {
                let declared = &self.tree.modules[module];
                let place = |attributes| Place {
                    module,
                    attributes,
                    line: declared.line,
                    features: way.features.clone(),
                };
                if *way != shortest {
                    let line = format!("pub use {} = {}", way.path, shortest.path);
                    self.push(&place(&[]), Kind::Mention, way.path.clone(), line);
                } else if matches!(target, Target::Module(_)) {
                    let attributes = declared.attrs.as_slice();
                    let line = format!("pub mod {}", way.path);
                    self.push(&place(attributes), Kind::Module, way.path.clone(), line);
                }
            }
        }
        for (way, named, file, at) in std::mem::take(&mut self.reached.foreign) {
            let line = format!("pub use {} = {named}", way.path);
            let place = Place { module: 0, attributes: &[], line: at, features: way.features };
            self.push(&place, Kind::Mention, way.path, line).file = file;
        }
    }

    /// The items, with what they declare themselves.
    fn declared(&mut self) {
        for (module, declared) in self.tree.modules.iter().enumerate() {
            for item in declared.all_items() {
                let Some(name) = declared_name(item) else { continue };
                let Some(way) = self.reached.shortest(&Target::Item(module, name)).cloned() else {
                    continue;
                };
                if is_public(item) && !is_hidden(attributes(item)) {
                    self.item(module, item, &way);
                }
            }
        }
    }

    fn item(&mut self, module: usize, item: &Item, way: &Way) {
        let path = way.path.clone();
        let at = |tokens: &dyn Spanned, attributes| Place {
            module,
            attributes,
            line: tokens.line(),
            features: way.features.clone(),
        };
        match item {
            Item::Fn(item) => {
                let place = at(&item.sig.ident, &item.attrs);
                self.function(&place, &path, &path, &item.sig, None);
            }
            Item::Const(item) => {
                let line = format!("pub const {path}: {}", text(&item.ty));
                self.push(&at(&item.ident, &item.attrs), Kind::Value, path, line);
            }
            Item::Static(item) => {
                let line = format!("pub static {path}: {}", text(&item.ty));
                self.push(&at(&item.ident, &item.attrs), Kind::Value, path, line);
            }
            Item::Type(item) => {
                let line = format!("pub type {path}{} = {}", text(&item.generics), text(&item.ty));
                self.push(&at(&item.ident, &item.attrs), Kind::Type, path, line);
            }
            Item::Struct(item) => {
                let line = format!("pub struct {path}{}", generics(&item.generics));
                let place = at(&item.ident, &item.attrs);
                self.push(&place, Kind::Type, path.clone(), line);
                self.derives(&place, &path);
                self.fields(module, &way.features, &path, &item.fields, false);
            }
            Item::Enum(item) => {
                let line = format!("pub enum {path}{}", generics(&item.generics));
                let place = at(&item.ident, &item.attrs);
                self.push(&place, Kind::Type, path.clone(), line);
                self.derives(&place, &path);
                for variant in &item.variants {
                    let path = format!("{path}::{}", variant.ident);
                    let tuple = match &variant.fields {
                        Fields::Unnamed(fields) => {
                            let types: Vec<_> =
                                fields.unnamed.iter().map(|field| text(&field.ty)).collect();
                            format!("({})", types.join(", "))
                        }
                        _ => String::new(),
                    };
                    let place = at(&variant.ident, &variant.attrs);
                    self.push(
                        &place,
                        Kind::Part,
                        path.clone(),
                        format!("pub variant {path}{tuple}"),
                    );
                    if let Fields::Named(_) = &variant.fields {
                        self.fields(module, &way.features, &path, &variant.fields, true);
                    }
                }
            }
            Item::Trait(item) => {
                let bounds = match item.supertraits.is_empty() {
                    true => String::new(),
                    false => format!(": {}", text(&item.supertraits)),
                };
                let line = format!("pub trait {path}{}{bounds}", generics(&item.generics));
                self.push(&at(&item.ident, &item.attrs), Kind::Trait, path.clone(), line);
                for inner in &item.items {
                    self.trait_item(module, way, inner);
                }
            }
            _ => {}
        }
    }

    fn trait_item(&mut self, module: usize, way: &Way, item: &TraitItem) {
        let place = |line: usize, attributes| Place {
            module,
            attributes,
            line,
            features: way.features.clone(),
        };
        match item {
            TraitItem::Fn(item) if !is_hidden(&item.attrs) => {
                let path = format!("{}::{}", way.path, item.sig.ident);
                let provided = item.default.as_ref().map(|_| "provided");
                let place = place(item.sig.ident.line(), &item.attrs);
                self.function(&place, &path, &path, &item.sig, provided);
            }
            TraitItem::Type(item) if !is_hidden(&item.attrs) => {
                let path = format!("{}::{}", way.path, item.ident);
                let line = format!("pub type {path}: {}", text(&item.bounds));
                self.push(&place(item.ident.line(), &item.attrs), Kind::Value, path, line);
            }
            TraitItem::Const(item) if !is_hidden(&item.attrs) => {
                let path = format!("{}::{}", way.path, item.ident);
                let line = format!("pub const {path}: {}", text(&item.ty));
                self.push(&place(item.ident.line(), &item.attrs), Kind::Value, path, line);
            }
            _ => {}
        }
    }

    fn fields(
        &mut self,
        module: usize,
        features: &[String],
        path: &str,
        fields: &Fields,
        all: bool,
    ) {
        for (number, field) in fields.iter().enumerate() {
            if !(all || matches!(field.vis, Visibility::Public(_))) || is_hidden(&field.attrs) {
                continue;
            }
            let name = field.ident.as_ref().map_or(number.to_string(), ToString::to_string);
            let path = format!("{path}::{name}");
            let line = format!("pub field {path}: {}", text(&field.ty));
            let at = field.ident.as_ref().map_or_else(|| field.ty.line(), |ident| ident.line());
            let features = features.to_vec();
            let place = Place { module, attributes: &field.attrs, line: at, features };
            self.push(&place, Kind::Part, path, line);
        }
    }

    fn derives(&mut self, place: &Place<'_>, path: &str) {
        let bare = Place { attributes: &[], features: place.features.clone(), ..*place };
        for attribute in place.attributes.iter().filter(|each| each.path().is_ident("derive")) {
            let parse = syn::punctuated::Punctuated::<syn::Path, syn::Token![,]>::parse_terminated;
            for derived in attribute.parse_args_with(parse).into_iter().flatten() {
                let name = derived.segments.last().expect("paths have names").ident.to_string();
                // `thiserror` makes both.
                let names: &[&str] = if name == "Error" { &["Error", "Display"] } else { &[&name] };
                for name in names {
                    self.push(
                        &bare,
                        Kind::Mention,
                        path.to_owned(),
                        format!("impl {name} for {path}"),
                    );
                }
            }
        }
    }

    fn function(
        &mut self,
        place: &Place<'_>,
        path: &str,
        shown: &str,
        signature: &Signature,
        note: Option<&str>,
    ) {
        let mut plain = signature.clone();
        for input in &mut plain.inputs {
            match input {
                FnArg::Receiver(receiver) => receiver.mutability = None,
                FnArg::Typed(typed) => {
                    typed.attrs.clear();
                    if let Pat::Ident(pattern) = typed.pat.as_mut() {
                        pattern.mutability = None;
                    }
                }
            }
        }
        let line = text(&plain);
        let name = format!("fn {}", plain.ident);
        let line = line.replacen(&name, &format!("fn {shown}"), 1);
        let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
        let item = self.push(place, Kind::Function, path.to_owned(), format!("pub {line}{note}"));
        item.is_async = is_async(signature);
        item.is_fallible = is_fallible(signature);
    }

    /// The methods, and the traits that are implemented.
    fn implemented(&mut self) {
        for (module, declared) in self.tree.modules.iter().enumerate() {
            for item in declared.all_items() {
                if let Item::Impl(item) = item {
                    self.implementation(module, item);
                }
            }
        }
    }

    fn implementation(&mut self, module: usize, item: &ItemImpl) {
        let of = self.way_of(module, &item.self_ty);
        let shown = match &of {
            Some(way) => shown(&item.self_ty, &way.path),
            None => text(&item.self_ty),
        };
        let mut features = of.as_ref().map(|way| way.features.clone()).unwrap_or_default();
        features.extend(cfg::features(&item.attrs));
        let line = item.impl_token.span.start().line;
        if let Some((implemented, _)) = &item.trait_ {
            // One of this crate is no part of the interface unless it can be named.
            let names: Vec<_> =
                implemented.segments.iter().map(|each| each.ident.to_string()).collect();
            let target =
                self.tree.resolve(module, &names).filter(|found| matches!(found, Target::Item(..)));
            let named = match &target {
                Some(target) => self.reached.shortest(target).cloned(),
                None => None,
            };
            if target.is_some() && named.is_none() {
                return;
            }
            let arguments = type_arguments(implemented);
            // Nor is one for a type that can't be named, or between such types.
            let is_private =
                |of: &&Type| self.is_ours(module, of) && self.way_of(module, of).is_none();
            if std::iter::once(&&*item.self_ty).chain(&arguments).any(is_private) {
                return;
            }
            // One of a type of elsewhere counts where it mentions a type of ours.
            let is_counted = arguments.iter().any(|of| self.way_of(module, of).is_some());
            if of.is_none() && named.is_none() && !is_counted {
                return;
            }
            let last = implemented.segments.last().expect("paths have names");
            let mut line_text = format!(
                "impl{} {} for {shown}{}",
                text(&item.generics),
                text(last),
                bounds(&item.generics)
            );
            for inner in &item.items {
                if let ImplItem::Type(inner) = inner {
                    line_text.push_str(&format!("; type {} = {}", inner.ident, text(&inner.ty)));
                }
            }
            let path = of.or(named).map_or_else(|| shown.clone(), |way| way.path);
            let place = Place { module, attributes: &[], line, features };
            self.push(&place, Kind::Mention, path, line_text);
            return;
        }
        let Some(way) = of else { return };
        for inner in &item.items {
            let place = |line: usize, attributes| Place {
                module,
                attributes,
                line,
                features: features.clone(),
            };
            match inner {
                ImplItem::Fn(inner)
                    if matches!(inner.vis, Visibility::Public(_)) && !is_hidden(&inner.attrs) =>
                {
                    let path = format!("{}::{}", way.path, inner.sig.ident);
                    let shown = format!("{shown}::{}", inner.sig.ident);
                    let place = place(inner.sig.ident.line(), &inner.attrs);
                    let note = has_bounds(&item.generics)
                        .then(|| format!("impl{}", generics(&item.generics)));
                    self.function(&place, &path, &shown, &inner.sig, note.as_deref());
                }
                ImplItem::Const(inner)
                    if matches!(inner.vis, Visibility::Public(_)) && !is_hidden(&inner.attrs) =>
                {
                    let path = format!("{}::{}", way.path, inner.ident);
                    let line = format!("pub const {shown}::{}: {}", inner.ident, text(&inner.ty));
                    self.push(&place(inner.ident.line(), &inner.attrs), Kind::Value, path, line);
                }
                _ => {}
            }
        }
    }

    /// Returns whether the crate defines a type.
    fn is_ours(&self, module: usize, of: &Type) -> bool {
        match of {
            Type::Path(of) => {
                let names: Vec<_> =
                    of.path.segments.iter().map(|each| each.ident.to_string()).collect();
                self.tree.resolve(module, &names).is_some()
            }
            Type::Reference(of) => self.is_ours(module, &of.elem),
            _ => false,
        }
    }

    /// The shortest way to a type; `None` for those of other crates, and for those that can't be named.
    fn way_of(&self, module: usize, of: &Type) -> Option<Way> {
        let path = match of {
            Type::Path(of) => &of.path,
            Type::Reference(of) => return self.way_of(module, &of.elem),
            _ => return None,
        };
        let names: Vec<_> = path.segments.iter().map(|each| each.ident.to_string()).collect();
        let target = self.tree.resolve(module, &names)?;
        matches!(target, Target::Item(..)).then(|| self.reached.shortest(&target).cloned())?
    }
}

/// The types in the angle brackets of a path.
fn type_arguments(path: &syn::Path) -> Vec<&Type> {
    let Some(syn::PathArguments::AngleBracketed(arguments)) =
        path.segments.last().map(|last| &last.arguments)
    else {
        return Vec::new();
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        syn::GenericArgument::Type(of) => Some(of),
        _ => None,
    });
    types.collect()
}

/// A type whose own path is replaced, with its arguments.
fn shown(of: &Type, path: &str) -> String {
    match of {
        Type::Reference(of) => {
            let lifetime = of.lifetime.as_ref().map(|each| format!("{each} ")).unwrap_or_default();
            let mutable = if of.mutability.is_some() { "mut " } else { "" };
            format!("&{lifetime}{mutable}{}", shown(&of.elem, path))
        }
        Type::Path(of) => {
            let last = of.path.segments.last().expect("paths have names");
            format!("{path}{}", text(&last.arguments))
        }
        _ => path.to_owned(),
    }
}

/// Parameters with their bounds.
fn generics(generics: &Generics) -> String {
    format!("{}{}", text(generics), bounds(generics))
}

/// Returns whether parameters have conditions.
fn has_bounds(generics: &Generics) -> bool {
    let of_parameters = generics.type_params().any(|parameter| !parameter.bounds.is_empty());
    of_parameters || generics.where_clause.is_some()
}

/// The `where` clause, behind a space.
fn bounds(generics: &Generics) -> String {
    generics.where_clause.as_ref().map(|clause| format!(" {}", text(clause))).unwrap_or_default()
}

fn is_public(item: &Item) -> bool {
    let vis = match item {
        Item::Const(item) => &item.vis,
        Item::Enum(item) => &item.vis,
        Item::Fn(item) => &item.vis,
        Item::Static(item) => &item.vis,
        Item::Struct(item) => &item.vis,
        Item::Trait(item) => &item.vis,
        Item::Type(item) => &item.vis,
        Item::Union(item) => &item.vis,
        _ => return false,
    };
    matches!(vis, Visibility::Public(_))
}

/// The line on which something stands, from 1.
trait Spanned {
    fn line(&self) -> usize;
}

impl<T: ToTokens> Spanned for T {
    fn line(&self) -> usize {
        let first = self.to_token_stream().into_iter().next();
        first.map_or(1, |token| token.span().start().line)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn lines(files: &[(&str, &str)]) -> Vec<String> {
        let sources =
            files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        let tree = SourceTree::parse("c", Path::new("lib.rs"), &sources);
        public_api(&tree).into_iter().map(|item| item.line).collect()
    }

    #[test]
    fn what_is_reached_is_told_by_its_shortest_path() {
        let lines = lines(&[
            (
                "lib.rs",
                "mod a; pub mod b; pub use a::{Thing, deep::f as g}; pub use std::fmt::Debug;",
            ),
            (
                "a.rs",
                "pub mod deep { pub async fn f(mut x: u8) -> Result<(), ()> {} pub fn hidden() {} }\n\
                 #[derive(Clone, thiserror::Error)] #[non_exhaustive] pub struct Thing { pub x: Vec<u8>, y: u8 }\n\
                 pub struct Other;",
            ),
            (
                "b.rs",
                "pub use crate::a::Thing; #[cfg(feature = \"f\")] pub fn only() {} pub(crate) fn no() {}",
            ),
        ]);
        assert_eq!(
            lines,
            [
                "pub mod c",
                "pub use c::Debug = std::fmt::Debug",
                "#[non_exhaustive] pub struct c::Thing",
                "impl Clone for c::Thing",
                "impl Display for c::Thing",
                "impl Error for c::Thing",
                "pub field c::Thing::x: Vec<u8>",
                "pub mod c::b",
                "pub use c::b::Thing = c::Thing",
                "#[cfg(feature = \"f\")] pub fn c::b::only()",
                "pub async fn c::g(x: u8) -> Result<(), ()>",
            ]
        );
    }

    #[test]
    fn methods_variants_and_traits_are_told() {
        let lines = lines(&[(
            "lib.rs",
            "pub enum E<T> { A, B(u8, T), C { x: u8 } }\n\
             impl<T: Clone> E<T> { #[must_use] pub fn f(mut self) -> Self {} fn g() {} pub const N: usize = 1; }\n\
             pub trait T: Send { type O: Clone; fn must(&self); fn may(&mut self) {} #[doc(hidden)] fn no(); }\n\
             trait Private {} impl<T> Private for E<T> {} struct S; impl From<S> for E<u8> {}\n\
             macro_rules! m { ($n:ident) => { impl $crate::Private for $n {} }; } m!(E);\n\
             impl<T> Iterator for E<T> where T: Copy { type Item = T; fn next() {} }\n\
             impl From<E<u8>> for std::io::Error { fn from() {} }\n\
             impl T for u8 {}",
        )]);
        assert_eq!(
            lines,
            [
                "pub mod c",
                "pub enum c::E<T>",
                "impl<T> Iterator for c::E<T> where T: Copy; type Item = T",
                "pub variant c::E::A",
                "pub variant c::E::B(u8, T)",
                "pub variant c::E::C",
                "pub field c::E::C::x: u8",
                "pub const c::E<T>::N: usize",
                "#[must_use] pub fn c::E<T>::f(self) -> Self (impl<T: Clone>)",
                "pub trait c::T: Send",
                "impl T for u8",
                "pub type c::T::O: Clone",
                "pub fn c::T::may(&mut self) (provided)",
                "pub fn c::T::must(&self)",
                "impl From<E<u8>> for std::io::Error",
            ]
        );
    }
}
