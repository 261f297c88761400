//! `rota workflow report`: what took the time of a workflow, and what its steps cost.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rota_client::Client;
use rota_proto::{names, v1};
use rota_telemetry::clock;
use serde::Serialize;

use super::show;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::text::{between, count, moment, money, seconds};
use crate::output::{Paint, Table, duration};

/// Number of tasks that one call reads, at most: the server bounds its bytes.
const PAGE_SIZE: i32 = 1000;

/// Times, costs and steps, as `--output json` prints them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    workflow: String,
    state: String,
    /// From the creation to the end, or until now.
    time: String,
    cost_micro_usd: i64,
    /// 0 if it has none.
    budget_micro_usd: i64,
    tokens: i64,
    /// Steps that each began when the one before had ended, the last of which ended last: a workflow is as slow as they are.
    critical_path: Vec<String>,
    critical_time: String,
    steps: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    state: String,
    #[serde(skip)]
    paint: Paint,
    critical: bool,
    #[serde(skip)]
    span: Duration,
    /// From the moment at which nothing that it needs was missing.
    time: String,
    #[serde(flatten)]
    work: Work,
}

/// What the tasks of a step did, in all rounds, with those of the workflows below it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Work {
    /// Workflows below the step, at any depth.
    workflows: i64,
    tasks: i64,
    attempts: i64,
    /// Longest time that one of its tasks has waited for a worker.
    #[serde(skip)]
    longest_wait: Duration,
    waited: String,
    cost_micro_usd: i64,
    tokens: i64,
}

pub(super) async fn report(context: &Context, name: &str) -> anyhow::Result<Exit> {
    let workflow =
        Box::pin(context.client.get_workflow(v1::GetWorkflowRequest { name: name.into() })).await?;
    let steps = context.client.all_workflow_steps(name).await?;
    let (namespace, _) = names::parse(&workflow.name, "workflows").unwrap_or_default();
    let work = work(&context.client, names::namespace(namespace), &workflow.uid, &steps).await?;
    let report = Report::new(&workflow, &steps, work);
    if !context.out.is_human() {
        context.out.value(&report)?;
        return Ok(Exit::Ok);
    }
    report.print(context)?;
    Ok(Exit::Ok)
}

fn has_workflows_in(steps: &[v1::StepStatus]) -> bool {
    steps.iter().any(|step| !step.last_workflow.is_empty())
}

/// Reads what the tasks of each step did, page by page, with those of the workflows below it, of which the control plane bounds the number.
async fn work(
    client: &Client,
    parent: String,
    workflow: &str,
    steps: &[v1::StepStatus],
) -> anyhow::Result<HashMap<String, Work>> {
    let mut work = HashMap::<String, Work>::new();
    // With the step of the outermost workflow, unless it is that.
    let mut open = vec![(workflow.to_owned(), None::<String>, has_workflows_in(steps))];
    while let Some((workflow, step, has_workflows)) = open.pop() {
        let filter = v1::TaskFilter { workflow: workflow.clone(), ..v1::TaskFilter::default() };
        let mut tasks = v1::ListTasksRequest {
            parent: parent.clone(),
            filter: Some(filter),
            page_size: PAGE_SIZE,
            ..v1::ListTasksRequest::default()
        };
        loop {
            let page = client.list_tasks(tasks.clone()).await?;
            for task in &page.tasks {
                let own = task.step.as_ref().map(|place| place.step.clone()).unwrap_or_default();
                work.entry(step.clone().unwrap_or(own)).or_default().add(task);
            }
            if page.next_page_token.is_empty() {
                break;
            }
            tasks.page_token = page.next_page_token;
        }
        if !has_workflows {
            continue;
        }
        let filter = v1::WorkflowFilter { parent_workflow: workflow, ..v1::WorkflowFilter::default() };
        for below in client.all_workflows(&parent, filter).await? {
            let step = step.clone().unwrap_or(below.parent_step);
            work.entry(step.clone()).or_default().workflows += 1;
            let steps = client.all_workflow_steps(&below.name).await?;
            open.push((below.uid, Some(step), has_workflows_in(&steps)));
        }
    }
    Ok(work)
}

impl Report {
    fn new(workflow: &v1::Workflow, steps: &[v1::StepStatus], mut work: HashMap<String, Work>) -> Self {
        let status = workflow.status.clone().unwrap_or_default();
        let path = critical_path(workflow.spec.as_ref(), steps);
        let rows: Vec<_> = (0..)
            .zip(steps)
            .map(|(position, step)| {
                let (state, paint) = show::step_state(step.state());
                let span = span(step.start_time.as_ref(), step.end_time.as_ref());
                let mut work = work.remove(step.name.as_str()).unwrap_or_default();
                work.waited = seconds(work.longest_wait);
                let critical = path.contains(&position);
                Row { name: step.name.clone(), state, paint, critical, span, time: seconds(span), work }
            })
            .collect();
        Self {
            workflow: workflow.name.clone(),
            state: show::state(&status).0,
            time: seconds(span(workflow.create_time.as_ref(), status.end_time.as_ref())),
            cost_micro_usd: rows.iter().map(|row| row.work.cost_micro_usd).sum(),
            budget_micro_usd: status.budget_micro_usd,
            tokens: rows.iter().map(|row| row.work.tokens).sum(),
            critical_time: seconds(path.iter().map(|position| rows[*position].span).sum()),
            critical_path: path.into_iter().map(|position| rows[position].name.clone()).collect(),
            steps: rows,
        }
    }

