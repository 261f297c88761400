//! Lists of agents by their labels.

use std::collections::BTreeMap;

use anyhow::Result;
use rota_proto::v1;
use rota_testkit::{Backend, Cluster, tasks};

const PARENT: &str = "namespaces/default";

type Pairs = &'static [(&'static str, &'static str)];

fn agent_name(agent: &str) -> String {
    rota_proto::names::agent(tasks::NAMESPACE, agent)
}

#[tokio::test]
async fn agents_are_listed_by_their_labels() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let labels = |pairs: Pairs| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let agents: [(&str, Pairs); 4] = [
        ("docs", &[("team", "web"), ("tier", "a")]),
        ("mobile", &[("team", "app"), ("tier", "a")]),
        ("plain", &[]),
        ("site", &[("team", "web"), ("tier", "b")]),
    ];
    for (name, pairs) in agents {
        tasks::agent(client, name, tasks::script([]), &[]).await?;
        client
            .update_agent(v1::UpdateAgentRequest {
                agent: Some(v1::Agent {
                    name: agent_name(name),
                    labels: labels(pairs),
                    ..Default::default()
                }),
                update_mask: Some(pbjson_types::FieldMask { paths: vec!["labels".into()] }),
                ..Default::default()
            })
            .await?;
    }
    let filters: [(Pairs, &[&str]); 5] = [
        (&[], &["docs", "mobile", "plain", "site"]),
        (&[("team", "web")], &["docs", "site"]),
        (&[("team", "web"), ("tier", "b")], &["site"]),
        (&[("team", "none")], &[]),
        (&[("other", "")], &[]),
    ];
    for (filter, wanted) in filters {
        let found = client.labelled_agents(PARENT, labels(filter)).await?;
        let found: Vec<_> = found.into_iter().map(|agent| agent.name).collect();
        assert_eq!(found, wanted.iter().map(|name| agent_name(name)).collect::<Vec<_>>(), "{filter:?}");
    }
    // Pages have the agents of the filter only.
    let mut request = v1::ListAgentsRequest {
        parent: PARENT.into(),
        page_size: 1,
        labels: labels(&[("team", "web")]),
        ..Default::default()
    };
    let first = client.list_agents(request.clone()).await?;
    request.page_token = first.next_page_token;
    let last = client.list_agents(request).await?;
    assert_eq!((first.agents.len(), last.agents.len(), last.next_page_token.as_str()), (1, 1, ""));
    assert_eq!(last.agents[0].name, agent_name("site"));
    Ok(())
}
