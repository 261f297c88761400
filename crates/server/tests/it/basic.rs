//! The smallest task there is, on both backends.

use anyhow::Result;
use rota_proto::v1::{TaskState, script_step::Kind as Step};
use rota_testkit::{Backend, Cluster, history, tasks};

#[tokio::test]
async fn task_succeeds() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &["code"]).await?;
        let _worker = cluster.worker("echo", "one", 2)?;
        let steps = [Step::Progress(0.5), Step::Output("hello".into()), Step::Succeed("done".into())];
        let task = tasks::create(client, tasks::scripted("echo", steps)).await?;
        let ended = tasks::ended(client, &task.name).await?;
        let status = ended.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
        assert_eq!(status.result.unwrap().text, "done");
        history::check(client, true).await?.check()?;
    }
    Ok(())
}
