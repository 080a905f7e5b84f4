//! Tests over the workspace's sources.

use std::sync::LazyLock;

use checks::{Import, PublicItem, SourceTree, copies_of_shared_code, imports, public_api};

mod all_variants;
mod cycles;
mod docs;
mod layers;
mod map;
mod public_api;
mod shared;

/// The crates that are published.
const PUBLISHED: &[&str] =
    &["splengine-core", "splengine-http", "splengine-ws", "splengine-avro", "splengine-ssh"];

/// What a test needs of a crate's sources, which are parsed once for all tests.
struct Survey {
    package: &'static str,
    api: Vec<PublicItem>,
    imports: Vec<Import>,
    /// Paths of the modules.
    modules: Vec<Vec<String>>,
    /// Copies of what servers share.
    copies: Vec<String>,
}

static SURVEYS: LazyLock<Vec<Survey>> = LazyLock::new(|| {
    let survey = |&package: &&'static str| {
        let tree = SourceTree::read(package);
        let modules = tree.module_paths();
        let copies = copies_of_shared_code(&tree);
        Survey { package, api: public_api(&tree), imports: imports(&tree), modules, copies }
    };
    PUBLISHED.iter().map(survey).collect()
});
