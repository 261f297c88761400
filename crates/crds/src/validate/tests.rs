//! Every rule, with a manifest that violates it.

mod pod;

use crate::{Object, parse};

fn violations(kind: &str, meta: &str, spec: &str) -> Vec<String> {
    let text = format!("apiVersion: rota.dev/v1alpha1\nkind: {kind}\nmetadata: {meta}\nspec: {spec}\n");
    let documents = parse("f", &text).unwrap_or_else(|errors| panic!("{text}{errors:?}"));
    documents[0].object.validate().iter().map(ToString::to_string).collect()
}

fn assert_violation(kind: &str, meta: &str, spec: &str, field: &str, word: &str) {
    let found = violations(kind, meta, spec);
    assert!(
        found
            .iter()
            .any(|violation| violation.starts_with(&format!("{field}: ")) && violation.contains(word)),
        "{meta} {spec}: {found:?}"
    );
}

#[test]
fn valid_manifests_have_no_violations() {
    for spec in [
        "{}",
        "{prompt: hi, agent: a, priority: URGENT, desiredState: Suspended}",
        "{capabilities: [code, a_b], dependsOn: [{task: x}, {task: z, onFailure: Continue}]}",
        "{workspace: {mode: InPlace, path: /src/app}}",
        "{workspace: {mode: Keep, path: thread-1, git: {url: 'https://host/x.git', ref: main, depth: 1}}}",
        "{workspace: {git: {url: x, refFrom: z}}, dependsOn: [{task: z}]}",
        "{workspace: {git: {url: 'https://host/o/x.git', push: {pullRequest: {provider: Gitea, draft: true, labels: [a b], tokenFrom: T}}}}}",
        "{runtime: {command: {stdin: ''}}, limits: {timeout: 5m, cancelGrace: 0s, budgetUsd: '0.50'}}",
        "{startTime: '2030-01-01T00:00:00Z', retry: {maxAttempts: 1}, secrets: {A: b}, strict: true}",
    ] {
        assert_eq!(violations("Task", "{name: a, labels: {x.y/z: '', k: V_1}}", spec), [""; 0], "{spec}");
    }
    assert_eq!(violations("Task", "{generateName: build-}", "{}"), [""; 0]);
    let agent = "{runtime: {claude: {}}, replicas: 1, maxReplicas: 3, capabilities: [code]}";
    assert_eq!(violations("Agent", "{name: a, namespace: team-1}", agent), [""; 0]);
    let budget = "{runtime: {external: {}}, budget: {dailyUsd: '0.50', whenExhausted: Refuse}}";
    assert_eq!(violations("Agent", "{name: a}", budget), [""; 0]);
}

#[test]
fn empty_budget_is_reported() {
    for budget in ["{}", "{dailyUsd: '0'}", "{dailyUsd: '1', monthlyUsd: '0'}"] {
        let spec = format!("{{runtime: {{external: {{}}}}, budget: {budget}}}");
        assert_violation("Agent", "{name: a}", &spec, "spec.budget", "above 0");
    }
}

#[test]
fn invalid_metadata_is_reported() {
    for (meta, field, word) in [
        ("{}", "metadata.name", "required"),
        ("{name: ''}", "metadata.name", "empty"),
        ("{name: Big}", "metadata.name", "lower-case"),
        ("{name: -a}", "metadata.name", "not a valid name"),
        ("{name: a..b}", "metadata.name", "not a valid name"),
        ("{name: a, generateName: b-}", "metadata", "exclusive"),
        ("{generateName: B-}", "metadata.generateName", "not a valid name"),
        ("{name: a, namespace: a.b}", "metadata.namespace", "'.'"),
        ("{name: a, labels: {'a b': c}}", "metadata.labels.a b", "not a valid label"),
        ("{name: a, labels: {A_/x: c}}", "metadata.labels.A_/x", "not a valid name"),
        ("{name: a, labels: {a: -c}}", "metadata.labels.a", "value"),
    ] {
        assert_violation("Task", meta, "{}", field, word);
    }
    let long = "x".repeat(64);
    assert_violation("Task", &format!("{{name: {long}}}"), "{}", "metadata.name", "64");
    assert_violation("Task", &format!("{{name: a, labels: {{k: {long}}}}}"), "{}", "metadata.labels.k", "63");
    assert_violation(
        "Agent",
        "{generateName: a-}",
        "{runtime: {external: {}}}",
        "metadata.generateName",
        "tasks only",
    );
}

