//! Directed graphs, and their shortest cycles.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// A directed graph of names. Each edge has a text that says where it comes from.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    edges: BTreeMap<String, BTreeMap<String, String>>,
}

impl Graph {
    /// Adds an edge. Of several between the same nodes the first is kept; one to the node itself is none.
    pub fn add(&mut self, from: &str, to: &str, evidence: impl FnOnce() -> String) {
        if from != to {
            let edges = self.edges.entry(from.to_owned()).or_default();
            edges.entry(to.to_owned()).or_insert_with(evidence);
        }
    }

    /// Removes an edge; `false` if there is none.
    pub fn remove(&mut self, from: &str, to: &str) -> bool {
        self.edges.get_mut(from).is_some_and(|edges| edges.remove(to).is_some())
    }

    /// The shortest path from one node to another, as the nodes on it, both of them included.
    #[must_use]
    pub fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut before: HashMap<&str, &str> = HashMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for next in self.edges.get(node).into_iter().flat_map(|edges| edges.keys()) {
                if next == to {
                    let mut path = vec![to.to_owned(), node.to_owned()];
                    let mut node = node;
                    while let Some(&earlier) = before.get(node) {
                        path.push(earlier.to_owned());
                        node = earlier;
                    }
                    path.reverse();
                    return Some(path);
                }
                if next != from && !before.contains_key(next.as_str()) {
                    before.insert(next, node);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// The shortest cycle of the graph, one line for each of its edges; `None` if it has none.
    #[must_use]
    pub fn shortest_cycle(&self) -> Option<Vec<String>> {
        let cycles = self.edges.keys().filter_map(|node| self.path(node, node));
        let nodes = cycles.min_by_key(Vec::len)?;
        let lines = nodes
            .windows(2)
            .map(|pair| format!("{} -> {} ({})", pair[0], pair[1], self.edges[&pair[0]][&pair[1]]));
        Some(lines.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (from, to) in edges {
            graph.add(from, to, || format!("{from}.rs:1"));
        }
        graph
    }

    #[test]
    fn the_shortest_cycle_is_told() {
        let graph =
            graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "c"), ("a", "a")]);
        let cycle = graph.shortest_cycle().expect("there is one");
        assert_eq!(cycle, ["c -> d (c.rs:1)", "d -> c (d.rs:1)"]);
        assert_eq!(graph.path("a", "d").expect("there is one"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn without_a_way_back_there_is_none() {
        let mut graph = graph(&[("a", "b"), ("b", "c"), ("a", "c"), ("c", "a")]);
        assert!(graph.shortest_cycle().is_some());
        assert!(graph.remove("c", "a"));
        assert!(!graph.remove("c", "a"));
        assert_eq!(graph.shortest_cycle(), None);
    }
}
