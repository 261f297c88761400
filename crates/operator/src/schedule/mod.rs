//! `Schedule` resources: each is stored in the control plane, which creates the tasks and workflows of its runs.
//! Nothing of a run is a resource: the status has the last one and the next time.

mod status;

use std::time::Duration;

use jiff::Timestamp;
use rota_client::{Client, Code};
use rota_crds::resource::{Schedule, ScheduleStatus};
use rota_proto::v1;

use crate::cluster::CLUSTER;
use crate::context::Context;
use crate::stored::{self, Listed, Outcome, StoredKind};
use crate::template::Waiting;

impl StoredKind for Schedule {
    type Request = v1::UpdateScheduleRequest;
    type Record = v1::Schedule;

    const NAME: &'static str = "schedule";
    const COLLECTION: &'static str = "schedules";
    const SWEEP: (&'static str, &'static str) =
        ("schedule-sweep", "Deletes schedules whose resource was deleted");

    fn request(&self, cluster: &str) -> Result<Self::Request, String> {
        stored::check(&self.validate())?;
        let mut request = self.to_request()?;
        if let Some(record) = &mut request.schedule {
            record.labels.insert(CLUSTER.to_owned(), cluster.to_owned());
        }
        Ok(request)
    }

    async fn store(control: &Client, request: Self::Request) -> Result<v1::Schedule, rota_client::Error> {
        Box::pin(control.update_schedule(request)).await
    }

    async fn list(control: &Client) -> Result<Vec<Listed>, rota_client::Error> {
        let all = control.all_schedules("namespaces/-").await?;
        Ok(all.into_iter().map(|record| (record.name, record.labels)).collect())
    }

    async fn delete(control: &Client, name: String) -> Result<(), rota_client::Error> {
        let request = v1::DeleteScheduleRequest { name, allow_missing: true, ..Default::default() };
        match control.delete_schedule(request).await {
            Err(error) if error.code != Code::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn was_accepted(&self) -> bool {
        status::was_accepted(self)
    }

    fn build_status(&self, outcome: &Outcome<v1::Schedule>, now: Timestamp) -> ScheduleStatus {
        status::status(self, outcome, now)
    }

    fn next_look(record: &v1::Schedule, now: Timestamp) -> Duration {
        status::next_look(record, now)
    }

    fn template(&self) -> Option<&str> {
        self.spec.workflow.as_ref()?.template.as_deref()
    }

    fn waiting(context: &Context) -> Option<&Waiting<Self>> {
        Some(&context.waiting_schedules)
    }
}
