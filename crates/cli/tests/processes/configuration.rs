//! `rota admin export-configuration` and `import-configuration`: what one control plane was set to, another one is set to.

use anyhow::Result;
use pbjson_types::FieldMask;
use rota_proto::labels::CLUSTER;
use rota_proto::v1::{
    Agent, AgentSpec, CommandRuntime, GetScheduleRequest, Runtime, Schedule, ScheduleSpec,
    UpdateAgentRequest, UpdateScheduleRequest, runtime,
};
use serde_json::Value;

use crate::{Fixture, Graces, workload};

const WORD: &str = "correct horse battery staple";
const SCHEDULE: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Schedule
metadata: {name: yearly, labels: {team: a}}
spec:
  cron: \"0 3 1 1 *\"
  task:
    agent: shell
    prompt: The prompt of the schedule
    runtime: {command: {shell: 'printf %s \"$WORD\" | wc -c'}}
    secrets: {WORD: correct horse battery staple}
";
const TEMPLATE: &str = "\
apiVersion: rota.dev/v1alpha1
kind: WorkflowTemplate
metadata: {name: deploy, namespace: team-c}
spec:
  description: Deploys
  parameters: [{name: image, schema: {type: string}, default: x}]
  workflow: {steps: [{name: first, task: {prompt: '${{ inputs.image }}'}}]}
";

/// Exports the configuration of a control plane to a file.
async fn export(fixture: &Fixture, file: &str) -> Result<String> {
    fixture.rota(&["admin", "export-configuration", file]).await.success();
    Ok(std::fs::read_to_string(fixture.dir().join(file))?)
}

async fn is_paused(fixture: &Fixture) -> Result<Option<bool>> {
    let name = "namespaces/default/schedules/yearly".to_owned();
    let schedule = fixture.client()?.get_schedule(GetScheduleRequest { name }).await?;
    Ok(schedule.spec.and_then(|spec| spec.paused))
}

#[tokio::test]
async fn configuration_moves_without_values_of_secrets() -> Result<()> {
    let first = Fixture::start(Graces::LONG).await?;
    workload::agent(&first.client()?).await?;
    let rules = AgentSpec { permission_rules: vec!["Bash(ls:*)".to_owned()], ..Default::default() };
    let request = UpdateAgentRequest {
        agent: Some(Agent {
            name: "namespaces/default/agents/shell".to_owned(),
            spec: Some(rules),
            ..Default::default()
        }),
        update_mask: Some(FieldMask { paths: vec!["spec.permission_rules".to_owned()] }),
        ..Default::default()
    };
    first.client()?.update_agent(request).await?;
    first.rota(&["-n", "team-a", "admin", "set-budget", "--daily-usd", "50"]).await.success();
    std::fs::write(first.dir().join("kind.yaml"), "description: Notes\n")?;
    first.rota(&["-n", "team-b", "kind", "apply", "notes", "-f", "kind.yaml"]).await.success();
    first.apply("template.yaml", TEMPLATE).await.success();
    first.apply("schedule.yaml", SCHEDULE).await.success();
    let exported = export(&first, "first.json").await?;
    assert!(!exported.contains(WORD), "{exported}");
    let document: Value = serde_json::from_str(&exported)?;
    for kind in ["budgets", "agents", "kinds", "templates", "schedules"] {
        assert_eq!(document[kind].as_array().map(Vec::len), Some(1), "{kind}: {document}");
    }

    let mut second = Fixture::start(Graces::LONG).await?;
    std::fs::write(second.dir().join("first.json"), &exported)?;
    second.rota(&["admin", "import-configuration", "first.json", "--dry-run"]).await.success();
    let before: Value = serde_json::from_str(&export(&second, "before.json").await?)?;
    assert_eq!(before["agents"], Value::Array(Vec::new()), "a dry run changes nothing");
    let imported = second.rota(&["admin", "import-configuration", "first.json"]).await;
    assert!(imported.code == 0 && imported.err.contains("--secret-env WORD"), "{imported:?}");
    assert_eq!(is_paused(&second).await?, Some(true));

    second.environment.push(("WORD", WORD.to_owned()));
    let import = ["admin", "import-configuration", "first.json", "--secret-env", "WORD"];
    second.rota(&import).await.success();
    assert_eq!(export(&second, "second.json").await?, exported);
    // What is the same keeps its secrets, also where they are not given again.
    let again = second.rota(&["admin", "import-configuration", "first.json"]).await;
    assert!(again.code == 0 && !again.err.contains("--secret-env"), "{again:?}");
    assert_eq!(export(&second, "third.json").await?, exported);
    // Nor does one lose them that has changed.
    std::fs::write(second.dir().join("changed.json"), exported.replace("0 3 1 1 *", "0 4 1 1 *"))?;
    let kept = second.rota(&["admin", "import-configuration", "changed.json"]).await;
    assert!(kept.code == 0 && kept.err.contains("--secret-env WORD"), "{kept:?}");
    assert_eq!(export(&second, "fourth.json").await?, exported);
    let _worker = second.worker(workload::AGENT, "one", 1).await?;
    let run = second.rota(&["schedule", "run", "yearly", "-o", "json"]).await.json();
    let name = run["name"].as_str().unwrap_or_else(|| panic!("{run}"));
    rota_testkit::tasks::ended(&second.client()?, name).await?;
    let printed = workload::printed(&second.client()?, name).await?;
    assert_eq!(printed.trim(), WORD.len().to_string());
    Ok(())
}

