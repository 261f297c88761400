//! `rota top` in a terminal: takes in what the watches tell and what a person presses, and draws.
//! Whatever way it ends, the terminal is as it was.

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

use super::choice::Choice;
use super::model::Model;
use super::view::View;
use super::{PATIENCE, Top, load};
use crate::context::Context;
use crate::exit::Exit;

/// Between two frames: soon after a change, and each second since times grow.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(1);
/// Rows that Page Up and Page Down scroll over.
const PAGE: usize = 10;

/// A terminal that is given back when this is dropped; when the program panics, a hook gives it back before the
/// panic is told. A terminal that has gone cannot be given back, and nobody is there to be told so: the library's own ways
/// to do all this would panic over it.
struct Screen(ManuallyDrop<DefaultTerminal>);

impl Screen {
    fn open() -> anyhow::Result<Self> {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = ratatui::try_restore();
            told(panic);
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
                Err(error).context("the terminal cannot be drawn in")
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

/// What is pressed, read by a thread of its own: of a terminal that has gone, the library reads on and on, and never comes
/// back. The thread ends with the program.
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

/// What a terminal that cannot be used means. It was one when this began: if it is none any more, whoever looked has left.
fn failed(error: io::Error, what: &'static str) -> anyhow::Result<Exit> {
    if stdout().is_terminal() { Err(error).context(what) } else { Ok(Exit::Interrupted) }
}

pub(super) async fn run(context: &Context, top: &Top, choice: Choice) -> anyhow::Result<Exit> {
    let parent = context.parent(top.all_namespaces);
    let client = &context.client;
    let mut model = Model::default();
    // The streams are asked for before the list is made, so that nothing falls between them.
    // Progress and cost are no changes of state: all entries are asked for.
    let mut tasks = client.watch_tasks(parent.clone(), "", false);
    let first = timeout(PATIENCE, tasks.next()).await.ok().flatten().transpose()?;
    load(context, &parent, &mut model).await?;
    if let Some(task) = first.and_then(|change| change.task) {
        model.task(task, &[]);
    }
    let mut agents = client.watch_agents(parent.clone());
    let mut demand = client.watch_demand(parent.clone());
    let mut link = client.link();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let title = top.title(context);
    let mut seen = Seen { choice, ..Seen::default() };
    let mut screen = Screen::open()?;
    let mut keys = keys()?;
    let mut due = Instant::now();
    loop {
        let told = tokio::select! {
            change = tasks.next() => {
                let change = change.context("the server has ended the watch of tasks")??;
                if change.resync {
                    load(context, &parent, &mut model).await?;
                }
                change.task.into_iter().for_each(|task| model.task(task, &change.events));
                Told::News
            }
            change = agents.next() => {
                model.agent(change.context("the server has ended the watch of agents")??);
                Told::News
            }
            now = demand.next() => {
                model.demand(now.context("the server has ended the watch of demand")??);
                Told::News
            }
            Ok(()) = link.changed() => Told::News,
            event = keys.recv() => match event {
                Some(Ok(event)) => seen.pressed(&event, model_rows(&model, seen.choice)),
                Some(Err(error)) => Told::End(failed(error, "the terminal cannot be read")?),
                // Nobody is there any more.
                None => Told::End(Exit::Interrupted),
            },
            _ = interrupt.recv() => Told::End(Exit::Interrupted),
            _ = terminate.recv() => Told::End(Exit::Interrupted),
            _ = hang_up.recv() => Told::End(Exit::Interrupted),
            () = sleep_until(due) => {
                let now = clock::now();
                model.forget(now);
                let snapshot = model.snapshot(seen.choice, now);
                let lost = link.borrow_and_update().clone();
                let view = View {
                    snapshot: &snapshot,
                    choice: seen.choice,
                    title: &title,
                    all_namespaces: top.all_namespaces,
                    colored: context.out.colored(),
                    lost: lost.as_deref(),
                    skip: seen.skip,
                };
                if let Err(error) = screen.0.draw(|frame| seen.room = view.draw(frame)) {
                    return failed(error, "the terminal cannot be drawn in");
                }
                due = Instant::now() + LATER;
                continue;
            }
        };
        match told {
            Told::End(exit) => return Ok(exit),
            Told::Now => due = Instant::now(),
            Told::News => due = due.min(Instant::now() + SOON),
            Told::Nothing => {}
        }
    }
}

fn model_rows(model: &Model, choice: Choice) -> usize {
    model.snapshot(choice, clock::now()).tasks.len()
}

/// What something that happened asks for.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    News,
    Now,
    End(Exit),
}

/// What a person has chosen.
#[derive(Debug, Default)]
struct Seen {
    choice: Choice,
    skip: usize,
    /// Rows that the last frame had room for.
    room: usize,
}

impl Seen {
    fn pressed(&mut self, event: &Event, rows: usize) -> Told {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(*key, rows),
            Event::Resize(..) => Told::Now,
            _ => Told::Nothing,
        }
    }

    fn key(&mut self, key: KeyEvent, rows: usize) -> Told {
        // The last row is at the foot: what is beyond that would have to be scrolled back unseen.
        let last = rows.saturating_sub(self.room.max(1));
        self.skip = self.skip.min(last);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Told::End(Exit::Interrupted);
            }
            KeyCode::Char('q') | KeyCode::Esc => return Told::End(Exit::Ok),
            KeyCode::Char('s') => self.choice.sort = self.choice.sort.next(),
            KeyCode::Char('f') => (self.choice.show, self.skip) = (self.choice.show.next(), 0),
            KeyCode::Down | KeyCode::Char('j') => self.skip = (self.skip + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.skip = self.skip.saturating_sub(1),
            KeyCode::PageDown => self.skip = (self.skip + PAGE).min(last),
            KeyCode::PageUp => self.skip = self.skip.saturating_sub(PAGE),
            KeyCode::Home => self.skip = 0,
            KeyCode::End => self.skip = last,
            _ => return Told::Nothing,
        }
        Told::Now
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::{Show, Sort};
    use super::*;

    fn press(seen: &mut Seen, code: KeyCode) -> Told {
        seen.pressed(&Event::Key(KeyEvent::from(code)), 25)
    }

    #[test]
    fn keys() {
        let mut seen = Seen { room: 5, ..Seen::default() };
        assert_eq!(press(&mut seen, KeyCode::Char('s')), Told::Now);
        assert_eq!(press(&mut seen, KeyCode::Char('f')), Told::Now);
        assert_eq!(seen.choice, Choice { sort: Sort::Age, show: Show::Running });
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
            press(&mut seen, code);
            assert_eq!(seen.skip, skip, "{code:?}");
        }
        // A larger frame shows more: what is scrolled over is less.
        (seen.skip, seen.room) = (20, 10);
        press(&mut seen, KeyCode::Up);
        assert_eq!(seen.skip, 14);
        assert_eq!(press(&mut seen, KeyCode::Char('x')), Told::Nothing);
        assert_eq!(press(&mut seen, KeyCode::Char('q')), Told::End(Exit::Ok));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(seen.pressed(&Event::Key(control), 0), Told::End(Exit::Interrupted));
        assert_eq!(seen.pressed(&Event::Resize(10, 10), 0), Told::Now);
    }
}
