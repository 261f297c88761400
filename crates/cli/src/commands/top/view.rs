//! Draws a snapshot: once as text, or into a terminal again and again. Knows no model and no connection.

use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};

use super::model::{Choice, Snapshot};
use crate::output::{Paint, clean, duration, first_line, money};

/// The least and the most columns of a table's column.
const WIDEST: usize = 32;
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
    /// Whether there is somebody to press keys.
    pub keys: bool,
}

impl View<'_> {
    pub fn draw(&self, frame: &mut Frame) {
        let pools = u16::try_from(self.snapshot.pools.len().max(1)).unwrap_or(u16::MAX).saturating_add(2);
        let area = frame.area();
        // Tasks are what changes; many agents must not take their place.
        let pools = if self.keys { pools.min(area.height / 3).max(3) } else { pools };
        let [head, agents, tasks, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(pools),
            Constraint::Fill(1),
            Constraint::Length(u16::from(self.keys)),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(self.head()), head);
        self.pools(frame, agents);
        self.tasks(frame, tasks);
        if self.keys {
            frame.render_widget(Paragraph::new(self.foot()), foot);
        }
    }

    /// The frame as text, as high as it needs to be.
    pub fn text(&self, width: u16) -> String {
        let rows = self.snapshot.pools.len().max(1) + self.snapshot.tasks.len().max(1) + 8;
        let height = u16::try_from(rows).unwrap_or(u16::MAX).min(u16::MAX / width.max(1));
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        let Ok(_) = terminal.draw(|frame| self.draw(frame));
        let buffer = terminal.backend().buffer();
        let lines = (0..height).map(|y| {
            let cells = (0..width).filter_map(|x| buffer.cell((x, y)));
            let line: String = cells.map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
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
            title.push(Span::styled(format!("  NOT CONNECTED: {}", clean(why)), self.paint(Paint::Bad)));
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

    fn pools(&self, frame: &mut Frame, area: Rect) {
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
        self.table(frame, area, &header, &rows, 0);
    }

    fn tasks(&self, frame: &mut Frame, area: Rect) {
        let header = ["TASK", "STATE", "FOR", "AGENT", "WORKER", "TRY", "COST", "DOING"];
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
                    (duration(task.lasted), Paint::Plain),
                    (task.target.clone(), Paint::Plain),
                    (task.worker.clone(), Paint::Plain),
                    (attempt, Paint::Plain),
                    (money(task.cost_micro_usd), Paint::Plain),
                    (doing, Paint::Plain),
                ]
            })
            .collect();
        let header: &[_] = if rows.is_empty() { &["no tasks to show"] } else { &header };
        let room = usize::from(area.height.saturating_sub(1));
        let skip = self.skip.min(rows.len().saturating_sub(room));
        self.table(frame, area, header, &rows, skip);
    }

    fn table(
        &self,
        frame: &mut Frame,
        area: Rect,
        header: &[&'static str],
        rows: &[Vec<(String, Paint)>],
        skip: usize,
    ) {
        let last = header.len() - 1;
        let widths = header.iter().enumerate().map(|(at, head)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|(text, _)| text.chars().count());
            let width = cells.chain([head.len()]).max().unwrap_or_default().min(WIDEST);
            match at == last {
                true => Constraint::Fill(1),
                false => Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)),
            }
        });
        let widths: Vec<_> = widths.collect();
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

/// How far, as a bar.
fn bar(fraction: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1")]
    let full = (fraction.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

#[cfg(test)]
mod tests;
