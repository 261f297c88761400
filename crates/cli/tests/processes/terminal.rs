//! Commands in a terminal of their own: screen, keys, sizes, signals, restored settings.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};
use rota_testkit::tasks::WAIT_TIMEOUT;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

/// Terminal in which a command runs.
pub(crate) struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    screen: Arc<Mutex<vt100::Parser>>,
    changed: watch::Receiver<u64>,
    /// Settings of the terminal before the command.
    before: String,
}

fn count(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize { rows, cols, ..PtySize::default() }
}

/// Starts a command in a terminal, and returns the terminal's settings before.
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
        let (sender, changed) = watch::channel(0);
        let (mut reader, drawn) = (master.try_clone_reader().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails once the program has exited.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..count]);
                sender.send_modify(|reads| *reads += 1);
            }
        });
        let keys = master.take_writer().unwrap();
        Self { child, master, keys, screen, changed, before }
    }

    /// Returns the lines on the screen.
    pub(crate) fn lines(&self) -> Vec<String> {
        let contents = self.screen.lock().unwrap().screen().contents();
        contents.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until the screen matches, and returns its lines.
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
        let shown = timeout(WAIT_TIMEOUT, wait).await;
        shown.ok().flatten().unwrap_or_else(|| panic!("{what} is not shown but {:#?}", self.lines()))
    }

    /// Waits for a line with all of these words.
    pub(crate) async fn prints(&mut self, words: &str) -> Vec<String> {
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

    /// Starts a command, closes the terminal once it shows a word, and returns the exit status.
    pub(crate) async fn closed_after(command: &Command, word: &'static str) -> ExitStatus {
        let (mut child, master, _) = spawn(command, size(24, 80));
        let pid = Pid::from_raw(i32::try_from(child.process_id().unwrap()).unwrap());
        let ended = tokio::task::spawn_blocking(move || {
            let mut reader = master.try_clone_reader().unwrap();
            let (mut output, mut bytes) = (Vec::new(), [0; 4096]);
            while !String::from_utf8_lossy(&output).contains(word) {
                let count = reader.read(&mut bytes).unwrap();
                assert!(count > 0, "the command exits before it prints {word:?}");
                output.extend_from_slice(&bytes[..count]);
            }
            drop((reader, master));
            child.wait().unwrap()
        });
        let ended = timeout(WAIT_TIMEOUT, ended).await;
        if ended.is_err() {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        ended.expect("the command runs without its terminal").unwrap()
    }

    /// Waits for the exit, checks that the terminal is restored, and returns the exit code.
    pub(crate) async fn ended(mut self) -> u32 {
        let over = timeout(WAIT_TIMEOUT, async { while self.changed.changed().await.is_ok() {} }).await;
        assert!(over.is_ok(), "the command does not exit: {:#?}", self.lines());
        let code = self.child.wait().unwrap().exit_code();
        let parser = self.screen.lock().unwrap();
        assert!(!parser.screen().alternate_screen(), "the alternate screen is still active");
        assert!(!parser.screen().hide_cursor(), "the cursor is still hidden");
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

/// Returns the settings of a terminal, such as echo and line editing.
fn settings(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios().unwrap())
}

/// Replaces what varies in lines: addresses, durations, and the space around them.
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
