//! Runtime for deterministic scripts: for demos, load and tests. An empty script costs next to nothing;
//! only the steps that concern processes start any.

mod files;
mod step;

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{
    AgentMessage, FailureClass, InputKind, InputRequest, MessageRole, Output, OutputStream, Progress,
    ScriptFailure, ScriptStep, ScriptedRuntime, Severity, TaskResult, Usage, event, runtime,
};
use tokio::time::sleep;

use files::Files;
pub use step::{SUBCOMMAND, script_step_main};

use super::{Attempt, Channels, CheckpointFolder, Environment, RunOutcome, RunReport, Runtime};
use crate::layout::SCRIPT;
use crate::report::{failure, notice};
use crate::supervise::{Running, Stop, stopped};

#[derive(Debug, Default, Clone, Copy)]
pub struct Scripted;

impl Scripted {
    /// Creates the runtime, which has no settings.
    pub fn new() -> Self {
        Self
    }

    /// Whether a script starts processes, which need an environment, or has files.
    pub(crate) fn needs_directories(script: &ScriptedRuntime) -> bool {
        let process = |step: &ScriptStep| {
            matches!(step.kind, Some(Step::Hang(true) | Step::Crash(_) | Step::SpawnOrphan(true)))
        };
        let file = |step: &ScriptStep| {
            matches!(step.kind, Some(Step::WriteFile(_) | Step::Remember(_) | Step::Recall(_)))
        };
        script.steps.iter().any(|step| process(step) || file(step))
    }
}

#[async_trait]
impl Runtime for Scripted {
    async fn run(&self, attempt: &Attempt, channels: &mut Channels) -> RunReport {
        let Attempt { assign, environment, workspace, scratch, .. } = attempt;
        let runtime = assign.spec.as_ref().and_then(|spec| spec.runtime.as_ref());
        let script = match runtime.and_then(|runtime| runtime.kind.as_ref()) {
            Some(runtime::Kind::Scripted(script)) => script,
            _ => return RunReport::failed(FailureClass::Invalid, "the task has no script"),
        };
        if script.steps.is_empty() {
            return RunReport::new(RunOutcome::Succeeded(TaskResult::default()));
        }
        let random = seeded(script.seed, &assign.task_id, assign.attempt);
        let mut run = ScriptRun {
            channels,
            random,
            environment,
            files: Files { workspace, scratch },
            attempt: assign.attempt,
            usage: None,
            orphan_parents: Vec::new(),
            answered: assign
                .answers
                .iter()
                .filter_map(|one| one.question.as_ref())
                .map(|one| one.prompt.clone())
                .collect(),
        };
        let mut outcome = None;
        for step in &script.steps {
            outcome = run.step(step.clone()).await;
            if outcome.is_some() {
                break;
            }
        }
        let outcome = outcome.unwrap_or_else(|| RunOutcome::Succeeded(TaskResult::default()));
        run.finish(outcome).await
    }

    fn checkpoint(&self, attempt: &Attempt) -> Option<CheckpointFolder> {
        let scratch = Some(&attempt.scratch).filter(|scratch| !scratch.as_os_str().is_empty())?;
        Some(CheckpointFolder { root: scratch.clone(), within: SCRIPT.into(), ..CheckpointFolder::default() })
    }
}

/// Creates the random generator of an attempt: the same for the same seed (or task id) and attempt number.
fn seeded(seed: u64, task: &str, attempt: i32) -> StdRng {
    let mut bytes = [0_u8; 32];
    if seed == 0 {
        for (index, byte) in task.bytes().enumerate() {
            bytes[index % 24] = bytes[index % 24].rotate_left(3) ^ byte;
        }
    } else {
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
    }
    bytes[28..].copy_from_slice(&attempt.to_le_bytes());
    StdRng::from_seed(bytes)
}

struct ScriptRun<'a> {
    channels: &'a mut Channels,
    random: StdRng,
    environment: &'a Environment,
    files: Files<'a>,
    attempt: i32,
    usage: Option<Usage>,
    /// Processes whose orphans live until the end of the attempt.
    orphan_parents: Vec<Running>,
    /// Questions of an earlier attempt, which were answered since.
    answered: Vec<String>,
}

