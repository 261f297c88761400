//! Draws a snapshot as text or into a terminal. Knows no model and no connection.

use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};

use super::model::Snapshot;
use super::view_options::ViewOptions;
use crate::output::{Paint, duration, first_line, money, plain};

/// Maximum width of a table's column.
const MAX_COLUMN_WIDTH: usize = 32;
/// Maximum width of text output.
const MAX_TEXT_WIDTH: u16 = 1000;
/// Width of a progress bar.
const BAR_WIDTH: usize = 10;

/// Frame to draw.
#[derive(Debug)]
pub struct View<'a> {
    pub snapshot: &'a Snapshot,
    pub options: ViewOptions,
    pub title: &'a str,
    pub all_namespaces: bool,
    pub colored: bool,
    /// Reason why the snapshot may be outdated.
    pub disconnected: Option<&'a str>,
    /// Number of tasks scrolled past.
    pub skip: usize,
}

/// Rows below a header; without rows, a header with one cell with a message.
struct Grid {
    header: Vec<&'static str>,
    rows: Vec<Vec<(String, Paint)>>,
    widths: Vec<Constraint>,
}

impl Grid {
    fn new(header: Vec<&'static str>, rows: Vec<Vec<(String, Paint)>>) -> Self {
        let last = header.len() - 1;
        let widths = header.iter().enumerate().map(|(at, head)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|(text, _)| Span::raw(text).width());
            let width = cells.chain([head.len()]).max().unwrap_or_default().min(MAX_COLUMN_WIDTH);
            match at == last {
                true => Constraint::Fill(1),
                false => Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)),
            }
        });
        Self { widths: widths.collect(), header, rows }
    }
}

