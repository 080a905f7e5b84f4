//! Tests over the workspace's sources.

use std::sync::LazyLock;

use checks::{PublicItem, SourceTree, public_api};

mod cycles;
mod docs;
mod layers;
mod public_api;

/// The crates that are published.
const PUBLISHED: &[&str] =
    &["splengine-core", "splengine-http", "splengine-ws", "splengine-avro", "splengine-ssh"];

/// The public interfaces of the published crates.
static APIS: LazyLock<Vec<(&str, Vec<PublicItem>)>> = LazyLock::new(|| {
    PUBLISHED.iter().map(|&name| (name, public_api(&SourceTree::read(name)))).collect()
});