impl ScriptRun<'_> {
    /// Runs a step. Returns the outcome if the attempt ends with it.
    async fn step(&mut self, step: ScriptStep) -> Option<RunOutcome> {
        let event = match step.kind? {
            Step::Delay(delay) => return self.wait(delay.try_into().unwrap_or_default()).await,
            Step::Jitter(max) => {
                let max: Duration = max.try_into().unwrap_or_default();
                let share = self.random.random::<f64>();
                return self.wait(max.mul_f64(share)).await;
            }
            Step::Progress(fraction) => event::Kind::Progress(Progress { fraction, step: String::new() }),
            Step::Output(line) => event::Kind::Output(Output {
                stream: OutputStream::Stdout.into(),
                data: format!("{line}\n").into(),
                dropped_bytes: 0,
            }),
            Step::Message(text) => {
                event::Kind::Message(AgentMessage { role: MessageRole::Assistant.into(), text, number: 0 })
            }
            Step::Succeed(text) => {
                return Some(RunOutcome::Succeeded(TaskResult { text, ..TaskResult::default() }));
            }
            Step::Fail(fail) => return self.fail(&fail),
            Step::Hang(true) => return Some(self.process(&["hang"]).await),
            Step::Crash(signal) => {
                let signal = if signal == 0 { 9 } else { signal }.to_string();
                return Some(self.process(&["crash", &signal]).await);
            }
            Step::SpawnOrphan(true) => return self.spawn_orphan().await,
            Step::Ask(question) => return self.ask(question).await,
            Step::Usage(used) => {
                let usage = Usage {
                    input_tokens: used.input_tokens,
                    output_tokens: used.output_tokens,
                    cost_micro_usd: used.cost_micro_usd,
                    ..Usage::default()
                };
                self.usage = Some(usage.clone());
                event::Kind::Usage(usage)
            }
            Step::KillWorker(true) => {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
                return None;
            }
            Step::WriteFile(file) => return self.files.write(&file).await.err(),
            Step::Remember(line) => return self.files.remember(&line).await.err(),
            Step::Recall(true) => {
                let text = self.files.conversation().await;
                event::Kind::Message(AgentMessage { role: MessageRole::Assistant.into(), text, number: 0 })
            }
            Step::Hang(false) | Step::SpawnOrphan(false) | Step::KillWorker(false) | Step::Recall(false) => {
                return None;
            }
        };
        self.emit(event).await
    }

    async fn emit(&mut self, event: event::Kind) -> Option<RunOutcome> {
        tokio::select! {
            biased;
            // Fails only when the attempt is over.
            _ = self.channels.events.send(event) => None,
            stop = stopped(&mut self.channels.stop) => Some(interrupted(&stop)),
        }
    }

    async fn wait(&mut self, time: Duration) -> Option<RunOutcome> {
        tokio::select! {
            () = sleep(time) => None,
            stop = stopped(&mut self.channels.stop) => Some(interrupted(&stop)),
        }
    }

    fn fail(&mut self, fail: &ScriptFailure) -> Option<RunOutcome> {
        let spared = fail.attempts > 0 && self.attempt > fail.attempts;
        // Drawn in any case, so that later draws stay the same.
        let hit = fail.probability.is_none_or(|share| self.random.random::<f64>() < share);
        if spared || !hit {
            return None;
        }
        let name = if fail.class.is_empty() { "agent" } else { &fail.class };
        let class = FailureClass::from_str_name(&format!("FAILURE_CLASS_{}", name.to_uppercase()));
        let message = if fail.message.is_empty() { "failed by the script" } else { &fail.message };
        Some(RunOutcome::Failed(failure(class.unwrap_or(FailureClass::Agent), message)))
    }

    async fn ask(&mut self, prompt: String) -> Option<RunOutcome> {
        if let Some(at) = self.answered.iter().position(|known| *known == prompt) {
            self.answered.remove(at);
            return None;
        }
        let request_id = uuid::Uuid::new_v4().to_string();
        let request = InputRequest {
            request_id: request_id.clone(),
            kind: InputKind::Question.into(),
            prompt,
            ..InputRequest::default()
        };
        if let Some(outcome) = self.emit(event::Kind::InputRequest(request)).await {
            return Some(outcome);
        }
        loop {
            tokio::select! {
                input = self.channels.inputs.recv() => match input {
                    Some(input) if input.request_id == request_id => return None,
                    // Scripts ignore steering messages.
                    Some(_) => {}
                    None => return Some(RunOutcome::Stopped { by: "interrupt" }),
                },
                stop = stopped(&mut self.channels.stop) => return Some(interrupted(&stop)),
            }
        }
    }

    /// Runs a process that decides the outcome of the attempt.
    async fn process(&mut self, step: &[&str]) -> RunOutcome {
        let mut running = match step::start(step, self.environment.clone()).await {
            Ok(running) => running,
            Err(error) => return RunOutcome::Failed(failure(FailureClass::Start, error.to_string())),
        };
        let exit = tokio::select! {
            exit = running.wait() => exit,
            stop = stopped(&mut self.channels.stop) => {
                return match running.end(stop.grace).await {
                    Ok((_, by)) => RunOutcome::Stopped { by: by.as_str() },
                    Err(_) => RunOutcome::Stopped { by: "kill" },
                };
            }
        };
        let (message, signal) = match exit {
            Ok(exit) => match exit.signal {
                Some(signal) => (format!("ended by signal {signal}"), Some(signal)),
                None => ("the process ended unexpectedly".to_owned(), None),
            },
            Err(error) => (error.to_string(), None),
        };
        RunOutcome::Failed(rota_proto::v1::Failure { signal, ..failure(FailureClass::Crash, message) })
    }

    async fn spawn_orphan(&mut self) -> Option<RunOutcome> {
        match step::start(&["orphan"], self.environment.clone()).await {
            Ok(running) => {
                self.orphan_parents.push(running);
                None
            }
            Err(error) => Some(RunOutcome::Failed(failure(FailureClass::Start, error.to_string()))),
        }
    }

    /// Ends the remaining processes and creates the report.
    async fn finish(mut self, outcome: RunOutcome) -> RunReport {
        let grace = self.channels.stop.borrow().as_ref().map_or(Duration::from_secs(1), |stop| stop.grace);
        let mut killed = 0;
        for mut running in std::mem::take(&mut self.orphan_parents) {
            running.stdin = None;
            killed += running.end(grace).await.map_or(1, |(exit, _)| exit.orphans);
        }
        if killed > 0 {
            let text = format!("processes that outlived the script were killed: {killed}");
            let _ = self.channels.events.send(notice(Severity::Low, "orphans", text)).await;
        }
        RunReport { usage: self.usage, ..RunReport::new(outcome) }
    }
}

fn interrupted(_: &Stop) -> RunOutcome {
    RunOutcome::Stopped { by: "interrupt" }
}

#[cfg(test)]
mod tests;