#[test]
fn invalid_tasks_are_reported() {
    for (spec, field, word) in [
        ("{agent: a, worker: b}", "spec", "agent and worker are mutually exclusive"),
        ("{agent: A}", "spec.agent", "not a valid name"),
        ("{worker: a_b}", "spec.worker", "not a valid name"),
        ("{capabilities: ['']}", "spec.capabilities[0]", "not a valid capability"),
        ("{capabilities: [a, a]}", "spec.capabilities[1]", "duplicate"),
        ("{dependsOn: [{task: a}]}", "spec.dependsOn[0].task", "itself"),
        ("{dependsOn: [{task: b}, {task: b}]}", "spec.dependsOn[1].task", "duplicate"),
        ("{dependsOn: [{task: ''}]}", "spec.dependsOn[0].task", "empty"),
        ("{limits: {timeout: 0s}}", "spec.limits.timeout", "must be between"),
        ("{limits: {timeout: 8days}}", "spec.limits.timeout", "7days"),
        ("{limits: {silenceTimeout: 0s}}", "spec.limits.silenceTimeout", "must be between"),
        ("{limits: {queueTimeout: 0s}}", "spec.limits.queueTimeout", "must be between"),
        ("{limits: {queueTimeout: 8days}}", "spec.limits.queueTimeout", "7days"),
        ("{limits: {cancelGrace: 2h}}", "spec.limits.cancelGrace", "must be between"),
        ("{limits: {maxTurns: -1}}", "spec.limits.maxTurns", "must be between"),
        ("{retry: {maxAttempts: 0}}", "spec.retry.maxAttempts", "between 1 and 100"),
        ("{retry: {maxWorkerLosses: -1}}", "spec.retry.maxWorkerLosses", "must be between"),
        ("{retry: {initialBackoff: 0s}}", "spec.retry.initialBackoff", "must be between"),
        ("{retry: {initialBackoff: 5s, maxBackoff: 1s}}", "spec.retry.maxBackoff", "below"),
        ("{setup: [{argv: []}]}", "spec.setup[0].argv", "program"),
        ("{setup: [{argv: [x], timeout: 25h}]}", "spec.setup[0].timeout", "must be between"),
        ("{setup: [{argv: [x], secrets: [1A]}]}", "spec.setup[0].secrets[0]", "variable"),
        ("{doneWhen: {commands: []}}", "spec.doneWhen.commands", "empty"),
        (
            "{doneWhen: {commands: [{argv: [x]}], maxRounds: 21}}",
            "spec.doneWhen.maxRounds",
            "must be between",
        ),
        (
            "{doneWhen: {commands: [{argv: [x]}], pinnedFiles: [/x]}}",
            "spec.doneWhen.pinnedFiles[0]",
            "within",
        ),
        ("{environment: {1A: x}}", "spec.environment", "not a valid variable name"),
        ("{environment: {A: \"\\0\"}}", "spec.environment.A", "NUL"),
        ("{environment: {A: x}, secrets: {A: z}}", "spec.secrets.A", "also"),
        ("{workspace: {path: x}}", "spec.workspace.path", "fresh"),
        ("{workspace: {mode: InPlace}}", "spec.workspace.path", "required"),
        ("{workspace: {mode: InPlace, path: src}}", "spec.workspace.path", "absolute"),
        ("{workspace: {mode: InPlace, path: /a/../b}}", "spec.workspace.path", ".."),
        ("{workspace: {mode: Keep, path: a/b}}", "spec.workspace.path", "not a valid name"),
        ("{workspace: {mode: InPlace, path: /a, git: {url: x}}}", "spec.workspace", "exclusive"),
        ("{workspace: {git: {url: ''}}}", "spec.workspace.git.url", "empty"),
        ("{workspace: {git: {url: x, refFrom: z}}}", "spec.workspace.git.refFrom", "dependsOn"),
        (
            "{workspace: {git: {url: x, ref: main, refFrom: z}}, dependsOn: [{task: z}]}",
            "spec.workspace.git",
            "with ref",
        ),
        (
            "{workspace: {git: {url: x, push: {pullRequest: {tokenFrom: 1-x}}}}}",
            "spec.workspace.git.push.pullRequest.tokenFrom",
            "",
        ),
        ("{workspace: {git: {url: --upload-pack=x}}}", "spec.workspace.git.url", "'-'"),
        ("{workspace: {git: {url: 'https://u:p@host/x'}}}", "spec.workspace.git.url", "password"),
        ("{workspace: {git: {url: x, ref: -f}}}", "spec.workspace.git.ref", "must be a branch"),
        ("{workspace: {git: {url: x, depth: -1}}}", "spec.workspace.git.depth", "must be between"),
        ("{runtime: {claude: {}, command: {}}}", "spec.runtime", "claude and command"),
        ("{runtime: {claude: {allowedTools: ['']}}}", "spec.runtime.claude.allowedTools[0]", "empty"),
        (
            "{runtime: {claude: {projectMcpServers: true}}}",
            "spec.runtime.claude.projectMcpServers",
            "sources",
        ),
        ("{runtime: {claude: {extraArgs: [--model=x]}}}", "spec.runtime.claude.extraArgs[0]", "Rota sets"),
        ("{runtime: {command: {argv: [a], shell: b}}}", "spec.runtime.command", "argv and shell"),
        ("{runtime: {command: {argv: ['']}}}", "spec.runtime.command.argv[0]", "empty"),
        ("{runtime: {command: {retryExitCodes: [256]}}}", "spec.runtime.command.retryExitCodes[0]", "255"),
        ("{runtime: {command: {fatalExitCodes: [0]}}}", "spec.runtime.command.fatalExitCodes[0]", "255"),
        ("{runtime: {scripted: {steps: [{}]}}}", "spec.runtime.scripted.steps[0]", "empty"),
        (
            "{runtime: {scripted: {steps: [{message: a, hang: true}]}}}",
            "spec.runtime.scripted.steps[0]",
            "message and hang",
        ),
        (
            "{runtime: {scripted: {steps: [{progress: 1.5}]}}}",
            "spec.runtime.scripted.steps[0].progress",
            "must be between",
        ),
        (
            "{runtime: {scripted: {steps: [{crash: 0}]}}}",
            "spec.runtime.scripted.steps[0].crash",
            "must be between",
        ),
        (
            "{runtime: {scripted: {steps: [{fail: {probability: 2}}]}}}",
            "spec.runtime.scripted.steps[0].fail.probability",
            "must be between",
        ),
        (
            "{runtime: {scripted: {steps: [{fail: {attempts: -1}}]}}}",
            "spec.runtime.scripted.steps[0].fail.attempts",
            "must be between",
        ),
        (
            "{runtime: {scripted: {steps: [{usage: {inputTokens: -1}}]}}}",
            "spec.runtime.scripted.steps[0].usage.inputTokens",
            "must be between",
        ),
        ("{parentTask: before}", "spec.parentTask", "must be a task's id"),
        ("{continueFrom: A}", "spec.continueFrom", "not a valid name"),
        ("{thread: A}", "spec.thread", "not a valid name"),
        ("{thread: a, continueFrom: b}", "spec.thread", "excludes"),
        ("{fork: true}", "spec.fork", "requires continueFrom"),
        ("{secretNames: [A-B]}", "spec.secretNames[0]", "not a valid variable name"),
        ("{secretNames: [A, A]}", "spec.secretNames[1]", "duplicate"),
        ("{ttlAfterFinished: 9years}", "spec.ttlAfterFinished", "must be between"),
        ("{isolation: Pod, worker: a}", "spec.isolation", "requires an agent"),
        ("{podOverrides: {}}", "spec.podOverrides", "requires isolation Pod"),
        (
            "{isolation: Pod, podOverrides: {tolerations: [{tolerationSeconds: soon}]}}",
            "spec.podOverrides.tolerations[0]",
            "soon",
        ),
    ] {
        assert_violation("Task", "{name: a}", spec, field, word);
    }
}

