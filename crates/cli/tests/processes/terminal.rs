//! A command in a terminal of its own: what it shows, keys, sizes, signals, and whether it leaves the terminal as it was.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};
use rota_testkit::tasks::PATIENCE;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

/// A terminal in which a command runs.
pub(crate) struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    screen: Arc<Mutex<vt100::Parser>>,
    changed: watch::Receiver<u64>,
    /// How the terminal was before.
    before: String,
}

fn count(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize { rows, cols, ..PtySize::default() }
}

/// Starts a command in a terminal, and tells how that was set before.
fn spawn(
    command: &Command,
    size: PtySize,
) -> (Box<dyn Child + Send + Sync>, Box<dyn MasterPty + Send>, String) {
    let pair = native_pty_system().openpty(size).unwrap();
    let command = command.as_std();
    let mut inner = CommandBuilder::new(command.get_program());
    inner.env_clear();
    inner.args(command.get_args());
    inner.cwd(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        inner.env(name, value.unwrap());
    }
    inner.env("TERM", "xterm-256color");
    let before = settings(&*pair.master);
    let child = pair.slave.spawn_command(inner).unwrap();
    (child, pair.master, before)
}

impl Terminal {
    pub(crate) fn start(command: &Command, rows: u16, cols: u16) -> Self {
        let (child, master, before) = spawn(command, size(rows, cols));
        let screen = Arc::new(Mutex::new(vt100::Parser::new(count(rows), count(cols), 0)));
        let (told, changed) = watch::channel(0);
        let (mut reader, drawn) = (master.try_clone_reader().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal without a program is an error to read from.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..count]);
                told.send_modify(|reads| *reads += 1);
            }
        });
        let keys = master.take_writer().unwrap();
        Self { child, master, keys, screen, changed, before }
    }

    /// What is on the screen now.
    pub(crate) fn lines(&self) -> Vec<String> {
        let contents = self.screen.lock().unwrap().screen().contents();
        contents.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until the screen is as wanted, and gives it.
    pub(crate) async fn shows(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let wait = async {
            loop {
                self.changed.mark_unchanged();
                let lines = self.lines();
                if wanted(&lines) {
                    return Some(lines);
                }
                if self.changed.changed().await.is_err() {
                    let lines = self.lines();
                    return wanted(&lines).then_some(lines);
                }
            }
        };
        let shown = timeout(PATIENCE, wait).await;
        shown.ok().flatten().unwrap_or_else(|| panic!("{what} is not shown but {:#?}", self.lines()))
    }

    /// Waits until a line has all of these words.
    pub(crate) async fn says(&mut self, words: &str) -> Vec<String> {
        let all = |line: &String| words.split(' ').all(|word| line.contains(word));
        self.shows(words, |lines| lines.iter().any(all)).await
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    pub(crate) fn resize(&mut self, rows: u16, cols: u16) {
        self.screen.lock().unwrap().set_size(count(rows), count(cols));
        self.master.resize(size(rows, cols)).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.process_id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Starts a command, takes the terminal away once it shows a word, and gives how it ends.
    pub(crate) async fn taken_away(command: &Command, word: &'static str) -> ExitStatus {
        let (mut child, master, _) = spawn(command, size(24, 80));
        let pid = Pid::from_raw(i32::try_from(child.process_id().unwrap()).unwrap());
        let ended = tokio::task::spawn_blocking(move || {
            let mut reader = master.try_clone_reader().unwrap();
            let (mut said, mut bytes) = (Vec::new(), [0; 4096]);
            while !String::from_utf8_lossy(&said).contains(word) {
                let count = reader.read(&mut bytes).unwrap();
                assert!(count > 0, "it ends before it says {word:?}");
                said.extend_from_slice(&bytes[..count]);
            }
            drop((reader, master));
            child.wait().unwrap()
        });
        let ended = timeout(PATIENCE, ended).await;
        if ended.is_err() {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        ended.expect("it goes on without its terminal").unwrap()
    }

    /// Waits for its end, sees that the terminal is as it was, and gives the exit code.
    pub(crate) async fn ended(mut self) -> u32 {
        let over = timeout(PATIENCE, async { while self.changed.changed().await.is_ok() {} }).await;
        assert!(over.is_ok(), "it does not end: {:#?}", self.lines());
        let code = self.child.wait().unwrap().exit_code();
        let parser = self.screen.lock().unwrap();
        assert!(!parser.screen().alternate_screen(), "it leaves its own screen behind");
        assert!(!parser.screen().hide_cursor(), "it leaves no cursor behind");
        assert_eq!(settings(&*self.master), self.before);
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether keys are echoed, lines are edited, and so on.
fn settings(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios().unwrap())
}

/// Lines without what varies: addresses, lengths of time, and the room that those take.
pub(crate) fn steady(lines: &[String]) -> Vec<String> {
    // Such as 12s, 1.5s, 80ms and 2m10s.
    let is_time = |word: &str| {
        let units: String = word.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
        word.starts_with(|c: char| c.is_ascii_digit()) && ["s", "ms"].contains(&units.as_str())
    };
    let word = |word: &str| match word {
        _ if word.starts_with("http://127.0.0.1:") => "SERVER".to_owned(),
        _ if is_time(word) => "TIME".to_owned(),
        _ => word.to_owned(),
    };
    let line = |line: &String| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    lines.iter().map(line).collect()
}
