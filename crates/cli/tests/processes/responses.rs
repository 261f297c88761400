//! Commands that exit by themselves, and their responses.

use std::process::Stdio;

use rota_testkit::tasks::WAIT_TIMEOUT;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// Exit code and output of a command.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Response {
    /// Runs a command to its end.
    pub(crate) async fn of(mut command: Command, input: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // A command that does not read its input may have closed the pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let output = timeout(WAIT_TIMEOUT, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{:?} does not exit", command.as_std())).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("{}", output.status));
        let response = Self { code, out: text(output.stdout), err: text(output.stderr) };
        let args: Vec<_> = command.as_std().get_args().collect();
        eprintln!("rota {args:?}: {response:?}");
        response
    }

    /// Returns the output of a successful command.
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end().to_owned()
    }

    /// Returns the output of a successful command as JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.success()).unwrap()
    }

    /// Checks the exit code of a failed command, and words of its error.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {self:?}");
        }
    }
}
