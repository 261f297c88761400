//! Templates of workflows: versions and their removal.

use anyhow::Result;
use rota_proto::v1;
use rota_testkit::{Backend, Cluster, tasks};

const NAME: &str = "namespaces/default/templates/deploy";

fn template(step: &str) -> v1::WorkflowTemplate {
    let steps = vec![v1::WorkflowStep { name: step.to_owned(), ..Default::default() }];
    let workflow = Some(v1::WorkflowSpec { steps, ..Default::default() });
    let spec = v1::WorkflowTemplateSpec { workflow, ..Default::default() };
    v1::WorkflowTemplate { name: NAME.to_owned(), spec: Some(spec), ..Default::default() }
}

#[tokio::test]
async fn each_change_adds_a_version() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    let put = async |template: v1::WorkflowTemplate| {
        let request = v1::UpdateWorkflowTemplateRequest {
            workflow_template: Some(template),
            allow_missing: true,
            ..Default::default()
        };
        client.update_workflow_template(request).await
    };
    let get = async |version| {
        let request = v1::GetWorkflowTemplateRequest { name: NAME.to_owned(), version };
        client.get_workflow_template(request).await
    };
    let step = |template: v1::WorkflowTemplate| {
        template.spec.and_then(|spec| spec.workflow).map(|workflow| workflow.steps[0].name.clone())
    };
    assert_eq!(put(template("build")).await?.version, 1);
    assert_eq!(put(template("build")).await?.version, 1);
    let labelled = v1::WorkflowTemplate { labels: [("a".into(), "b".into())].into(), ..template("build") };
    assert_eq!(put(labelled).await?.version, 1);
    let second = put(template("test")).await?;
    assert_eq!(second.version, 2);
    cluster.kill().await;
    cluster.restart().await?;
    assert_eq!(step(get(1).await?).as_deref(), Some("build"));
    assert_eq!(step(get(2).await?).as_deref(), Some("test"));
    assert_eq!(get(0).await?, second);
    assert_eq!(get(3).await.unwrap_err().reason.as_deref(), Some("TEMPLATE_NOT_FOUND"));
    let all = client.all_workflow_templates("namespaces/-").await?;
    assert_eq!((all.len(), all[0].version), (1, 2));
    assert!(all[0].spec.as_ref().is_some_and(|spec| spec.workflow.is_none()));
    let invalid = v1::WorkflowTemplate { spec: Some(Default::default()), ..template("x") };
    let refused = put(invalid).await.unwrap_err();
    assert_eq!(refused.fields[0].field, "workflow_template.spec.workflow");
    // The oldest versions are removed.
    for number in 0..100 {
        put(template(&format!("step{number}"))).await?;
    }
    assert!(get(1).await.is_err() && get(2).await.is_err() && get(3).await.is_ok());
    let request = v1::DeleteWorkflowTemplateRequest { name: NAME.to_owned(), ..Default::default() };
    client.delete_workflow_template(request).await?;
    assert!(get(0).await.is_err() && get(102).await.is_err());
    let again = put(template("build")).await?;
    assert_eq!(again.version, 1);
    assert_ne!(again.uid, second.uid);
    Ok(())
}

#[tokio::test]
async fn rerun_fulfils_the_schemas_of_parameters() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let template: v1::WorkflowTemplate = serde_json::from_value(serde_json::json!({
        "name": NAME,
        "spec": {
            "parameters": [
                { "name": "image", "schema": { "type": "string" } },
                { "name": "undo", "schema": { "type": "string", "minLength": 1 } },
                { "name": "replicas", "schema": { "type": "integer" }, "default": 2 },
            ],
            "workflow": {
                "steps": [{ "name": "wait", "wait": { "duration": "0s" } }],
                "outputs": { "made": "${{ inputs.image }} ${{ inputs.undo }} ${{ inputs.replicas }}" },
            },
        },
    }))?;
    let put = v1::UpdateWorkflowTemplateRequest {
        workflow_template: Some(template),
        allow_missing: true,
        ..Default::default()
    };
    client.update_workflow_template(put).await?;
    let create = v1::CreateWorkflowRequest {
        parent: "namespaces/default".to_owned(),
        template: "deploy".to_owned(),
        parameters: Some(serde_json::from_value(serde_json::json!({ "image": "a", "undo": "b" }))?),
        ..Default::default()
    };
    let first = client.create_workflow(create).await?;
    let ended = async |name: &str| {
        let request = v1::GetWorkflowRequest { name: name.to_owned() };
        tasks::eventually("the end of the workflow", async || {
            let found = client.get_workflow(request.clone()).await?;
            Ok(found.status.is_some_and(|status| status.state() == v1::WorkflowState::Succeeded))
        })
        .await?;
        anyhow::Ok(client.get_workflow(request.clone()).await?)
    };
    ended(&first.name).await?;
    let rerun = async |inputs: serde_json::Value| {
        let inputs = serde_json::from_value(inputs)?;
        let request = v1::RerunWorkflowRequest { name: first.name.clone(), inputs, ..Default::default() };
        anyhow::Ok(client.rerun_workflow(request).await)
    };
    for inputs in [
        serde_json::json!({ "undo": "" }),
        serde_json::json!({ "replicas": "many" }),
        serde_json::json!({ "other": 1 }),
    ] {
        let refused = rerun(inputs).await?.unwrap_err();
        assert!(refused.fields[0].field.starts_with("workflow.spec.inputs"), "{refused:?}");
    }
    // What is not given stays, with its default.
    let second = ended(&rerun(serde_json::json!({ "image": "c" })).await??.name).await?;
    let outputs = second.status.and_then(|status| status.outputs).unwrap_or_default();
    assert_eq!(serde_json::to_value(outputs)?, serde_json::json!({ "made": "c b 2" }));
    Ok(())
}

