//! `rota top` in a terminal: processes changes from the watches and key presses, and draws. Restores the terminal
//! however it ends.

use std::io::{self, IsTerminal, stdout};
use std::mem::ManuallyDrop;
use std::time::Duration;

use anyhow::Context as _;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use futures::StreamExt;
use ratatui::backend::CrosstermBackend;
use ratatui::{DefaultTerminal, Terminal};
use rota_telemetry::clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::model::Model;
use super::view::View;
use super::view_options::ViewOptions;
use super::{FIRST_MESSAGE_TIMEOUT, Top, load, watch};
use crate::context::Context;
use crate::exit::Exit;

/// Delay between a change and the next frame.
const REDRAW_DELAY: Duration = Duration::from_millis(100);
/// Interval between frames without changes, since they show times.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);
/// Rows that Page Up and Page Down scroll.
const PAGE_ROWS: usize = 10;

/// Terminal that is restored on drop; a panic hook restores it before a panic message is printed. Failures to restore a
/// closed terminal are ignored, whereas the library's own functions would panic.
struct Screen(ManuallyDrop<DefaultTerminal>);

impl Screen {
    fn open() -> anyhow::Result<Self> {
        let print_panic = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = ratatui::try_restore();
            print_panic(panic);
        }));
        let open = || {
            enable_raw_mode()?;
            crossterm::execute!(stdout(), EnterAlternateScreen)?;
            Terminal::new(CrosstermBackend::new(stdout()))
        };
        match open() {
            Ok(terminal) => Ok(Self(ManuallyDrop::new(terminal))),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error).context("failed to draw in the terminal")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = ratatui::try_restore();
        let _ = self.0.show_cursor();
    }
}

/// Reads key presses on a thread of its own, since the library's read never returns once the terminal is closed. The
/// thread ends with the program.
fn keys() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, keys) = mpsc::channel(16);
    let read = move || {
        loop {
            let event = event::read();
            let over = event.is_err();
            if sender.blocking_send(event).is_err() || over {
                return;
            }
        }
    };
    std::thread::Builder::new().name("rota-keys".to_owned()).spawn(read)?;
    Ok(keys)
}

/// Handles a failure of the terminal: an error while it is still open, else the user has closed it.
fn terminal_failed(error: io::Error, what: &'static str) -> anyhow::Result<Exit> {
    if stdout().is_terminal() { Err(error).context(what) } else { Ok(Exit::Interrupted) }
}

pub(super) async fn run(context: &Context, top: &Top, options: ViewOptions) -> anyhow::Result<Exit> {
    let parent = context.parent(top.all_namespaces);
    let client = &context.client;
    let mut model = Model::default();
    // The stream is opened before tasks are listed, so that no change is missed in between. It has all entries, since
    // progress and cost are not changes of state.
    let mut tasks = client.watch_tasks(parent.clone(), "", false);
    let first = timeout(FIRST_MESSAGE_TIMEOUT, tasks.next()).await.ok().flatten().transpose()?;
    load(context, &parent, &mut model).await?;
    if let Some(task) = first.and_then(|change| change.task) {
        model.task(task, &[]);
    }
    let (mut agents, mut demand) = watch(context, &parent, &mut model).await?;
    let mut link = client.connection_error();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let title = top.title(context);
    let mut input = Input { options, ..Input::default() };
    let mut screen = Screen::open()?;
    let mut keys = keys()?;
    let mut due = Instant::now();
    loop {
        let effect = tokio::select! {
            change = tasks.next() => {
                let change = change.context("the server closed the watch of tasks")??;
                if change.resync {
                    load(context, &parent, &mut model).await?;
                }
                change.task.into_iter().for_each(|task| model.task(task, &change.events));
                Effect::RedrawSoon
            }
            change = agents.next() => {
                model.agent(change.context("the server closed the watch of agents")??);
                Effect::RedrawSoon
            }
            now = demand.next() => {
                model.demand(now.context("the server closed the watch of demand")??);
                Effect::RedrawSoon
            }
            Ok(()) = link.changed() => Effect::RedrawSoon,
            event = keys.recv() => match event {
                Some(Ok(event)) => input.handle(&event, model_rows(&model, input.options)),
                Some(Err(error)) => Effect::Exit(terminal_failed(error, "failed to read from the terminal")?),
                // The terminal was closed.
                None => Effect::Exit(Exit::Interrupted),
            },
            _ = interrupt.recv() => Effect::Exit(Exit::Interrupted),
            _ = terminate.recv() => Effect::Exit(Exit::Interrupted),
            _ = hang_up.recv() => Effect::Exit(Exit::Interrupted),
            () = sleep_until(due) => {
                let now = clock::now();
                model.forget(now);
                let snapshot = model.snapshot(input.options, now);
                let disconnected = link.borrow_and_update().clone();
                let view = View {
                    snapshot: &snapshot,
                    options: input.options,
                    title: &title,
                    all_namespaces: top.all_namespaces,
                    colored: context.out.colored(),
                    disconnected: disconnected.as_deref(),
                    skip: input.skip,
                };
                if let Err(error) = screen.0.draw(|frame| input.rows_shown = view.draw(frame)) {
                    return terminal_failed(error, "failed to draw in the terminal");
                }
                due = Instant::now() + REDRAW_INTERVAL;
                continue;
            }
        };
        match effect {
            Effect::Exit(exit) => return Ok(exit),
            Effect::RedrawNow => due = Instant::now(),
            Effect::RedrawSoon => due = due.min(Instant::now() + REDRAW_DELAY),
            Effect::Nothing => {}
        }
    }
}

