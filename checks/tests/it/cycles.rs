//! Files import each other in one direction.

use checks::{Graph, Import};

/// Imports that close a circle of files, and are known: the file that imports, and the file that is
/// imported. None is to be added.
const KNOWN: &[(&str, &str)] =
    &[("splengine-core/src/screen/term.rs", "splengine-core/src/screen/reply.rs")];

/// Who imports whom, of a crate's files. Those that declare modules and re-export only are left out, and
/// so are re-exports.
fn files(imports: &[Import]) -> Graph {
    let mut graph = Graph::default();
    for import in imports {
        let (from, to) = (&import.from, &import.to);
        if !import.is_reexport && !from.is_table_of_contents && !to.is_table_of_contents {
            let evidence = || format!("line {}: {}", import.line, import.path.join("::"));
            graph.add(&from.file, &to.file, evidence);
        }
    }
    graph
}

#[test]
fn no_files_import_each_other() {
    let mut problems = Vec::new();
    let mut known: Vec<_> = KNOWN.iter().collect();
    for survey in crate::SURVEYS.iter() {
        let whole = files(&survey.imports);
        let mut graph = whole.clone();
        known.retain(|(from, to)| !graph.remove(from, to));
        for (from, to) in KNOWN {
            let is_here = !graph.clone().remove(from, to) && whole.clone().remove(from, to);
            if is_here && whole.path(to, from).is_none() {
                problems.push(format!(
                    "{from} -> {to} closes no circle any more: remove it from KNOWN"
                ));
            }
        }
        while let Some(cycle) = graph.shortest_cycle() {
            problems.push(format!(
                "These files import each other; move what both need to a file below them:\n  {}",
                cycle.join("\n  ")
            ));
            let last = cycle.last().expect("it has edges");
            let (from, to) = last.split_once(" -> ").expect("an edge");
            let to = to.split_once(" (").expect("evidence").0;
            graph.remove(from, to);
            problems.push(format!("KNOWN (\"{from}\", \"{to}\"),"));
        }
    }
    for (from, to) in known {
        problems.push(format!("{from} does not import {to} any more: remove it from KNOWN"));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