impl View<'_> {
    /// Draws a frame, and returns the number of tasks that fit.
    pub fn draw(&self, frame: &mut Frame) -> usize {
        let agents = self.pools();
        let pools = u16::try_from(agents.rows.len().max(1)).unwrap_or(u16::MAX).saturating_add(2);
        let area = frame.area();
        let [head, pools, tasks, foot] = Layout::vertical([
            Constraint::Length(3),
            // Many agents must not displace the tasks.
            Constraint::Length(pools.min(area.height / 3).max(3)),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(area);
        let all = self.tasks();
        let room = usize::from(tasks.height.saturating_sub(1));
        frame.render_widget(Paragraph::new(self.head()), head);
        self.table(frame, pools, &agents, 0);
        self.table(frame, tasks, &all, self.skip.min(all.rows.len().saturating_sub(room)));
        frame.render_widget(Paragraph::new(self.foot()), foot);
        room
    }

    /// Returns the complete frame as text.
    pub fn text(&self, width: u16) -> String {
        // A buffer has a maximum number of cells: long tables are drawn in parts.
        let width = width.clamp(1, MAX_TEXT_WIDTH);
        let most = usize::from(u16::MAX / width) - 1;
        let mut lines =
            drawn(width, 3, |frame| frame.render_widget(Paragraph::new(self.head()), frame.area()));
        for grid in [self.pools(), self.tasks()] {
            for skip in (0..grid.rows.len().max(1)).step_by(most) {
                let rows = grid.rows.len().saturating_sub(skip).min(most);
                let part = drawn(width, rows + 1, |frame| self.table(frame, frame.area(), &grid, skip));
                // The header is printed once.
                lines.extend(part.into_iter().skip(usize::from(skip > 0)));
            }
            lines.push(String::new());
        }
        lines.join("\n").trim_end().to_owned()
    }

    fn head(&self) -> Vec<Line<'static>> {
        let totals = &self.snapshot.totals;
        let more = if self.snapshot.more { "+" } else { "" };
        let cost = money(totals.cost_per_minute_micro_usd);
        let cost = if cost.is_empty() { "$0".to_owned() } else { cost };
        let totals_line = format!(
            "running {}   input required {}   queued {}   pending {}{more}   workers {}   cost {cost}/min",
            totals.running, totals.input_required, totals.queued, totals.pending, totals.workers
        );
        let mut title = vec![Span::styled(format!("rota top  {}", self.title), self.bold())];
        if let Some(why) = self.disconnected {
            title.push(Span::styled(format!("  NOT CONNECTED: {}", plain(why)), self.paint(Paint::Bad)));
        }
        vec![Line::from(title), Line::from(totals_line)]
    }

    fn foot(&self) -> Line<'static> {
        let key = |key: &'static str| Span::styled(key, self.bold());
        Line::from(vec![
            key("q"),
            Span::raw(" quit   "),
            key("s"),
            Span::raw(format!(" sort: {}   ", self.options.sort.name())),
            key("f"),
            Span::raw(format!(" show: {}   ", self.options.show.name())),
            key("↑↓"),
            Span::raw(" scroll"),
        ])
    }

    fn pools(&self) -> Grid {
        let mut header =
            vec!["AGENT", "READY", "BUSY", "IDLE", "DRAINING", "QUEUED", "RUNNING", "FLOOR", "CEILING"];
        let limited = self.snapshot.pools.iter().any(|pool| !pool.limit.is_empty());
        header.extend(limited.then_some("LIMIT"));
        let rows = self.snapshot.pools.iter().map(|pool| {
            let name = match self.all_namespaces {
                true => format!("{}/{}", pool.namespace, pool.agent),
                false => pool.agent.clone(),
            };
            let values = [pool.ready, pool.busy, pool.idle, pool.draining, pool.queued, pool.running];
            let mut cells = vec![(name, Paint::Plain)];
            let style = |at: usize, value: i64| match at {
                4 if value > 0 && pool.ready == 0 => Paint::Bad,
                4 if value > 0 => Paint::Waiting,
                1 | 5 if value > 0 => Paint::Busy,
                _ => Paint::Plain,
            };
            cells.extend(values.into_iter().enumerate().map(|(at, one)| (one.to_string(), style(at, one))));
            cells.extend([pool.floor, pool.ceiling].map(|one| (one.to_string(), Paint::Plain)));
            cells.extend(limited.then(|| (pool.limit.clone(), Paint::Bad)));
            cells
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            header = vec!["no agents"];
        }
        Grid::new(header, rows)
    }

    fn tasks(&self) -> Grid {
        let header = vec!["TASK", "STATE", "TIME", "AGENT", "WORKER", "ATTEMPT", "COST", "ACTIVITY"];
        let rows: Vec<_> = (self.snapshot.tasks.iter())
            .map(|task| {
                let doing = match task.progress {
                    Some(fraction) => format!("{} {}", bar(fraction), task.doing),
                    None => task.doing.clone(),
                };
                let attempt = if task.attempt == 0 { String::new() } else { task.attempt.to_string() };
                let name = match self.all_namespaces {
                    true => format!("{}/{}", task.task.split('/').nth(1).unwrap_or_default(), task.name),
                    false => task.name.clone(),
                };
                vec![
                    (name, Paint::Plain),
                    (task.state.to_owned(), task.is.into()),
                    (task.lasted.map(duration).unwrap_or_default(), Paint::Plain),
                    (task.target.clone(), Paint::Plain),
                    (task.worker.clone(), Paint::Plain),
                    (attempt, Paint::Plain),
                    (money(task.cost_micro_usd), Paint::Plain),
                    (doing, Paint::Plain),
                ]
            })
            .collect();
        let header = if rows.is_empty() { vec!["no tasks to show"] } else { header };
        Grid::new(header, rows)
    }

    fn table(&self, frame: &mut Frame, area: Rect, grid: &Grid, skip: usize) {
        let Grid { header, rows, widths } = grid;
        let last = header.len() - 1;
        let shown = rows.iter().skip(skip).take(usize::from(area.height)).map(|row| {
            let cells = row.iter().enumerate().map(|(at, (text, paint))| {
                let longest = if at == last { usize::from(area.width) } else { MAX_COLUMN_WIDTH };
                Cell::from(first_line(text, longest)).style(self.paint(*paint))
            });
            Row::new(cells)
        });
        let head = Row::new(header.iter().map(|head| Cell::from(*head))).style(self.bold());
        let table = Table::new(shown, widths).header(head).column_spacing(2);
        Widget::render(table, area, frame.buffer_mut());
    }

    fn bold(&self) -> Style {
        Style::default().add_modifier(Modifier::BOLD)
    }

    fn paint(&self, paint: Paint) -> Style {
        let color = match paint {
            _ if !self.colored => return Style::default(),
            Paint::Plain => return Style::default(),
            Paint::Good => Color::Green,
            Paint::Busy => Color::Cyan,
            Paint::Waiting => Color::Yellow,
            Paint::Bad => Color::Red,
            Paint::Faint => Color::DarkGray,
        };
        Style::default().fg(color)
    }
}

/// Draws a frame and returns its lines.
fn drawn(width: u16, height: usize, draw: impl FnOnce(&mut Frame)) -> Vec<String> {
    let height = u16::try_from(height).unwrap_or(u16::MAX);
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(draw);
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let (mut line, mut x) = (String::new(), 0);
        while let Some(cell) = (x < width).then(|| buffer.cell((x, y))).flatten() {
            line.push_str(cell.symbol());
            // A wide symbol covers the next cell too.
            x += u16::try_from(Span::raw(cell.symbol()).width()).unwrap_or(1).max(1);
        }
        line.trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

/// Renders a fraction as a progress bar.
fn bar(fraction: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1")]
    let full = (fraction.clamp(0.0, 1.0) * BAR_WIDTH as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR_WIDTH - full))
}

#[cfg(test)]
mod tests;
