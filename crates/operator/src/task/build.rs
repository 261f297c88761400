//! Builds the requests that a `Task` leads to. Pure.

use std::collections::BTreeMap;

use rota_crds::resource::Task;
use rota_proto::labels::KIND;
use rota_proto::v1;

use crate::cluster::CLUSTER;

/// Builds the request that creates the record. Its id is the UID of the resource, so that repeating it has no effect.
pub(crate) fn creation(task: &Task, cluster: &str) -> v1::CreateTaskRequest {
    let mut request = task.to_request();
    if let Some(record) = &mut request.task {
        record.labels.insert(CLUSTER.to_owned(), cluster.to_owned());
    }
    request
}

/// Builds the request that updates the mutable fields of the record; `None` if they are up to date, or if the task was
/// cancelled over the API, which cannot be undone.
pub(crate) fn change(task: &Task, record: &v1::Task, cluster: &str) -> Option<v1::UpdateTaskRequest> {
    if record.desired_state() == v1::DesiredState::Cancelled {
        return None;
    }
    let request = creation(task, cluster);
    let desired = request.task.unwrap_or_default();
    let mut paths = Vec::new();
    if desired.priority.unwrap_or(5) != record.priority.unwrap_or(5) {
        paths.push("priority".to_owned());
    }
    // The control plane sets the label of the kind.
    let own = |task: &v1::Task| -> BTreeMap<String, String> {
        let mut labels = task.labels.clone();
        labels.remove(KIND);
        labels
    };
    if own(&desired) != own(record) {
        paths.push("labels".to_owned());
    }
    if desired_state(&desired) != desired_state(record) {
        paths.push("desired_state".to_owned());
    }
    (!paths.is_empty()).then(|| v1::UpdateTaskRequest {
        task: Some(v1::Task { name: record.name.clone(), ..desired }),
        update_mask: Some(pbjson_types::FieldMask { paths }),
        ..Default::default()
    })
}

fn desired_state(task: &v1::Task) -> v1::DesiredState {
    match task.desired_state() {
        v1::DesiredState::Unspecified => v1::DesiredState::Run,
        state => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(spec: &str) -> Task {
        let text = format!(
            "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: build, namespace: team, uid: 0198c0de-0000-7000-8000-000000000001, labels: {{a: b}}}}
spec: {spec}
status: {{completionTime: '2030-01-01T00:00:00Z', phase: Succeeded}}
"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn record_id_is_the_uid() {
        let request = creation(&task("{agent: coder, priority: HIGH}"), "c1");
        assert_eq!(request.parent, "namespaces/team");
        assert_eq!(request.task_id, "0198c0de-0000-7000-8000-000000000001");
        let record = request.task.unwrap();
        assert_eq!((record.alias.as_str(), record.priority), ("build", Some(8)));
        assert_eq!(record.labels.len(), 2);
    }

    #[test]
    fn only_mutable_fields_are_updated() {
        let before = task("{agent: coder}");
        let record = creation(&before, "c1").task.unwrap();
        assert_eq!(change(&before, &record, "c1"), None);
        let request =
            change(&task("{agent: coder, priority: 9, desiredState: Suspended}"), &record, "c1").unwrap();
        assert_eq!(request.update_mask.unwrap().paths, ["priority", "desired_state"]);
        // An explicit default changes nothing.
        assert_eq!(change(&task("{agent: coder, priority: NORMAL, desiredState: Run}"), &record, "c1"), None);
    }

    #[test]
    fn cancellation_over_the_api_is_not_undone() {
        let resource = task("{agent: coder, priority: 9}");
        let mut record = creation(&task("{agent: coder}"), "c1").task.unwrap();
        assert!(change(&resource, &record, "c1").is_some());
        record.set_desired_state(v1::DesiredState::Cancelled);
        assert_eq!(change(&resource, &record, "c1"), None);
    }

    #[test]
    fn updates_name_their_cluster() {
        let record = creation(&task("{agent: coder}"), "c1").task.unwrap();
        let request = change(&task("{agent: coder, desiredState: Suspended}"), &record, "c1").unwrap();
        assert_eq!(request.update_mask.unwrap().paths, ["desired_state"]);
        assert_eq!(
            request.task.unwrap().labels[CLUSTER],
            "c1",
            "without it the control plane refuses the change"
        );
    }
}
