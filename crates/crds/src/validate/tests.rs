//! Every rule, by a manifest that breaks it.

use crate::{Object, parse};

fn violations(kind: &str, meta: &str, spec: &str) -> Vec<String> {
    let text = format!("apiVersion: rota.dev/v1alpha1\nkind: {kind}\nmetadata: {meta}\nspec: {spec}\n");
    let documents = parse("f", &text).unwrap_or_else(|errors| panic!("{text}{errors:?}"));
    documents[0].object.validate().iter().map(ToString::to_string).collect()
}

fn breaks(kind: &str, meta: &str, spec: &str, field: &str, word: &str) {
    let found = violations(kind, meta, spec);
    assert!(
        found.iter().any(|one| one.starts_with(&format!("{field}: ")) && one.contains(word)),
        "{meta} {spec}: {found:?}"
    );
}

#[test]
fn good_ones_pass() {
    for spec in [
        "{}",
        "{prompt: hi, agent: a, priority: URGENT, desiredState: Suspended}",
        "{capabilities: [code, a_b], dependsOn: [{task: x}, {task: z, onFailure: Continue}]}",
        "{workspace: {mode: InPlace, path: /src/app}}",
        "{workspace: {mode: Keep, path: thread-1, git: {url: 'https://host/x.git', ref: main, depth: 1}}}",
        "{runtime: {command: {stdin: ''}}, limits: {timeout: 5m, cancelGrace: 0s, budgetUsd: '0.50'}}",
        "{startTime: '2030-01-01T00:00:00Z', retry: {maxAttempts: 1}, secrets: {A: b}, strict: true}",
    ] {
        assert_eq!(violations("Task", "{name: a, labels: {x.y/z: '', k: V_1}}", spec), [""; 0], "{spec}");
    }
    assert_eq!(violations("Task", "{generateName: build-}", "{}"), [""; 0]);
    let agent = "{runtime: {claude: {}}, replicas: 1, maxReplicas: 3, capabilities: [code]}";
    assert_eq!(violations("Agent", "{name: a, namespace: team-1}", agent), [""; 0]);
}

#[test]
fn metadata() {
    for (meta, field, word) in [
        ("{}", "metadata.name", "missing"),
        ("{name: ''}", "metadata.name", "empty"),
        ("{name: Big}", "metadata.name", "lower-case"),
        ("{name: -a}", "metadata.name", "no name"),
        ("{name: a..b}", "metadata.name", "no name"),
        ("{name: a, generateName: b-}", "metadata", "exclude"),
        ("{generateName: B-}", "metadata.generateName", "no name"),
        ("{name: a, namespace: a.b}", "metadata.namespace", "'.'"),
        ("{name: a, labels: {'a b': c}}", "metadata.labels.a b", "no label"),
        ("{name: a, labels: {A_/x: c}}", "metadata.labels.A_/x", "no name"),
        ("{name: a, labels: {a: -c}}", "metadata.labels.a", "value"),
    ] {
        breaks("Task", meta, "{}", field, word);
    }
    let long = "x".repeat(64);
    breaks("Task", &format!("{{name: {long}}}"), "{}", "metadata.name", "64");
    breaks("Task", &format!("{{name: a, labels: {{k: {long}}}}}"), "{}", "metadata.labels.k", "63");
    breaks(
        "Agent",
        "{generateName: a-}",
        "{runtime: {external: {}}}",
        "metadata.generateName",
        "only a task",
    );
}

