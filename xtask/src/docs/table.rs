//! Pieces of Markdown.

/// Renders a table; empty without rows.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(heads.iter().map(|head| (*head).to_owned()).collect());
    text += &line(heads.iter().map(|_| "---".to_owned()).collect());
    for row in rows {
        text += &line(row.iter().map(|cell| escape(cell)).collect());
    }
    text
}

/// A cell is one line, and a pipe would end it.
fn escape(cell: &str) -> String {
    cell.replace('|', "\\|").replace('\n', " ")
}

pub(super) fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_' || *c == ' ')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces() {
        let rows = [vec!["a|b".to_owned(), "c\nd".to_owned()]];
        assert_eq!(table(&["x", "y"], &rows), "| x | y |\n| --- | --- |\n| a\\|b | c d |\n");
        assert_eq!(table(&["x"], &[]), "");
        assert_eq!(anchor("rota get tasks"), "rota-get-tasks");
        assert_eq!(anchor("Agent.Spec"), "agentspec");
    }
}
