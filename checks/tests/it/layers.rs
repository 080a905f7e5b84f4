//! Modules of core import those of lower layers only.

use std::collections::BTreeSet;

use checks::Graph;

/// The modules directly below core's root, the lowest layer first. A module may import those of lower
/// layers, and those of its own where none of them comes to import it.
const LAYERS: &[&str] = &[
    "os text time blocking lock fresh flat_dir names error part_state spare_thread user_name ids",
    "process",
    "auth quota protected",
    "store screen net",
    "terminal",
    "execute",
    "root",
    "local",
    "run",
    "session files",
    "batch",
    "engine",
    "testing",
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.split(' ').any(|each| each == module))
}

/// Who imports whom, of core's modules below its root, and where: both the module by which a name is
/// imported and the one that defines it count.
fn modules() -> BTreeSet<(&'static str, &'static str, String)> {
    let core = crate::SURVEYS.first().expect("core is the first");
    let mut found = BTreeSet::new();
    for import in &core.imports {
        let Some(from) = import.from.path.first() else { continue };
        let defined = import.to.path.first();
        let by = match import.path.as_slice() {
            [root, first, _, ..] if root == "crate" => Some(first),
            _ => None,
        };
        for to in by.into_iter().chain(defined) {
            let path = import.path.join("::");
            let evidence = format!("{}:{}: {path}", import.from.file, import.line);
            found.insert((from.as_str(), to.as_str(), evidence));
        }
    }
    found
}

#[test]
fn no_modules_of_core_import_each_other() {
    let mut graph = Graph::default();
    for (from, to, evidence) in modules() {
        graph.add(from, to, || evidence);
    }
    let mut cycles = Vec::new();
    while let Some(cycle) = graph.shortest_cycle() {
        let (from, rest) = cycle.last().expect("it has edges").split_once(" -> ").expect("an edge");
        graph.remove(from, rest.split_once(" (").expect("evidence").0);
        cycles.push(format!("  {}", cycle.join("\n  ")));
    }
    assert!(
        cycles.is_empty(),
        "These modules of core import each other; move what both need to a module below them:\n{}",
        cycles.join("\n\n")
    );
}

#[test]
fn modules_of_core_import_lower_layers_only() {
    let mut problems = BTreeSet::new();
    let core = crate::SURVEYS.first().expect("core is the first");
    let top: BTreeSet<_> =
        core.modules.iter().filter_map(|path| path.first()).map(String::as_str).collect();
    for module in &top {
        if layer(module).is_none() {
            problems.insert(format!(
                "splengine-core/src/lib.rs: `{module}` is in no layer: add it to LAYERS in \
                 checks/tests/it/layers.rs, above all that it imports"
            ));
        }
    }
    for module in LAYERS.iter().flat_map(|layer| layer.split(' ')) {
        if !top.contains(module) {
            problems
                .insert(format!("LAYERS has `{module}`, which is no module of core: remove it"));
        }
    }
    for (from, to, evidence) in modules() {
        if let (Some(lower), Some(upper)) = (layer(from), layer(to))
            && lower < upper
        {
            problems.insert(format!(
                "{evidence}: `{from}` is below `{to}` and must not import it: move what it needs down, \
                 or what needs it up"
            ));
        }
    }
    let problems: Vec<_> = problems.into_iter().collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