#[test]
fn tasks() {
    for (spec, field, word) in [
        ("{agent: a, worker: b}", "spec", "agent and worker exclude"),
        ("{agent: A}", "spec.agent", "no name"),
        ("{worker: a_b}", "spec.worker", "no name"),
        ("{capabilities: ['']}", "spec.capabilities[0]", "no word"),
        ("{capabilities: [a, a]}", "spec.capabilities[1]", "twice"),
        ("{dependsOn: [{task: a}]}", "spec.dependsOn[0].task", "itself"),
        ("{dependsOn: [{task: b}, {task: b}]}", "spec.dependsOn[1].task", "twice"),
        ("{dependsOn: [{task: ''}]}", "spec.dependsOn[0].task", "empty"),
        ("{limits: {timeout: 0s}}", "spec.limits.timeout", "outside"),
        ("{limits: {timeout: 8days}}", "spec.limits.timeout", "7days"),
        ("{limits: {silenceTimeout: 0s}}", "spec.limits.silenceTimeout", "outside"),
        ("{limits: {queueTimeout: 0s}}", "spec.limits.queueTimeout", "outside"),
        ("{limits: {cancelGrace: 2h}}", "spec.limits.cancelGrace", "outside"),
        ("{limits: {maxTurns: -1}}", "spec.limits.maxTurns", "outside"),
        ("{retry: {maxAttempts: 0}}", "spec.retry.maxAttempts", "1 to 100"),
        ("{retry: {maxWorkerLosses: -1}}", "spec.retry.maxWorkerLosses", "outside"),
        ("{retry: {initialBackoff: 0s}}", "spec.retry.initialBackoff", "outside"),
        ("{retry: {initialBackoff: 5s, maxBackoff: 1s}}", "spec.retry.maxBackoff", "below"),
        ("{environment: {1A: x}}", "spec.environment", "no variable"),
        ("{environment: {A: \"\\0\"}}", "spec.environment.A", "zero"),
        ("{environment: {A: x}, secrets: {A: z}}", "spec.secrets.A", "too"),
        ("{workspace: {path: x}}", "spec.workspace.path", "fresh"),
        ("{workspace: {mode: InPlace}}", "spec.workspace.path", "missing"),
        ("{workspace: {mode: InPlace, path: src}}", "spec.workspace.path", "absolute"),
        ("{workspace: {mode: InPlace, path: /a/../b}}", "spec.workspace.path", ".."),
        ("{workspace: {mode: Keep, path: a/b}}", "spec.workspace.path", "no name"),
        ("{workspace: {mode: InPlace, path: /a, git: {url: x}}}", "spec.workspace", "exclude"),
        ("{workspace: {git: {url: ''}}}", "spec.workspace.git.url", "empty"),
        ("{workspace: {git: {url: --upload-pack=x}}}", "spec.workspace.git.url", "'-'"),
        ("{workspace: {git: {url: 'https://u:p@host/x'}}}", "spec.workspace.git.url", "password"),
        ("{workspace: {git: {url: x, ref: -f}}}", "spec.workspace.git.ref", "no branch"),
        ("{workspace: {git: {url: x, depth: -1}}}", "spec.workspace.git.depth", "outside"),
        ("{runtime: {claude: {}, command: {}}}", "spec.runtime", "claude and command"),
        ("{runtime: {claude: {allowedTools: ['']}}}", "spec.runtime.claude.allowedTools[0]", "empty"),
        ("{runtime: {command: {argv: [a], shell: b}}}", "spec.runtime.command", "argv and shell"),
        ("{runtime: {command: {argv: ['']}}}", "spec.runtime.command.argv[0]", "empty"),
        ("{runtime: {command: {retryExitCodes: [256]}}}", "spec.runtime.command.retryExitCodes[0]", "255"),
        ("{runtime: {command: {fatalExitCodes: [0]}}}", "spec.runtime.command.fatalExitCodes[0]", "255"),
        ("{runtime: {scripted: {steps: [{}]}}}", "spec.runtime.scripted.steps[0]", "empty"),
        (
            "{runtime: {scripted: {steps: [{say: a, hang: true}]}}}",
            "spec.runtime.scripted.steps[0]",
            "say and hang",
        ),
        (
            "{runtime: {scripted: {steps: [{progress: 1.5}]}}}",
            "spec.runtime.scripted.steps[0].progress",
            "outside",
        ),
        ("{runtime: {scripted: {steps: [{crash: 0}]}}}", "spec.runtime.scripted.steps[0].crash", "outside"),
        (
            "{runtime: {scripted: {steps: [{fail: {probability: 2}}]}}}",
            "spec.runtime.scripted.steps[0].fail.probability",
            "outside",
        ),
        (
            "{runtime: {scripted: {steps: [{fail: {attempts: -1}}]}}}",
            "spec.runtime.scripted.steps[0].fail.attempts",
            "outside",
        ),
        (
            "{runtime: {scripted: {steps: [{usage: {inputTokens: -1}}]}}}",
            "spec.runtime.scripted.steps[0].usage.inputTokens",
            "outside",
        ),
        ("{parentTask: A}", "spec.parentTask", "no name"),
        ("{secretNames: [A-B]}", "spec.secretNames[0]", "no variable"),
        ("{secretNames: [A, A]}", "spec.secretNames[1]", "twice"),
        ("{ttlAfterFinished: 9years}", "spec.ttlAfterFinished", "outside"),
        ("{isolation: Pod, worker: a}", "spec.isolation", "needs an agent"),
        ("{podOverrides: {}}", "spec.podOverrides", "need isolation Pod"),
        (
            "{isolation: Pod, podOverrides: {tolerations: [{tolerationSeconds: soon}]}}",
            "spec.podOverrides.tolerations[0]",
            "soon",
        ),
    ] {
        breaks("Task", "{name: a}", spec, field, word);
    }
}

