//! Tasks that receive a selection of their agent's secrets.

use rota_e2e::Space;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn tasks_receive_selected_secrets_only() {
    let space = Space::new("secrets").await;
    space
        .kubectl("create secret generic keys --from-literal=one=aaa --from-literal=two=bbbb")
        .await
        .success();
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec:
  runtime: {command: {shell: 'echo ONE=${#ONE} TWO=${#TWO} OWN=$OWN'}}
  overrides: All
  replicas: 1
  maxReplicas: 1
  secrets: [{name: ONE, secretName: keys, key: one}, {name: TWO, secretName: keys, key: two}]
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: all}
spec: {agent: shell}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: one}
spec: {agent: shell, secretNames: [ONE], environment: {OWN: mine}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: none}
spec: {agent: shell, secretNames: []}
",
        )
        .await;
    space.wait("tasks.rota.dev --all", "condition=Complete", "180s").await;
    for (task, preview) in
        [("all", "ONE=3 TWO=4 OWN="), ("one", "ONE=3 TWO=0 OWN=mine"), ("none", "ONE=0 TWO=0 OWN=")]
    {
        assert_eq!(
            space.field(&format!("task/{task}"), ".status.resultPreview").await.trim(),
            preview,
            "{task}"
        );
    }
    assert_eq!(space.pods.all().len(), 1, "all tasks ran on one worker");

    // A secret that the agent does not have fails the task.
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: other}
spec: {agent: shell, secretNames: [THREE]}
",
        )
        .await;
    space.wait("task/other", "condition=Failed", "60s").await;
    let message = space.field("task/other", ".status.message").await;
    assert!(message.contains("THREE"), "{message}");
}