    fn print(&self, context: &Context) -> anyhow::Result<()> {
        let line = |name: &str, value: &str| context.out.line(&format!("{name:<15}{value}"));
        line("State", &self.state)?;
        line("Time", &self.time)?;
        let path = match self.critical_path.as_slice() {
            [first @ .., last] if first.len() > 20 => {
                format!("{}, … {last} ({} steps)", first[..3].join(", "), first.len() + 1)
            }
            all => all.join(", "),
        };
        // Nothing has started yet.
        if !path.is_empty() {
            line("Critical path", &format!("{}: {path}", self.critical_time))?;
        }
        let spent = [money(self.cost_micro_usd), count(self.tokens, "token")];
        line("Cost", spent.join(" ").trim())?;
        if self.budget_micro_usd > 0 {
            line("Budget", &money(self.budget_micro_usd))?;
        }
        context.out.line("")?;
        let mut table = Table::new(&[
            "STEP", "STATE", "CRITICAL", "TIME", "WAITED", "TASKS", "ATTEMPTS", "COST", "TOKENS",
        ]);
        for row in &self.steps {
            let (work, plain) = (&row.work, |text: String| (text, Paint::Plain));
            let number = |number: i64| plain(if number == 0 { String::new() } else { number.to_string() });
            let time = |span: Duration| plain(if span.is_zero() { String::new() } else { duration(span) });
            table.row([
                plain(row.name.clone()),
                (row.state.clone(), row.paint),
                (if row.critical { "yes".into() } else { String::new() }, Paint::Busy),
                time(row.span),
                time(work.longest_wait),
                number(work.tasks),
                number(work.attempts),
                plain(money(work.cost_micro_usd)),
                number(work.tokens),
            ]);
        }
        context.out.table(&table)?;
        Ok(())
    }
}

impl Work {
    fn add(&mut self, task: &v1::Task) {
        let status = task.status.clone().unwrap_or_default();
        let usage = status.usage.unwrap_or_default();
        self.tasks += 1;
        self.attempts += i64::from(status.attempt);
        let end = status.start_time.as_ref().or(status.end_time.as_ref());
        self.longest_wait = self.longest_wait.max(span(task.create_time.as_ref(), end));
        self.cost_micro_usd += usage.cost_micro_usd;
        self.tokens +=
            usage.input_tokens + usage.output_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
    }
}

/// Returns the time from a moment to another, or to now; zero before the first.
fn span(from: Option<&pbjson_types::Timestamp>, to: Option<&pbjson_types::Timestamp>) -> Duration {
    from.map_or(Duration::ZERO, |from| between(moment(from), to.map_or_else(clock::now, moment)))
}

/// Returns the positions of the steps that made the workflow as long as it is, first to last: from the step that ended last back
/// over the needs that ended last. Finally-steps are not part of it.
///
/// Source: Kelley and Walker, Critical-Path Planning and Scheduling (1959), with measured times in place of planned ones.
fn critical_path(spec: Option<&v1::WorkflowSpec>, status: &[v1::StepStatus]) -> Vec<usize> {
    let steps = spec.map(|spec| spec.steps.as_slice()).unwrap_or_default();
    let positions: HashMap<_, _> =
        steps.iter().enumerate().map(|(at, step)| (step.name.as_str(), at)).collect();
    // A step that runs ends after all that have ended.
    let end = |at: &usize| -> Option<(bool, SystemTime)> {
        let step = status.get(*at)?;
        let start = step.start_time.as_ref()?;
        Some((step.end_time.is_none(), moment(step.end_time.as_ref().unwrap_or(start))))
    };
    let started = |at: &usize| end(at).is_some();
    let mut path = Vec::new();
    let mut next = (0..steps.len()).filter(started).max_by_key(end);
    while let Some(at) = next {
        path.push(at);
        let needs = steps[at].needs.iter().filter_map(|need| positions.get(need.step.as_str()).copied());
        next = needs.filter(started).max_by_key(end);
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, needs, and start and end in seconds.
    type Ran<'a> = (&'a str, &'a [&'a str], Option<i64>, Option<i64>);

    fn path(steps: &[Ran]) -> Vec<usize> {
        let at = |seconds: Option<i64>| seconds.map(|seconds| pbjson_types::Timestamp { seconds, nanos: 0 });
        let need = |name: &&str| v1::StepNeed { step: (*name).into(), ..Default::default() };
        let of = |(name, needs, ..): &Ran| v1::WorkflowStep {
            name: (*name).into(),
            needs: needs.iter().map(need).collect(),
            ..Default::default()
        };
        let spec = v1::WorkflowSpec { steps: steps.iter().map(of).collect(), ..Default::default() };
        let status: Vec<_> = steps
            .iter()
            .map(|(_, _, start, end)| v1::StepStatus {
                start_time: at(*start),
                end_time: at(*end),
                ..Default::default()
            })
            .collect();
        critical_path(Some(&spec), &status)
    }

    #[test]
    fn critical_path_follows_the_needs_that_ended_last() {
        let steps: &[Ran] = &[
            ("fast", &[], Some(0), Some(1)),
            ("slow", &[], Some(0), Some(9)),
            ("join", &["fast", "slow"], Some(9), Some(10)),
            ("aside", &["fast"], Some(1), Some(8)),
        ];
        assert_eq!(path(steps), [1, 2]);
    }

    #[test]
    fn running_steps_end_after_all_others() {
        let steps: &[Ran] = &[
            ("first", &[], Some(0), Some(5)),
            ("done", &[], Some(0), Some(9)),
            ("runs", &["first"], Some(5), None),
            ("waits", &["runs"], None, None),
        ];
        assert_eq!(path(steps), [0, 2]);
        assert!(path(&[("waits", &[], None, None)]).is_empty());
    }
}
