//! Frames of a snapshot in various sizes.

use std::time::Duration;

use rota_proto::v1::TaskState;

use super::super::model::{Pool, Row as Task, Totals};
use super::*;

fn snapshot() -> Snapshot {
    let pool = |agent: &str, ready, queued| Pool {
        namespace: "default".into(),
        agent: agent.into(),
        ready,
        busy: ready,
        idle: 0,
        draining: 0,
        queued,
        running: ready,
        floor: 0,
        ceiling: 3,
        limit: String::new(),
    };
    let task = |name: &str, is: TaskState, progress: Option<f64>, doing: &str| Task {
        task: format!("namespaces/default/tasks/{name}"),
        name: name.into(),
        state: crate::output::state(is),
        target: "coder".into(),
        worker: if progress.is_none() { String::new() } else { "coder-1".into() },
        attempt: i32::from(progress.is_some()),
        lasted: Some(Duration::from_secs(75)),
        cost_micro_usd: if progress.is_none() { 0 } else { 120_000 },
        progress,
        doing: doing.into(),
        is,
    };
    Snapshot {
        totals: Totals {
            running: 1,
            input_required: 0,
            queued: 1,
            pending: 0,
            workers: 1,
            cost_per_minute_micro_usd: 96_000,
        },
        pools: vec![pool("coder", 1, 1), pool("reviewer", 0, 0)],
        tasks: vec![
            task("build", TaskState::Running, Some(0.4), "40% compiles"),
            task("next", TaskState::Queued, None, ""),
        ],
        more: false,
    }
}

fn view(snapshot: &Snapshot) -> View<'_> {
    View {
        snapshot,
        options: ViewOptions::default(),
        title: "http://127.0.0.1:7420  default",
        all_namespaces: false,
        colored: true,
        disconnected: None,
        skip: 0,
    }
}

#[test]
fn snapshot_renders_as_text() {
    assert_eq!(
        view(&snapshot()).text(100),
        "\
rota top  http://127.0.0.1:7420  default
running 1   input required 0   queued 1   pending 0   workers 1   cost $0.096/min

AGENT     READY  BUSY  IDLE  DRAINING  QUEUED  RUNNING  FLOOR  CEILING
coder     1      1     0     0         1       1        0      3
reviewer  0      0     0     0         0       0        0      3

TASK   STATE    TIME   AGENT  WORKER   ATTEMPT  COST   ACTIVITY
build  Running  1m15s  coder  coder-1  1        $0.12  ████░░░░░░ 40% compiles
next   Queued   1m15s  coder"
    );
}

#[test]
fn empty_snapshot_renders_messages() {
    let mut empty = snapshot();
    (empty.pools, empty.tasks) = (Vec::new(), Vec::new());
    let text = view(&empty).text(80);
    assert!(text.contains("\nno agents\n") && text.ends_with("no tasks to show"), "{text}");
}

/// Returns the lines of a terminal of some size.
fn render(view: &View<'_>, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| _ = view.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer.cell((x, y)).unwrap().symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn frames_fit_every_size() {
    let snapshot = snapshot();
    for (width, height) in [(1, 1), (3, 2), (20, 5), (40, 12), (500, 100)] {
        let lines = render(&view(&snapshot), width, height);
        assert_eq!(lines.len(), usize::from(height));
    }
    let small = render(&view(&snapshot), 80, 12);
    assert!(small[11].starts_with("q quit   s sort: state   f show: all"), "{small:?}");
}

#[test]
fn lost_connection_is_shown() {
    let snapshot = snapshot();
    let mut view = view(&snapshot);
    view.disconnected = Some("connection refused");
    let lines = render(&view, 100, 20);
    assert!(lines[0].ends_with("NOT CONNECTED: connection refused"), "{lines:?}");
}

#[test]
fn control_characters_are_removed() {
    let mut hostile = snapshot();
    hostile.tasks[0].doing = "\u{1b}[2J\u{1b}]0;x\u{7}\nsecond line".into();
    hostile.tasks[0].name = "ü界".into();
    let lines = render(&view(&hostile), 100, 20);
    assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:?}");
}

#[test]
fn scrolling_stops_at_last_task() {
    let mut long = snapshot();
    long.tasks = (0..100)
        .map(|number| {
            let mut task = long.tasks[1].clone();
            task.name = format!("task-{number}");
            task
        })
        .collect();
    let mut view = view(&long);
    view.skip = 10;
    let lines = render(&view, 80, 20);
    assert!(lines.iter().any(|line| line.starts_with("task-10 ")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("task-9 ")), "{lines:?}");
    view.skip = 99;
    let lines = render(&view, 80, 20);
    assert!(lines.iter().any(|line| line.starts_with("task-99 ")), "{lines:?}");
    assert!(lines[18].starts_with("task-99 "), "the last row is at the bottom: {lines:?}");
}

#[test]
fn text_lists_every_task() {
    let mut long = snapshot();
    let task = long.tasks[1].clone();
    long.tasks = (0..1000).map(|number| Task { name: format!("task-{number}"), ..task.clone() }).collect();
    for width in [30, 80, 200, u16::MAX] {
        let text = view(&long).text(width);
        assert_eq!(text.lines().count(), 3 + 4 + 1001, "{width}");
    }
    let text = view(&long).text(200);
    assert_eq!(text.lines().filter(|line| line.starts_with("TASK ")).count(), 1);
    assert!(text.lines().last().unwrap().starts_with("task-999 "), "{text}");
}

#[test]
fn wide_characters_stay_together() {
    let mut wide = snapshot();
    wide.tasks[0].doing = "測試 ü 你好".into();
    wide.tasks[0].name = "界界".into();
    let text = view(&wide).text(100);
    assert!(text.contains("\n界界  Running  "), "{text}");
    assert!(text.contains("測試 ü 你好"), "{text}");
}