#[test]
fn texts_have_the_limits_of_requests() {
    // Bytes, not characters.
    let text = "ä".repeat(rota_proto::limits::TITLE_BYTES / 2 + 1);
    for field in ["title", "owner"] {
        let spec = format!("{{{field}: {text}}}");
        assert_violation("Task", "{name: a}", &spec, &format!("spec.{field}"), "at most 256 bytes");
    }
    let spec = format!("{{runtime: {{external: {{}}}}, description: {text}}}");
    assert_violation("Agent", "{name: a}", &spec, "spec.description", "at most 256 bytes");
}

#[test]
fn task_gets_no_rights_of_pods() {
    for kind in [
        "secret: {secretName: any}",
        "hostPath: {path: /}",
        "projected: {sources: [{serviceAccountToken: {path: t}}]}",
        "csi: {driver: d}",
        "nfs: {server: s, path: /}",
        "persistentVolumeClaim: {claimName: rota-data}",
        "configMap: {name: rota}",
    ] {
        let spec = format!("{{agent: a, isolation: Pod, podOverrides: {{volumes: [{{name: v, {kind}}}]}}}}");
        let name = kind.split(':').next().unwrap();
        let field = format!("spec.podOverrides.volumes[0].{name}");
        assert_violation("Task", "{name: a}", &spec, &field, "only the agent's spec.pod may have");
    }
    let mount =
        "{agent: a, isolation: Pod, podOverrides: {volumeMounts: [{name: rota-token, mountPath: /mine}]}}";
    assert_violation("Task", "{name: a}", mount, "spec.podOverrides.volumeMounts[0].name", "reserved");
    for (path, word) in [
        ("/var", "reserved"),
        ("/var/run", "reserved"),
        ("/run/rota/token", "reserved"),
        ("/", "reserved"),
        ("/mnt/../var", ".."),
        ("/mnt/$(HOME)", "must not contain $"),
        ("/usr/local/bin", "directory of the system"),
        ("/etc/ssl", "directory of the system"),
    ] {
        let spec = format!(
            "{{agent: a, isolation: Pod, podOverrides: {{volumeMounts: [{{name: v, mountPath: {path}}}]}}}}"
        );
        assert_violation("Task", "{name: a}", &spec, "spec.podOverrides.volumeMounts[0].mountPath", word);
    }
    for path in ["/scratch", "/mnt/data", "/workspace"] {
        let spec = format!(
            "{{agent: a, isolation: Pod, podOverrides: {{volumeMounts: [{{name: v, mountPath: {path}}}]}}}}"
        );
        let task =
            format!("apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: a}}\nspec: {spec}\n");
        assert!(crate::parse("task.yaml", &task).is_ok(), "{path}");
    }
}

