//! Removal of the rows of a workflow's steps, a part in each commit: first their outputs, then who needs them, then the steps.

use rota_core::WorkflowKey;

/// Bytes of the row of an edge.
const EDGE_BYTES: u64 = 32;

/// Page of the rows of a workflow: at most so many, up to the one that exceeds the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalPage {
    pub workflow: WorkflowKey,
    pub limit: usize,
    pub bytes: u64,
}

/// The last row of each kind on a page, and whether there are more rows. Rows up to these are removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removal {
    pub outputs: Option<u32>,
    /// A step and one that needs it.
    pub edges: Option<(u32, u32)>,
    /// A step, which is removed with its spec.
    pub steps: Option<u32>,
    pub more: bool,
}

/// What a page may still have.
struct Left {
    rows: usize,
    bytes: Option<u64>,
}

impl Left {
    /// Takes rows with their sizes. Returns the last one, and whether there may be more.
    fn take<K: Copy>(&mut self, rows: &[(K, u64)], limit: usize) -> (Option<K>, bool) {
        let mut last = None;
        for (key, size) in rows {
            let (1.., Some(bytes)) = (self.rows, self.bytes) else { return (last, true) };
            self.rows -= 1;
            self.bytes = bytes.checked_sub(*size);
            last = Some(*key);
        }
        (last, rows.len() >= limit)
    }
}

impl Removal {
    /// Returns what a page has of the first rows of each kind, as many as its limit, with their sizes.
    pub fn of(
        page: &RemovalPage,
        outputs: &[(u32, u64)],
        edges: &[(u32, u32)],
        steps: &[(u32, u64)],
    ) -> Self {
        let mut left = Left { rows: page.limit, bytes: Some(page.bytes) };
        let mut removal = Self::default();
        (removal.outputs, removal.more) = left.take(outputs, page.limit);
        if !removal.more {
            let edges: Vec<_> = edges.iter().map(|edge| (*edge, EDGE_BYTES)).collect();
            (removal.edges, removal.more) = left.take(&edges, page.limit);
        }
        if !removal.more {
            (removal.steps, removal.more) = left.take(steps, page.limit);
        }
        removal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded_by_rows_and_bytes() {
        let page = |limit, bytes| RemovalPage { workflow: WorkflowKey(1), limit, bytes };
        let outputs: Vec<_> = (0..4).map(|step| (step, 100)).collect();
        let edges = [(0, 1), (0, 2)];
        let steps: Vec<_> = (0..3).map(|step| (step, 10)).collect();
        let of = |limit: usize, bytes| {
            let first = |rows: usize| rows.min(limit);
            let page = page(limit, bytes);
            Removal::of(&page, &outputs[..first(4)], &edges[..first(2)], &steps[..first(3)])
        };
        let part = |outputs, edges, steps, more| Removal { outputs, edges, steps, more };
        assert_eq!(of(3, 1000), part(Some(2), None, None, true), "three rows");
        assert_eq!(of(4, 1000), part(Some(3), None, None, true), "there may be more");
        assert_eq!(of(100, 150), part(Some(1), None, None, true), "the one that exceeds the bytes");
        assert_eq!(of(100, 0), part(Some(0), None, None, true), "at least one");
        assert_eq!(of(8, 1000), part(Some(3), Some((0, 2)), Some(1), true));
        assert_eq!(of(9, 1000), part(Some(3), Some((0, 2)), Some(2), false));
    }
}