#[test]
fn sizes() {
    let of = |bytes: usize| "x".repeat(bytes);
    breaks("Task", "{name: a}", &format!("{{title: {}}}", of(513)), "spec.title", "513");
    breaks("Task", "{name: a}", &format!("{{prompt: {}}}", of(1024 * 1024 + 1)), "spec.prompt", "more than");
    breaks("Task", "{name: a}", &format!("{{owner: {}}}", of(257)), "spec.owner", "257");
    breaks(
        "Task",
        "{name: a}",
        &format!("{{environment: {{A: {}}}}}", of(256 * 1024)),
        "spec.environment",
        "256 KiB",
    );
    let many =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let list = many(33, &|n| format!("c{n}"));
    breaks("Task", "{name: a}", &format!("{{capabilities: [{list}]}}"), "spec.capabilities", "32");
    let list = many(257, &|n| format!("{{task: t{n}}}"));
    breaks("Task", "{name: a}", &format!("{{dependsOn: [{list}]}}"), "spec.dependsOn", "256");
}

#[test]
fn agents() {
    for (spec, field, word) in [
        ("{runtime: {}}", "spec.runtime", "is needed"),
        ("{runtime: {external: {}}, slots: 0}", "spec.slots", "1 to 64"),
        ("{runtime: {external: {}}, slots: 65}", "spec.slots", "1 to 64"),
        ("{runtime: {external: {}}, replicas: -1}", "spec.replicas", "outside"),
        ("{runtime: {external: {}}, replicas: 3, maxReplicas: 2}", "spec.maxReplicas", "below"),
        ("{runtime: {external: {}}, spareWorkers: -1}", "spec.spareWorkers", "outside"),
        ("{runtime: {external: {}}, idleTimeout: 8days}", "spec.idleTimeout", "outside"),
        ("{runtime: {external: {}}, capabilities: ['a b']}", "spec.capabilities[0]", "no word"),
        ("{runtime: {external: {}}, defaultLimits: {timeout: 0s}}", "spec.defaultLimits.timeout", "outside"),
        ("{runtime: {external: {}}, workspace: {mode: InPlace}}", "spec.workspace.path", "missing"),
        ("{runtime: {external: {}}, environment: {A-B: x}}", "spec.environment", "no variable"),
        ("{runtime: {external: {}}, maxReplicas: 1, spareWorkers: 2}", "spec.spareWorkers", "more than"),
        (
            "{runtime: {external: {}}, secrets: [{name: 1A, secretName: s, key: k}]}",
            "spec.secrets[0].name",
            "no variable",
        ),
        (
            "{runtime: {external: {}}, secrets: [{name: A, secretName: s, key: k}, {name: A, secretName: s, key: l}]}",
            "spec.secrets[1].name",
            "twice",
        ),
        (
            "{runtime: {external: {}}, secrets: [{name: A, secretName: S, key: k}]}",
            "spec.secrets[0].secretName",
            "no name",
        ),
        (
            "{runtime: {external: {}}, secrets: [{name: A, secretName: s, key: a/b}]}",
            "spec.secrets[0].key",
            "no key",
        ),
        ("{runtime: {external: {}}, pod: {resources: {limits: 1}}}", "spec.pod.resources", "map"),
        ("{runtime: {external: {}}, pod: {volumes: [{emptyDir: {}}]}}", "spec.pod.volumes[0].name", "empty"),
        (
            "{runtime: {external: {}}, pod: {volumes: [{name: rota-x, emptyDir: {}}]}}",
            "spec.pod.volumes[0].name",
            "rota-",
        ),
        (
            "{runtime: {external: {}}, pod: {volumeMounts: [{name: a, mountPath: /var/run/rota/secrets}]}}",
            "spec.pod.volumeMounts[0].mountPath",
            "own place",
        ),
        (
            "{runtime: {external: {}}, pod: {labels: {rota.dev/agent: x}}}",
            "spec.pod.labels.rota.dev/agent",
            "operator",
        ),
        ("{runtime: {external: {}}, pod: {serviceAccountName: A}}", "spec.pod.serviceAccountName", "no name"),
        (
            "{runtime: {external: {}}, pod: {terminationGracePeriod: 8days}}",
            "spec.pod.terminationGracePeriod",
            "outside",
        ),
    ] {
        breaks("Agent", "{name: a}", spec, field, word);
    }
}

#[test]
fn debug_tells_no_secret() {
    let text =
        "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {name: a}\nspec: {secrets: {A: hidden}}\n";
    let documents = parse("f", text).unwrap();
    let Object::Task(task) = &documents[0].object else { panic!("a task") };
    assert_eq!(task.spec.secrets["A"], "hidden");
    let shown = format!("{task:?}");
    assert!(shown.contains("\"A\"") && !shown.contains("hidden"), "{shown}");
}