#[test]
fn excessive_sizes_are_reported() {
    let of = |bytes: usize| "x".repeat(bytes);
    assert_violation("Task", "{name: a}", &format!("{{title: {}}}", of(513)), "spec.title", "513");
    assert_violation(
        "Task",
        "{name: a}",
        &format!("{{prompt: {}}}", of(1024 * 1024 + 1)),
        "spec.prompt",
        "at most",
    );
    assert_violation("Task", "{name: a}", &format!("{{owner: {}}}", of(257)), "spec.owner", "257");
    assert_violation(
        "Task",
        "{name: a}",
        &format!("{{environment: {{A: {}}}}}", of(256 * 1024)),
        "spec.environment",
        "256 KiB",
    );
    let many =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let list = many(33, &|n| format!("c{n}"));
    assert_violation("Task", "{name: a}", &format!("{{capabilities: [{list}]}}"), "spec.capabilities", "32");
    let list = many(257, &|n| format!("{{task: t{n}}}"));
    assert_violation("Task", "{name: a}", &format!("{{dependsOn: [{list}]}}"), "spec.dependsOn", "256");
}

#[test]
fn invalid_agents_are_reported() {
    for (spec, field, word) in [
        ("{runtime: {}}", "spec.runtime", "is required"),
        ("{runtime: {external: {}}, slots: 0}", "spec.slots", "between 1 and 64"),
        ("{runtime: {external: {}}, slots: 65}", "spec.slots", "between 1 and 64"),
        ("{runtime: {external: {}}, replicas: -1}", "spec.replicas", "must be between"),
        ("{runtime: {external: {}}, replicas: 3, maxReplicas: 2}", "spec.maxReplicas", "below"),
        ("{runtime: {external: {}}, spareWorkers: -1}", "spec.spareWorkers", "must be between"),
        ("{runtime: {external: {}}, idleTimeout: 8days}", "spec.idleTimeout", "must be between"),
        (
            "{runtime: {external: {}}, capabilities: ['a b']}",
            "spec.capabilities[0]",
            "not a valid capability",
        ),
        (
            "{runtime: {external: {}}, defaultLimits: {timeout: 0s}}",
            "spec.defaultLimits.timeout",
            "must be between",
        ),
        ("{runtime: {external: {}}, workspace: {mode: InPlace}}", "spec.workspace.path", "required"),
        ("{runtime: {external: {}}, environment: {A-B: x}}", "spec.environment", "not a valid variable name"),
        ("{runtime: {external: {}}, maxReplicas: 1, spareWorkers: 2}", "spec.spareWorkers", "above"),
        (
            "{runtime: {external: {}}, secrets: [{name: 1A, secretName: s, key: k}]}",
            "spec.secrets[0].name",
            "not a valid variable name",
        ),
        (
            "{runtime: {external: {}}, secrets: [{name: A, secretName: s, key: k}, {name: A, secretName: s, key: l}]}",
            "spec.secrets[1].name",
            "duplicate",
        ),
        (
            "{runtime: {external: {}}, secrets: [{name: A, secretName: S, key: k}]}",
            "spec.secrets[0].secretName",
            "not a valid name",
        ),
        (
            "{runtime: {external: {}}, secrets: [{name: A, secretName: s, key: a/b}]}",
            "spec.secrets[0].key",
            "not a valid key",
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
            "reserved",
        ),
        (
            "{runtime: {external: {}}, pod: {volumeMounts: [{name: a, mountPath: /tmp}]}}",
            "spec.pod.volumeMounts[0].mountPath",
            "reserved",
        ),
        (
            "{runtime: {external: {}}, pod: {volumeMounts: [{name: rota-token, mountPath: /mine}]}}",
            "spec.pod.volumeMounts[0].name",
            "reserved",
        ),
        (
            "{runtime: {external: {}}, pod: {labels: {rota.dev/agent: x}}}",
            "spec.pod.labels.rota.dev/agent",
            "operator",
        ),
        (
            "{runtime: {external: {}}, pod: {serviceAccountName: A}}",
            "spec.pod.serviceAccountName",
            "not a valid name",
        ),
        (
            "{runtime: {external: {}}, pod: {terminationGracePeriod: 8days}}",
            "spec.pod.terminationGracePeriod",
            "must be between",
        ),
        (
            "{runtime: {external: {}}, pod: {network: {egress: Listed, allow: [{too: []}]}}}",
            "spec.pod.network.allow[0].too",
            "no field of Kubernetes",
        ),
        (
            "{runtime: {external: {}}, pod: {network: {egress: Any, allow: [{}]}}}",
            "spec.pod.network",
            "no policy",
        ),
    ] {
        assert_violation("Agent", "{name: a}", spec, field, word);
    }
}

#[test]
fn debug_output_hides_secrets() {
    let text =
        "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {name: a}\nspec: {secrets: {A: hidden}}\n";
    let documents = parse("f", text).unwrap();
    let Object::Task(task) = &documents[0].object else { panic!("a task") };
    assert_eq!(task.spec.secrets["A"], "hidden");
    let shown = format!("{task:?}");
    assert!(shown.contains("\"A\"") && !shown.contains("hidden"), "{shown}");
}
