//! Attempts with processes, none of which may survive its attempt.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{
    CommandRuntime, DoneWhen, FailureClass, OutputStream, TaskInput, WorkspaceCommand, event, runtime,
};
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Cancel, Input, result};
use tempfile::tempdir;

use crate::control_plane::{FakeControlPlane, Worker, assign, endless, limits, script};
use crate::session::class;
use crate::support::{exited, is_alive, stubborn_pids, stubborn_processes, until};

fn shell(line: String) -> runtime::Kind {
    runtime::Kind::Command(CommandRuntime { shell: line, ..CommandRuntime::default() })
}

#[tokio::test]
async fn cancelled_program_leaves_no_process() {
    let mut plane = FakeControlPlane::start().await;
    let worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let directory = tempdir().unwrap();
    let line =
        format!("trap '' INT TERM; {}; while :; do sleep 1000; done", stubborn_processes(directory.path()));
    session.send(ToWorker::Assign(Box::new(assign(1, shell(line))))).await;
    session.accepted(1).await;
    let pids = stubborn_pids(directory.path()).await;
    let grace = Some(Duration::from_millis(300).into());
    session
        .send(ToWorker::Cancel(
            Cancel { task_id: "t1".to_owned(), fence: 1, grace, ..Cancel::default() }.into(),
        ))
        .await;
    let (_, result) = session.result().await;
    // The result implies that no process is left.
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    assert!(matches!(result.kind, Some(result::Kind::Cancelled(cancelled)) if cancelled.by == "kill"));
    let left: Vec<_> = std::fs::read_dir(worker.state.path().join("running/default/w")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn hanging_program_exceeds_silence_timeout() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let mut hanging = assign(1, script([Step::SpawnOrphan(true), Step::Hang(true)]));
    limits(&mut hanging).silence_timeout = Some(Duration::from_secs(10).into());
    session.send(ToWorker::Assign(Box::new(hanging))).await;
    session.accepted(1).await;
    let (events, result) = session.result().await;
    assert_eq!(class(&result), Some(FailureClass::Hang));
    let orphans =
        |kind: &event::Kind| matches!(kind, event::Kind::Notice(notice) if notice.code == "orphans");
    assert!(events.iter().filter_map(|event| event.kind.as_ref()).any(orphans));
}

#[tokio::test]
async fn crash_reports_its_signal() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([Step::Crash(6)]))))).await;
    session.accepted(1).await;
    match session.result().await.1.kind {
        Some(result::Kind::Failed(failed)) => {
            assert_eq!((failed.class(), failed.signal), (FailureClass::Crash, Some(6)));
        }
        other => panic!("{other:?}"),
    }
}