/// What belongs to a cluster is left out, and what names objects of the file is not refused by a dry run.
#[tokio::test]
async fn a_refused_object_keeps_no_other_out() -> Result<()> {
    let first = Fixture::start(Graces::LONG).await?;
    workload::agent(&first.client()?).await?;
    std::fs::write(first.dir().join("kind.yaml"), "description: Notes\n")?;
    first.rota(&["kind", "apply", "notes", "-f", "kind.yaml"]).await.success();
    let mut task = rota_testkit::tasks::task(workload::AGENT);
    task.spec.get_or_insert_default().kind = "notes".to_owned();
    let task = Some(task);
    let request = UpdateScheduleRequest {
        schedule: Some(Schedule {
            name: "namespaces/default/schedules/yearly".to_owned(),
            spec: Some(ScheduleSpec { cron: "0 3 1 1 *".to_owned(), task, ..Default::default() }),
            ..Default::default()
        }),
        allow_missing: true,
        ..Default::default()
    };
    first.client()?.update_schedule(request).await?;
    let exported = export(&first, "first.json").await?;

    let second = Fixture::start(Graces::LONG).await?;
    std::fs::write(second.dir().join("first.json"), &exported)?;
    let import = ["admin", "import-configuration", "first.json"];
    let dry_run = second.rota(&[&import[..], &["--dry-run"]].concat()).await;
    assert!(
        dry_run.code == 0 && dry_run.err.contains("schedules/yearly is checked by the import alone"),
        "{dry_run:?}"
    );
    // Names of a file do not reach the terminal as they are.
    std::fs::write(
        second.dir().join("odd.json"),
        exported.replace("schedules/yearly", r"schedules/year\u001bly"),
    )?;
    let odd = second.rota(&["admin", "import-configuration", "odd.json", "--dry-run"]).await;
    assert!(odd.err.contains("is checked by the import alone") && !odd.err.contains('\u{1b}'), "{odd:?}");
    let runtime = Some(Runtime { kind: Some(runtime::Kind::Command(CommandRuntime::default())) });
    let managed = UpdateAgentRequest {
        agent: Some(Agent {
            name: "namespaces/default/agents/shell".to_owned(),
            labels: [(CLUSTER.to_owned(), "c1".to_owned())].into(),
            spec: Some(AgentSpec { runtime, ..Default::default() }),
            ..Default::default()
        }),
        update_mask: Some(FieldMask { paths: vec!["labels".to_owned(), "spec".to_owned()] }),
        allow_missing: true,
        ..Default::default()
    };
    second.client()?.update_agent(managed).await?;
    let imported = second.rota(&import).await;
    assert_eq!(imported.code, 1, "{imported:?}");
    for part in
        ["2 objects imported, 1 refused", "REASON", "namespaces/default/agents/shell", "Kubernetes cluster"]
    {
        assert!(imported.out.contains(part), "no {part}: {imported:?}");
    }
    let json = second.rota(&[&import[..], &["-o", "json"]].concat()).await;
    let document: Value = serde_json::from_str(&json.out)?;
    assert_eq!(
        (json.code, &document["refused"][0]["name"]),
        (1, &Value::from("namespaces/default/agents/shell"))
    );
    // The others are there; a fault of an object itself is found by a dry run, too.
    let after: Value = serde_json::from_str(&export(&second, "second.json").await?)?;
    let before: Value = serde_json::from_str(&exported)?;
    assert_eq!((&after["kinds"], &after["schedules"]), (&before["kinds"], &before["schedules"]));
    std::fs::write(second.dir().join("first.json"), exported.replace("0 3 1 1 *", "0 99 1 1 *"))?;
    let dry_run = second.rota(&[&import[..], &["--dry-run"]].concat()).await;
    assert!(dry_run.code == 1 && dry_run.out.contains("namespaces/default/schedules/yearly"), "{dry_run:?}");
    Ok(())
}

#[tokio::test]
async fn other_files_are_no_configuration() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    for (text, words) in [
        ("{}", "missing field"),
        (
            r#"{"format": "x/v9", "budgets": [], "agents": [], "kinds": [], "templates": [], "schedules": []}"#,
            "x/v9",
        ),
    ] {
        std::fs::write(fixture.dir().join("file.json"), text)?;
        let refused = fixture.rota(&["admin", "import-configuration", "file.json"]).await;
        refused.failed(2, &["file.json is not a configuration", words]);
    }
    Ok(())
}
