//! Steps that are the same each time: for demos, load and tests. An empty script must cost next to
//! nothing; only steps that are about processes start any.

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

pub use step::{SUBCOMMAND, script_step_main};

use super::{Attempt, Channels, Ending, Environment, Outcome, Runtime, Stop, failure, notice, stopped};
use crate::supervise::Running;

/// Does scripts.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scripted;

impl Scripted {
    /// The runtime.
    pub fn new() -> Self {
        Self
    }

    /// Whether a script starts processes, which need an environment.
    pub(crate) fn needs_processes(script: &ScriptedRuntime) -> bool {
        let process = |step: &ScriptStep| {
            matches!(step.kind, Some(Step::Hang(true) | Step::Crash(_) | Step::SpawnStray(true)))
        };
        script.steps.iter().any(process)
    }
}

#[async_trait]
impl Runtime for Scripted {
    async fn run(&self, attempt: Attempt, channels: Channels) -> Outcome {
        let Attempt { assign, environment, .. } = attempt;
        let script = match assign.spec.and_then(|spec| spec.runtime).and_then(|runtime| runtime.kind) {
            Some(runtime::Kind::Scripted(script)) => script,
            _ => return Outcome::failed(FailureClass::Invalid, "the task has no script"),
        };
        if script.steps.is_empty() {
            return Outcome::new(Ending::Succeeded(TaskResult::default()));
        }
        let random = seeded(script.seed, &assign.task_id, assign.attempt);
        let mut play =
            Play { channels, random, environment, attempt: assign.attempt, usage: None, strays: Vec::new() };
        let mut ending = None;
        for step in script.steps {
            ending = play.step(step).await;
            if ending.is_some() {
                break;
            }
        }
        let ending = ending.unwrap_or_else(|| Ending::Succeeded(TaskResult::default()));
        play.finish(ending).await
    }
}

/// What is random is the same for the same seed (or task) and attempt.
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

/// A script that is being done.
struct Play {
    channels: Channels,
    random: StdRng,
    environment: Environment,
    attempt: i32,
    usage: Option<Usage>,
    /// The processes whose strays live until the end.
    strays: Vec<Running>,
}

impl Play {
    /// Does a step; says how the attempt ends if it ends with this step.
    async fn step(&mut self, step: ScriptStep) -> Option<Ending> {
        let happened = match step.kind? {
            Step::Delay(delay) => return self.wait(delay.try_into().unwrap_or_default()).await,
            Step::Jitter(most) => {
                let most: Duration = most.try_into().unwrap_or_default();
                let share = self.random.random::<f64>();
                return self.wait(most.mul_f64(share)).await;
            }
            Step::Progress(fraction) => event::Kind::Progress(Progress { fraction, step: String::new() }),
            Step::Output(line) => event::Kind::Output(Output {
                stream: OutputStream::Stdout.into(),
                data: format!("{line}\n").into(),
                dropped_bytes: 0,
            }),
            Step::Say(text) => {
                event::Kind::Message(AgentMessage { role: MessageRole::Assistant.into(), text })
            }
            Step::Succeed(text) => {
                return Some(Ending::Succeeded(TaskResult { text, ..TaskResult::default() }));
            }
            Step::Fail(fail) => return self.fail(&fail),
            Step::Hang(true) => return Some(self.process(&["hang"]).await),
            Step::Crash(signal) => {
                let signal = if signal == 0 { 9 } else { signal }.to_string();
                return Some(self.process(&["crash", &signal]).await);
            }
            Step::SpawnStray(true) => return self.stray().await,
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
            Step::Hang(false) | Step::SpawnStray(false) | Step::KillWorker(false) => return None,
        };
        self.tell(happened).await
    }

    async fn tell(&mut self, happened: event::Kind) -> Option<Ending> {
        tokio::select! {
            biased;
            // Nobody listening means that the attempt is over anyway.
            _ = self.channels.events.send(happened) => None,
            stop = stopped(&mut self.channels.stop) => Some(interrupted(&stop)),
        }
    }