/// Starts a worker as a process of its own.
fn worker_process(plane: &FakeControlPlane, state: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_rota-worker-test"))
        .args(["serve", &plane.endpoint, state.to_str().unwrap(), "4"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn killed_worker_leaves_no_process() {
    let mut plane = FakeControlPlane::start().await;
    let (state, directory) = (tempdir().unwrap(), tempdir().unwrap());
    let mut worker = worker_process(&plane, state.path());
    let mut session = plane.welcomed().await;
    let line = format!("{}; while :; do sleep 1000; done", stubborn_processes(directory.path()));
    session.send(ToWorker::Assign(Box::new(assign(1, shell(line))))).await;
    session.accepted(1).await;
    let pids = stubborn_pids(directory.path()).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    exited(&pids).await;
}

#[tokio::test]
async fn script_can_kill_its_worker() {
    let mut plane = FakeControlPlane::start().await;
    let state = tempdir().unwrap();
    let mut worker = worker_process(&plane, state.path());
    let mut session = plane.welcomed().await;
    session.send(ToWorker::Assign(Box::new(assign(1, script([Step::KillWorker(true), endless()]))))).await;
    while session.next().await.is_some() {}
    let status = worker.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

/// Opens descriptors until there are no more, shows their number, and stays.
const LEAK: &str = r#"
count=0
while exec {last}</dev/null; do count=$((count + 1)); done
for rest in 1 2 3 4 5 6 7 8 9; do exec {last}<&-; last=$((last - 1)); done
echo "$count $(ulimit -Hn) $(ulimit -Hu)" > "$SHOWN.part"
mv "$SHOWN.part" "$SHOWN"
while :; do sleep 1000; done
"#;

#[tokio::test]
async fn descriptors_of_an_attempt_end_before_its_workers() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let directory = tempdir().unwrap();
    let (program, shown) = (directory.path().join("leak"), directory.path().join("shown"));
    std::fs::write(&program, LEAK).unwrap();
    let line = format!("SHOWN={} exec bash {} 2>/dev/null", shown.display(), program.display());
    session.send(ToWorker::Assign(Box::new(assign(1, shell(line))))).await;
    session.accepted(1).await;
    let text = until("a leak", || std::fs::read_to_string(&shown).ok()).await;
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [count, descriptors, processes] = numbers[..] else { panic!("{text}") };
    let (_, own) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(descriptors, own.min(65_536));
    assert!(count < descriptors, "{count}");
    assert!(processes <= 32_768, "{processes}");
    // Meanwhile the worker, which has more, starts another.
    session.send(ToWorker::Assign(Box::new(assign(2, shell("true".to_owned()))))).await;
    session.accepted(2).await;
    let (_, result) = session.result().await;
    assert_eq!(result.task_id, "t2");
    assert!(matches!(result.kind, Some(result::Kind::Succeeded(_))), "{result:?}");
}

/// Joins a control group with little memory, of either version of control groups, and uses more than that.
const GREEDY: &str = r#"
if [ -e "$GROUP/memory.limit_in_bytes" ]; then
    echo 33554432 > "$GROUP/memory.limit_in_bytes"
else
    echo 33554432 > "$GROUP/memory.max"
fi
echo $$ > "$GROUP/cgroup.procs"
cat /proc/self/oom_score_adj
ulimit -Sc
head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null
"#;

/// Makes a control group in which memory can be limited. Otherwise prints why not, also where the output of tests that pass is not shown.
fn memory_group(test: &str) -> Option<PathBuf> {
    use std::io::Write;
    let make = || -> Result<PathBuf, String> {
        let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
        let root = root.ok_or("there are no control groups")?;
        let group = root.join(format!("rota-{test}-{}", std::process::id()));
        std::fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        if ["memory.limit_in_bytes", "memory.max"].iter().any(|file| group.join(file).exists()) {
            return Ok(group);
        }
        let _ = std::fs::remove_dir(&group);
        Err(format!("{} does not limit the memory of groups", root.display()))
    };
    let print = |why: &String| {
        let _ = writeln!(std::io::stderr(), "{test}: no control group: {why}");
    };
    make().inspect_err(print).ok()
}

#[tokio::test]
async fn lack_of_memory_is_reported() {
    let Some(group) = memory_group("lack_of_memory_is_reported") else { return };
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let line = format!("GROUP={}\n{GREEDY}", group.display());
    session.send(ToWorker::Assign(Box::new(assign(1, shell(line))))).await;
    session.accepted(1).await;
    let (events, result) = session.result().await;
    std::fs::remove_dir(&group).unwrap();
    let Some(result::Kind::Failed(failed)) = &result.kind else { panic!("{result:?}") };
    assert!(failed.message.contains("for lack of memory"), "{failed:?}");
    assert!(failed.hint.contains("more memory"));
    let printed: Vec<u8> = events
        .iter()
        .filter_map(|event| match &event.kind {
            // Bash reports the killed program on the other stream, at any time.
            Some(event::Kind::Output(output)) if output.stream() == OutputStream::Stdout => {
                Some(output.data.to_vec())
            }
            _ => None,
        })
        .collect::<Vec<_>>()
        .concat();
    let printed = String::from_utf8(printed).unwrap();
    // The worker's own score is not raised.
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let mut lines = printed.lines();
    assert_eq!(lines.next().unwrap().parse::<i32>().unwrap(), (own + 500).min(1000));
    assert_eq!(lines.next(), Some("0"), "core dumps are off");
}

/// Without control groups, the program is refused what it wants, and not killed.
#[tokio::test]
async fn neighbor_outlives_an_attempt_without_memory() {
    let group = memory_group("neighbor_outlives_an_attempt_without_memory");
    let greedy = match &group {
        Some(group) => format!("GROUP={}\n{GREEDY}", group.display()),
        None => "ulimit -v 100000; head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null".to_owned(),
    };
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let directory = tempdir().unwrap();
    let gate = directory.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opened for both, it waits for no reader.
    let mut open = std::fs::File::options().read(true).write(true).open(&gate).unwrap();
    let waits = shell(format!("read line <{}", gate.display()));
    session.send(ToWorker::Assign(Box::new(assign(1, waits)))).await;
    session.accepted(1).await;
    session.send(ToWorker::Assign(Box::new(assign(2, shell(greedy))))).await;
    session.accepted(2).await;
    let (_, result) = session.result().await;
    if let Some(group) = &group {
        std::fs::remove_dir(group).unwrap();
    }
    assert_eq!(result.task_id, "t2");
    assert!(matches!(result.kind, Some(result::Kind::Failed(_))), "{result:?}");
    std::io::Write::write_all(&mut open, b"go\n").unwrap();
    let (_, result) = session.result().await;
    assert_eq!(result.task_id, "t1");
    assert!(matches!(result.kind, Some(result::Kind::Succeeded(_))), "{result:?}");
}

/// No round of a program follows its checks: the log has what was sent while they ran.
#[tokio::test]
async fn messages_after_the_last_round_are_noted() {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let directory = tempdir().unwrap();
    let gate = directory.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let check = format!("echo checking; cat {}", gate.display());
    let argv = ["/bin/sh", "-c", &check].map(str::to_owned).into();
    let commands = vec![WorkspaceCommand { argv, ..WorkspaceCommand::default() }];
    let mut checked = assign(1, shell("true".to_owned()));
    let spec = checked.spec.as_mut().unwrap();
    spec.done_when = Some(DoneWhen { commands, ..DoneWhen::default() });
    session.send(ToWorker::Assign(Box::new(checked))).await;
    session.accepted(1).await;
    let is_output = |event: &rota_proto::v1::Event| matches!(event.kind, Some(event::Kind::Output(_)));
    while !session.report().await.events.iter().any(is_output) {}
    let input = Some(TaskInput { text: "in French".to_owned(), ..TaskInput::default() });
    let input = Input { task_id: "t1".to_owned(), fence: 1, input_seq: 1, input };
    session.send(ToWorker::Input(input.into())).await;
    // Its answer comes after the worker has the input.
    let unknown = Cancel { task_id: "t2".to_owned(), fence: 2, ..Cancel::default() };
    session.send(ToWorker::Cancel(unknown.into())).await;
    assert!(session.rejected().await.contains("does not have the attempt"));
    std::fs::write(&gate, "").unwrap();
    let (events, result) = session.result().await;
    assert!(matches!(result.kind, Some(result::Kind::Succeeded(_))), "{result:?}");
    let notices: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Some(event::Kind::Notice(notice)) => Some(notice.code.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(notices, ["checks_passed", "input_unheard"]);
}
