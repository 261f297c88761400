//! Graphs as text that other programs draw. Labels hold nothing that either language would have to escape.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Graph, fill};

/// Returns a flowchart. Source: <https://mermaid.js.org/syntax/flowchart.html>.
pub(super) fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart TD\n");
    let mut colors = BTreeSet::new();
    for (position, node) in graph.nodes.iter().enumerate() {
        let color = format!("{:06x}", fill(node.paint));
        let _ = writeln!(text, "  s{position}[\"{}\"]:::c{color}", node.label);
        colors.insert(color);
    }
    for edge in &graph.edges {
        let line = if edge.finally { "-.->" } else { "-->" };
        let _ = writeln!(text, "  s{} {line} s{}", edge.from, edge.to);
    }
    for color in colors {
        let _ = writeln!(text, "  classDef c{color} fill:#{color},stroke:#555555,color:#111111");
    }
    text
}

/// Returns a directed graph. Source: <https://graphviz.org/doc/info/lang.html>.
pub(super) fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph workflow {\n  node [shape=box, style=\"rounded,filled\"];\n");
    for (position, node) in graph.nodes.iter().enumerate() {
        let color = fill(node.paint);
        let _ = writeln!(text, "  s{position} [label=\"{}\", fillcolor=\"#{color:06x}\"];", node.label);
    }
    for edge in &graph.edges {
        let style = if edge.finally { " [style=dashed]" } else { "" };
        let _ = writeln!(text, "  s{} -> s{}{style};", edge.from, edge.to);
    }
    text.push_str("}\n");
    text
}
