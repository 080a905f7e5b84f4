//! The modules of a crate, with their items.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item, Visibility};

use crate::resolve::{Used, used};
use crate::{cfg, expand};

/// The texts of a crate's source files, by their paths.
pub type Sources = BTreeMap<PathBuf, String>;

/// The directory of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).to_owned()
}

/// A crate's modules, without what is compiled for tests and fuzzing only.
#[derive(Debug)]
pub struct SourceTree {
    /// Name of the crate, as code has it.
    pub(crate) name: String,
    /// All modules; the first is the crate's root.
    pub(crate) modules: Vec<Module>,
}

/// A module, be it a file or a part of one.
#[derive(Debug)]
pub(crate) struct Module {
    /// Names from the crate's root on.
    pub(crate) path: Vec<String>,
    /// File in which the items are.
    pub(crate) file: PathBuf,
    /// Line of that file where the module begins, from 1.
    pub(crate) line: usize,
    /// Visibility of the module itself.
    pub(crate) vis: Visibility,
    /// Attributes of the declaration and of the file.
    pub(crate) attrs: Vec<Attribute>,
    /// Items, without those of modules in it.
    pub(crate) items: Vec<Item>,
    /// Items that the crate's own macros make here.
    pub(crate) expanded: Vec<Item>,
    /// Index of the module in which this one is declared.
    pub(crate) parent: Option<usize>,
    /// Indexes of the modules that are declared here, by their names.
    pub(crate) children: BTreeMap<String, usize>,
    /// Names of the items.
    pub(crate) names: HashSet<String>,
    /// Names that are brought in.
    pub(crate) uses: Vec<Used>,
}

impl Module {
    /// Returns whether the module is a `mod.rs` or `lib.rs` that declares, imports and re-exports only.
    pub(crate) fn is_table_of_contents(&self) -> bool {
        let name = self.file.file_name().unwrap_or_default();
        (name == "mod.rs" || name == "lib.rs")
            && self.items.iter().all(|item| matches!(item, Item::Use(_)))
    }

    /// All items, those made by macros among them.
    pub(crate) fn all_items(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().chain(&self.expanded)
    }
}

impl SourceTree {
    /// Reads a crate of the workspace.
    ///
    /// # Panics
    ///
    /// Where a file can't be read or parsed.
    #[must_use]
    pub fn read(package: &str) -> Self {
        let workspace = workspace();
        let mut sources = Sources::new();
        let mut directories = vec![workspace.join(package).join("src")];
        while let Some(directory) = directories.pop() {
            let entries = fs::read_dir(&directory)
                .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            for entry in entries {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).expect("UTF-8");
                    let path = path.strip_prefix(&workspace).expect("below it").to_owned();
                    sources.insert(path, text);
                }
            }
        }
        Self::parse(&package.replace('-', "_"), &Path::new(package).join("src/lib.rs"), &sources)
    }

    /// Paths of all modules, from the crate's root on.
    #[must_use]
    pub fn module_paths(&self) -> Vec<Vec<String>> {
        self.modules.iter().map(|module| module.path.clone()).collect()
    }

    /// Parses a crate whose root is the file `root` of `sources`.
    ///
    /// # Panics
    ///
    /// Where a file is missing or is not Rust.
    #[must_use]
    pub fn parse(name: &str, root: &Path, sources: &Sources) -> Self {
        let mut tree = Self { name: name.to_owned(), modules: Vec::new() };
        let file = parse(root, sources);
        let directory = root.parent().unwrap_or(Path::new("")).to_owned();
        let vis = syn::parse_quote!(pub);
        let declared = Module::new(Vec::new(), root.to_owned(), 1, vis, file.attrs, None);
        tree.add(declared, file.items, &directory, sources);
        let macros = expand::macros(tree.modules.iter().flat_map(|module| &module.items));
        for module in &mut tree.modules {
            module.expanded = expand::expand(&module.items, &macros);
            module.names = module.all_items().filter_map(declared_name).collect();
            let brought = module.items.iter().filter_map(|item| match item {
                Item::Use(item) => Some(used(&item.tree)),
                _ => None,
            });
            module.uses = brought.flatten().collect();
        }
        tree
    }

    /// Adds a module and those declared in it, whose files are below `directory`.
    fn add(&mut self, module: Module, items: Vec<Item>, directory: &Path, sources: &Sources) {
        let (at, path, file) = (self.modules.len(), module.path.clone(), module.file.clone());
        self.modules.push(module);
        for item in items {
            if !cfg::applies(attributes(&item)) {
                continue;
            }
            let Item::Mod(declared) = item else {
                self.modules[at].items.push(item);
                continue;
            };
            let name = declared.ident.to_string();
            let below = directory.join(&name);
            let path = [path.as_slice(), std::slice::from_ref(&name)].concat();
            let line = declared.ident.span().start().line;
            let mut attrs = declared.attrs;
            let child = self.modules.len();
            self.modules[at].children.insert(name, child);
            let parent = Some(at);
            if let Some((_, items)) = declared.content {
                let module = Module::new(path, file.clone(), line, declared.vis, attrs, parent);
                self.add(module, items, &below, sources);
            } else {
                let flat = below.with_extension("rs");
                let file = if sources.contains_key(&flat) { flat } else { below.join("mod.rs") };
                let parsed = parse(&file, sources);
                attrs.extend(parsed.attrs);
                let module = Module::new(path, file, 1, declared.vis, attrs, parent);
                self.add(module, parsed.items, &below, sources);
            }
        }
    }
}

impl Module {
    fn new(
        path: Vec<String>,
        file: PathBuf,
        line: usize,
        vis: Visibility,
        attrs: Vec<Attribute>,
        parent: Option<usize>,
    ) -> Self {
        let children = BTreeMap::new();
        let (items, expanded) = (Vec::new(), Vec::new());
        let (names, uses) = (HashSet::new(), Vec::new());
        Self { path, file, line, vis, attrs, items, expanded, parent, children, names, uses }
    }
}

fn parse(path: &Path, sources: &Sources) -> syn::File {
    let text = sources.get(path).unwrap_or_else(|| panic!("{} is missing", path.display()));
    syn::parse_file(text)
        .unwrap_or_else(|error| panic!("{}:{}: {error}", path.display(), error.span().start().line))
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item declares in its module.
pub(crate) fn declared_name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
