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
