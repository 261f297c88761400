//! Draws a snapshot: once as text, or into a terminal again and again. Knows no model and no connection.

use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};

use super::choice::Choice;
use super::model::Snapshot;
use crate::output::{Paint, duration, first_line, money, plain};

/// The least and the most columns of a table's column.
const WIDEST: usize = 32;
/// The most columns of text.
const WIDEST_TEXT: u16 = 1000;
/// Cells of a bar of progress.
const BAR: usize = 10;

/// What is drawn.
#[derive(Debug)]
pub struct View<'a> {
    pub snapshot: &'a Snapshot,
    pub choice: Choice,
    /// The server, and the namespace or all of them.
    pub title: &'a str,
    pub all_namespaces: bool,
    pub colored: bool,
    /// Why what is seen may be old.
    pub lost: Option<&'a str>,
    /// Rows of tasks that are scrolled over.
    pub skip: usize,
}

/// Rows under headings; one heading alone where there are none.
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
            let width = cells.chain([head.len()]).max().unwrap_or_default().min(WIDEST);
            match at == last {
                true => Constraint::Fill(1),
                false => Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)),
            }
        });
        Self { widths: widths.collect(), header, rows }
    }
}

impl View<'_> {
    /// Draws, and says for how many tasks there is room.
    pub fn draw(&self, frame: &mut Frame) -> usize {
        let agents = self.pools();
        let pools = u16::try_from(agents.rows.len().max(1)).unwrap_or(u16::MAX).saturating_add(2);
        let area = frame.area();
        let [head, pools, tasks, foot] = Layout::vertical([
            Constraint::Length(3),
            // Tasks are what changes; many agents must not take their place.
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

    /// All of it as text, in one frame as high as it needs to be.
    pub fn text(&self, width: u16) -> String {
        // What is drawn into has only so many cells: long tables are drawn in parts.
        let width = width.clamp(1, WIDEST_TEXT);
        let most = usize::from(u16::MAX / width) - 1;
        let mut lines =
            drawn(width, 3, |frame| frame.render_widget(Paragraph::new(self.head()), frame.area()));
        for grid in [self.pools(), self.tasks()] {
            for skip in (0..grid.rows.len().max(1)).step_by(most) {
                let rows = grid.rows.len().saturating_sub(skip).min(most);
                let part = drawn(width, rows + 1, |frame| self.table(frame, frame.area(), &grid, skip));
                // The heading stands once.
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
        let figures = format!(
            "running {}   asking {}   queued {}   pending {}{more}   workers {}   cost {cost}/min",
            totals.running, totals.input_required, totals.queued, totals.pending, totals.workers
        );
        let mut title = vec![Span::styled(format!("rota top  {}", self.title), self.bold())];
        if let Some(why) = self.lost {
            title.push(Span::styled(format!("  NOT CONNECTED: {}", plain(why)), self.paint(Paint::Bad)));
        }
        vec![Line::from(title), Line::from(figures)]
    }

    fn foot(&self) -> Line<'static> {
        let key = |key: &'static str| Span::styled(key, self.bold());
        Line::from(vec![
            key("q"),
            Span::raw(" quit   "),
            key("s"),
            Span::raw(format!(" sort: {}   ", self.choice.sort.word())),
            key("f"),
            Span::raw(format!(" show: {}   ", self.choice.show.word())),
            key("↑↓"),
            Span::raw(" scroll"),
        ])
    }

    fn pools(&self) -> Grid {
        let mut header =
            vec!["AGENT", "READY", "BUSY", "IDLE", "DRAINING", "QUEUED", "RUNNING", "FLOOR", "CEILING"];
        let rows = self.snapshot.pools.iter().map(|pool| {
            let name = match self.all_namespaces {
                true => format!("{}/{}", pool.namespace, pool.agent),
                false => pool.agent.clone(),
            };
            let figures = [pool.ready, pool.busy, pool.idle, pool.draining, pool.queued, pool.running];
            let mut cells = vec![(name, Paint::Plain)];
            let waiting = |at: usize, figure: i64| match at {
                4 if figure > 0 && pool.ready == 0 => Paint::Bad,
                4 if figure > 0 => Paint::Waiting,
                1 | 5 if figure > 0 => Paint::Busy,
                _ => Paint::Plain,
            };
            cells
                .extend(figures.into_iter().enumerate().map(|(at, one)| (one.to_string(), waiting(at, one))));
            cells.extend([pool.floor, pool.ceiling].map(|one| (one.to_string(), Paint::Plain)));
            cells
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            header = vec!["no agents"];
        }
        Grid::new(header, rows)
    }

    fn tasks(&self) -> Grid {
        let header = vec!["TASK", "STATE", "FOR", "AGENT", "WORKER", "TRY", "COST", "DOING"];
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
                let longest = if at == last { usize::from(area.width) } else { WIDEST };
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

/// The lines of a frame.
fn drawn(width: u16, height: usize, draw: impl FnOnce(&mut Frame)) -> Vec<String> {
    let height = u16::try_from(height).unwrap_or(u16::MAX);
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(draw);
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let (mut line, mut x) = (String::new(), 0);
        while let Some(cell) = (x < width).then(|| buffer.cell((x, y))).flatten() {
            line.push_str(cell.symbol());
            // A wide symbol takes the place of the next one too.
            x += u16::try_from(Span::raw(cell.symbol()).width()).unwrap_or(1).max(1);
        }
        line.trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

/// How far, as a bar.
fn bar(fraction: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1")]
    let full = (fraction.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

#[cfg(test)]
mod tests;