#[tokio::test]
async fn workflows_name_their_template_and_version() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        for step in ["one", "two"] {
            let template = serde_json::json!({
                "name": NAME,
                "spec": { "workflow": { "steps": [{ "name": step, "wait": { "duration": "0s" } }] } },
            });
            let request = v1::UpdateWorkflowTemplateRequest {
                workflow_template: Some(serde_json::from_value(template)?),
                allow_missing: true,
                ..Default::default()
            };
            client.update_workflow_template(request).await?;
        }
        let create = async |template: &str| {
            let (parent, template) = ("namespaces/default".to_owned(), template.to_owned());
            client.create_workflow(v1::CreateWorkflowRequest { parent, template, ..Default::default() }).await
        };
        let get = async |name: &str| {
            let found = client.get_workflow(v1::GetWorkflowRequest { name: name.to_owned() }).await?;
            let step = found.spec.and_then(|spec| Some(spec.steps.first()?.name.clone()));
            anyhow::Ok((found.status.unwrap_or_default().template, step.unwrap_or_default()))
        };
        let of = |version: &str, step: &str| (version.to_owned(), step.to_owned());
        let old = create("deploy@1").await?.name;
        assert_eq!(get(&old).await?, of("deploy@1", "one"));
        assert_eq!(get(&create(&format!("{NAME}@1")).await?.name).await?, of("deploy@1", "one"));
        assert_eq!(get(&create("deploy").await?.name).await?, of("deploy@2", "two"));
        for (wrong, reason) in
            [("deploy@3", Some("TEMPLATE_NOT_FOUND")), ("deploy@0", None), ("deploy@new", None)]
        {
            let refused = create(wrong).await.unwrap_err();
            assert!(reason.is_none() || refused.reason.as_deref() == reason, "{wrong}: {refused:?}");
            assert!(reason.is_some() || refused.fields[0].field == "template", "{wrong}: {refused:?}");
        }
        // A workflow as a step is of a template, too; the one around it is of none.
        let around = serde_json::json!({
            "parent": "namespaces/default",
            "workflow": { "spec": { "steps": [{ "name": "call", "workflow": { "template": "deploy" } }] } },
        });
        let around = client.create_workflow(serde_json::from_value(around)?).await?;
        assert_eq!(around.status.unwrap_or_default().template, "");
        let list = async |template: &str| {
            let filter = v1::WorkflowFilter { template: template.to_owned(), ..Default::default() };
            let all = client.all_workflows("namespaces/default", filter).await?;
            let of = |one: v1::Workflow| one.status.unwrap_or_default().template;
            anyhow::Ok(all.into_iter().map(of).collect::<Vec<_>>())
        };
        tasks::eventually("the workflow of the step", async || Ok(list("deploy@2").await?.len() == 2))
            .await?;
        assert_eq!(list("deploy@1").await?, ["deploy@1", "deploy@1"]);
        assert_eq!(
            (list("deploy").await?.len(), list("deplo").await?.len(), list("1").await?.len()),
            (4, 0, 0)
        );
        // A rerun has the specification, and so the template, of the earlier one.
        tasks::eventually("the end of the workflow", async || {
            let found = client.get_workflow(v1::GetWorkflowRequest { name: old.clone() }).await?;
            Ok(found.status.is_some_and(|status| status.state() == v1::WorkflowState::Succeeded))
        })
        .await?;
        let again = v1::RerunWorkflowRequest { name: old.clone(), ..Default::default() };
        let again = client.rerun_workflow(again).await?;
        assert_eq!(get(&again.name).await?, of("deploy@1", "one"));
    }
    Ok(())
}
