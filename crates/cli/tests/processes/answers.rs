//! Commands that end by themselves, and what they answered.

use std::process::Stdio;

use rota_testkit::tasks::PATIENCE;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Answer {
    /// Runs a command to its end.
    pub(crate) async fn of(mut command: Command, input: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // One that does not read its input has ended its pipe, which is its own matter.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{:?} does not end", command.as_std())).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("{}", output.status));
        let answer = Self { code, out: text(output.stdout), err: text(output.stderr) };
        let args: Vec<_> = command.as_std().get_args().collect();
        eprintln!("rota {args:?}: {answer:?}");
        answer
    }

    /// What it printed, of a command that did what it was told.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end().to_owned()
    }

    /// Its output as JSON, of a command that did what it was told.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// Checks how it failed: its exit code, and words of what it said.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {self:?}");
        }
    }
}
