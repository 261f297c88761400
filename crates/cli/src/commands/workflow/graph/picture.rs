//! Graphs that are laid out here: boxes of characters, and SVG.

use ascii_dag::{BoxedNode, Graph as Boxes, RenderOptions};
use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::color::Color;
use layout::core::geometry::Point;
use layout::core::style::{LineStyleKind, StyleAttr};
use layout::std_shapes::shapes::{Arrow, Element, LineEndKind, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::{Graph, fill};

pub(super) fn text(graph: &Graph) -> String {
    let mut boxes = Boxes::new();
    for (position, node) in graph.nodes.iter().enumerate() {
        boxes.add_node(position, BoxedNode(&node.label));
    }
    for edge in &graph.edges {
        boxes.add_edge(edge.from, edge.to, None);
    }
    let drawn = boxes.compute_layout().render_string(&RenderOptions::plain());
    let lines = drawn.trim_matches('\n').lines();
    lines.flat_map(|line| [line.trim_end(), "\n"]).collect()
}

const FONT_SIZE: usize = 14;
/// Widths of letters are estimated: the font is that of the reader's machine.
const LETTER_WIDTH: f64 = 7.5;

pub(super) fn svg(graph: &Graph) -> String {
    let direction = Orientation::TopToBottom;
    let mut picture = VisualGraph::new(direction);
    let nodes: Vec<_> = graph
        .nodes
        .iter()
        .map(|node| {
            let color = Color::new((fill(node.paint) << 8) | 0xff);
            let look = StyleAttr::new(Color::fast("gray"), 1, Some(color), 8, FONT_SIZE);
            let width = f64::from(u16::try_from(node.label.len()).unwrap_or(u16::MAX)) * LETTER_WIDTH + 24.;
            let shape = ShapeKind::new_box(&node.label);
            picture.add_node(Element::create(shape, look, direction, Point::new(width, 34.)))
        })
        .collect();
    for edge in &graph.edges {
        let line = if edge.finally { LineStyleKind::Dashed } else { LineStyleKind::Normal };
        let look = StyleAttr::new(Color::fast("gray"), 1, None, 0, FONT_SIZE);
        let arrow = Arrow::new(LineEndKind::None, LineEndKind::Arrow, line, "", &look, &None, &None);
        picture.add_edge(arrow, nodes[edge.from], nodes[edge.to]);
    }
    let mut writer = SVGWriter::new();
    picture.do_it(false, false, false, &mut writer);
    writer.finalize()
}