    async fn wait(&mut self, time: Duration) -> Option<Ending> {
        tokio::select! {
            () = sleep(time) => None,
            stop = stopped(&mut self.channels.stop) => Some(interrupted(&stop)),
        }
    }

    fn fail(&mut self, fail: &ScriptFailure) -> Option<Ending> {
        let spared = fail.attempts > 0 && self.attempt > fail.attempts;
        // Drawn also when spared, so that what follows stays the same.
        let hit = fail.probability.is_none_or(|share| self.random.random::<f64>() < share);
        if spared || !hit {
            return None;
        }
        let name = if fail.class.is_empty() { "agent" } else { &fail.class };
        let class = FailureClass::from_str_name(&format!("FAILURE_CLASS_{}", name.to_uppercase()));
        let message = if fail.message.is_empty() { "the script fails here" } else { &fail.message };
        Some(Ending::Failed(failure(class.unwrap_or(FailureClass::Agent), message)))
    }

    async fn ask(&mut self, prompt: String) -> Option<Ending> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let request = InputRequest {
            request_id: request_id.clone(),
            kind: InputKind::Question.into(),
            prompt,
            ..InputRequest::default()
        };
        if let Some(ending) = self.tell(event::Kind::InputRequest(request)).await {
            return Some(ending);
        }
        loop {
            tokio::select! {
                input = self.channels.inputs.recv() => match input {
                    Some(input) if input.request_id == request_id => return None,
                    // Steering is nothing to a script.
                    Some(_) => {}
                    None => return Some(Ending::Stopped { by: "interrupt" }),
                },
                stop = stopped(&mut self.channels.stop) => return Some(interrupted(&stop)),
            }
        }
    }

    /// Runs a process that ends the attempt, this way or another.
    async fn process(&mut self, step: &[&str]) -> Ending {
        let mut running = match step::start(step, self.environment.clone()).await {
            Ok(running) => running,
            Err(error) => return Ending::Failed(failure(FailureClass::Start, error.to_string())),
        };
        let exit = tokio::select! {
            exit = running.wait() => exit,
            stop = stopped(&mut self.channels.stop) => {
                return match running.end(stop.grace).await {
                    Ok((_, by)) => Ending::Stopped { by: by.as_str() },
                    Err(_) => Ending::Stopped { by: "kill" },
                };
            }
        };
        let (message, signal) = match exit {
            Ok(exit) => match exit.signal {
                Some(signal) => (format!("ended by signal {signal}"), Some(signal)),
                None => ("ended without saying how".to_owned(), None),
            },
            Err(error) => (error.to_string(), None),
        };
        Ending::Failed(rota_proto::v1::Failure { signal, ..failure(FailureClass::Crash, message) })
    }

    async fn stray(&mut self) -> Option<Ending> {
        match step::start(&["stray"], self.environment.clone()).await {
            Ok(running) => {
                self.strays.push(running);
                None
            }
            Err(error) => Some(Ending::Failed(failure(FailureClass::Start, error.to_string()))),
        }
    }

    /// Ends what is left, then tells how it went.
    async fn finish(mut self, ending: Ending) -> Outcome {
        let grace = self.channels.stop.borrow().as_ref().map_or(Duration::from_secs(1), |stop| stop.grace);
        let mut killed = 0;
        for mut running in std::mem::take(&mut self.strays) {
            running.stdin = None;
            killed += running.end(grace).await.map_or(1, |(exit, _)| exit.strays);
        }
        if killed > 0 {
            let text = format!("processes that the script left behind were ended: {killed}");
            let _ = self.channels.events.send(notice(Severity::Low, "strays", text)).await;
        }
        Outcome { ending, usage: self.usage, runtime_session: String::new() }
    }
}

fn interrupted(_: &Stop) -> Ending {
    Ending::Stopped { by: "interrupt" }
}

#[cfg(test)]
mod tests;
