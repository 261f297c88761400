//! Templates of workflows: versions and their removal.

use anyhow::Result;
use rota_proto::v1;
use rota_testkit::{Backend, Cluster};

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