fn model_rows(model: &Model, options: ViewOptions) -> usize {
    model.snapshot(options, clock::now()).tasks.len()
}

/// Effect of a change or a key press.
#[derive(Debug, PartialEq, Eq)]
enum Effect {
    Nothing,
    RedrawSoon,
    RedrawNow,
    Exit(Exit),
}

/// State set by key presses.
#[derive(Debug, Default)]
struct Input {
    options: ViewOptions,
    skip: usize,
    /// Rows of tasks in the last frame.
    rows_shown: usize,
}

impl Input {
    fn handle(&mut self, event: &Event, rows: usize) -> Effect {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(*key, rows),
            Event::Resize(..) => Effect::RedrawNow,
            _ => Effect::Nothing,
        }
    }

    fn key(&mut self, key: KeyEvent, rows: usize) -> Effect {
        // Scrolling ends with the last row at the bottom.
        let last = rows.saturating_sub(self.rows_shown.max(1));
        self.skip = self.skip.min(last);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Effect::Exit(Exit::Interrupted);
            }
            KeyCode::Char('q') | KeyCode::Esc => return Effect::Exit(Exit::Ok),
            KeyCode::Char('s') => self.options.sort = self.options.sort.next(),
            KeyCode::Char('f') => (self.options.show, self.skip) = (self.options.show.next(), 0),
            KeyCode::Down | KeyCode::Char('j') => self.skip = (self.skip + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.skip = self.skip.saturating_sub(1),
            KeyCode::PageDown => self.skip = (self.skip + PAGE_ROWS).min(last),
            KeyCode::PageUp => self.skip = self.skip.saturating_sub(PAGE_ROWS),
            KeyCode::Home => self.skip = 0,
            KeyCode::End => self.skip = last,
            _ => return Effect::Nothing,
        }
        Effect::RedrawNow
    }
}

#[cfg(test)]
mod tests {
    use super::super::view_options::{Show, Sort};
    use super::*;

    fn press(input: &mut Input, code: KeyCode) -> Effect {
        input.handle(&Event::Key(KeyEvent::from(code)), 25)
    }

    #[test]
    fn keys_change_options_and_scroll() {
        let mut input = Input { rows_shown: 5, ..Input::default() };
        assert_eq!(press(&mut input, KeyCode::Char('s')), Effect::RedrawNow);
        assert_eq!(press(&mut input, KeyCode::Char('f')), Effect::RedrawNow);
        assert_eq!(input.options, ViewOptions { sort: Sort::Age, show: Show::Running });
        for (code, skip) in [
            (KeyCode::Down, 1),
            (KeyCode::PageDown, 11),
            (KeyCode::End, 20),
            (KeyCode::Down, 20),
            (KeyCode::PageDown, 20),
            (KeyCode::Up, 19),
            (KeyCode::Home, 0),
            (KeyCode::PageUp, 0),
        ] {
            press(&mut input, code);
            assert_eq!(input.skip, skip, "{code:?}");
        }
        // A larger frame reduces the maximum scroll position.
        (input.skip, input.rows_shown) = (20, 10);
        press(&mut input, KeyCode::Up);
        assert_eq!(input.skip, 14);
        assert_eq!(press(&mut input, KeyCode::Char('x')), Effect::Nothing);
        assert_eq!(press(&mut input, KeyCode::Char('q')), Effect::Exit(Exit::Ok));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(input.handle(&Event::Key(control), 0), Effect::Exit(Exit::Interrupted));
        assert_eq!(input.handle(&Event::Resize(10, 10), 0), Effect::RedrawNow);
    }
}
