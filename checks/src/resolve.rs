//! From a path in the code to the module that defines what it names.

use syn::UseTree;

use crate::source::SourceTree;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A module, by its index.
    Module(usize),
    /// An item of a module, which has that index.
    Item(usize, String),
}

impl Target {
    /// Index of the module, or of the item's module.
    pub(crate) fn module(&self) -> usize {
        match self {
            Self::Module(at) | Self::Item(at, _) => *at,
        }
    }
}

/// One name that a `use` brings in.
#[derive(Debug)]
pub(crate) struct Used {
    pub(crate) path: Vec<String>,
    /// `None` for all names of a module.
    pub(crate) name: Option<String>,
}

/// The names that a tree of a `use` brings in.
pub(crate) fn used(tree: &UseTree) -> Vec<Used> {
    let mut found = Vec::new();
    collect(tree, &mut Vec::new(), &mut found);
    found
}

fn collect(tree: &UseTree, before: &mut Vec<String>, found: &mut Vec<Used>) {
    let mut push = |last: Option<String>, name: Option<String>| {
        let mut path = before.clone();
        path.extend(last.filter(|last| last != "self"));
        found.push(Used { name: name.or_else(|| path.last().cloned()), path });
    };
    match tree {
        UseTree::Name(name) => push(Some(name.ident.to_string()), None),
        UseTree::Rename(rename) => {
            push(Some(rename.ident.to_string()), Some(rename.rename.to_string()));
        }
        UseTree::Glob(_) => found.push(Used { path: before.clone(), name: None }),
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            collect(&path.tree, before, found);
            before.pop();
        }
        UseTree::Group(group) => {
            for each in &group.items {
                collect(each, before, found);
            }
        }
    }
}

/// Re-exports that are followed from one name, at most.
const MAX_HOPS: usize = 16;

impl SourceTree {
    /// Finds what a path names that stands in a module, past re-exports; `None` for what other crates
    /// define.
    pub(crate) fn resolve(&self, module: usize, path: &[String]) -> Option<Target> {
        self.follow(module, path, MAX_HOPS)
    }

    fn follow(&self, module: usize, path: &[String], hops: usize) -> Option<Target> {
        let hops = hops.checked_sub(1)?;
        let (mut at, mut rest) = (module, path);
        loop {
            match rest.first().map(String::as_str) {
                Some("crate") => at = 0,
                Some("self") => {}
                Some("super") => at = self.modules[at].parent?,
                _ => break,
            }
            rest = &rest[1..];
        }
        while let Some((name, after)) = rest.split_first() {
            match self.named(at, name, after.is_empty(), hops)? {
                Target::Module(next) => at = next,
                item @ Target::Item(..) => return Some(item),
            }
            rest = after;
        }
        Some(Target::Module(at))
    }

    /// Finds a name of a module. As the last of a path it is rather an item than a module.
    fn named(&self, at: usize, name: &str, is_last: bool, hops: usize) -> Option<Target> {
        let module = &self.modules[at];
        let child = module.children.get(name).map(|&child| Target::Module(child));
        if !is_last && child.is_some() {
            return child;
        }
        if module.names.contains(name) {
            return Some(Target::Item(at, name.to_owned()));
        }
        let used = &module.uses;
        let direct = used.iter().filter(|used| used.name.as_deref() == Some(name));
        let globs = used.iter().filter(|used| used.name.is_none());
        // A name brought in may be a module's own: `use run::run` beside `mod run`.
        let brought = direct.filter_map(|used| self.follow(at, &used.path, hops)).next();
        brought.or(child).or_else(|| {
            globs
                .filter_map(|used| {
                    let Target::Module(of) = self.follow(at, &used.path, hops)? else {
                        return None;
                    };
                    (of != at).then(|| self.named(of, name, is_last, hops.checked_sub(1)?))?
                })
                .next()
        })
    }
}
