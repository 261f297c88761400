//! `AdminService`: the control plane itself.

use std::sync::Arc;

use rota_core::spending::Scope;
use rota_proto::v1;
use rota_proto::v1::admin_service_server::AdminService;
use rota_store::Refused;
use rota_telemetry::log;
use secrecy::{ExposeSecret, SecretString};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::answers::page;
use super::system::SystemReport;
use super::{BrowserSessionAdmin, Rotation, Storage, TokenAdmin};
use crate::alerts::Alerts;
use crate::clock::now;
use crate::code_flow::CodeFlow;
use crate::demand::Demand;
use crate::history::History;
use crate::store_client::StoreClient;
use crate::trust::auth::bearer_token;
use crate::trust::people::{Namespaces, PeopleVerifier, PersonCall};
use crate::trust::sign_in::{self, SignInCodes};
use crate::wire::status::{error, hinted, invalid, refused};
use crate::wire::{breaker, budget, etag, names as wire, time};

/// Longest log filter that is accepted.
const MAX_FILTER: usize = 1024;

pub(crate) struct Admin {
    pub(crate) store: StoreClient,
    pub(crate) system: Arc<SystemReport>,
    pub(crate) demand: Demand,
    pub(crate) history: History,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) worker_tokens: TokenAdmin,
    pub(crate) sign_in_codes: SignInCodes,
    pub(crate) browser_sessions: Arc<BrowserSessionAdmin>,
    pub(crate) people: Option<Arc<PeopleVerifier>>,
    /// How browsers sign in at the issuer of people, if they can.
    pub(crate) code_flow: Option<Arc<CodeFlow>>,
    pub(crate) storage: Storage,
    pub(crate) rotation: Rotation,
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_system_status(
        &self,
        _: Request<v1::GetSystemStatusRequest>,
    ) -> Result<Response<v1::SystemStatus>, Status> {
        Ok(Response::new(self.system.status().await))
    }

    type WatchSystemStatusStream = ReceiverStream<Result<v1::SystemStatus, Status>>;

    async fn watch_system_status(
        &self,
        _: Request<v1::WatchSystemStatusRequest>,
    ) -> Result<Response<Self::WatchSystemStatusStream>, Status> {
        Ok(Response::new(self.system.watch(&self.storage.streams)))
    }

    async fn list_background_tasks(
        &self,
        _: Request<v1::ListBackgroundTasksRequest>,
    ) -> Result<Response<v1::ListBackgroundTasksResponse>, Status> {
        Ok(Response::new(v1::ListBackgroundTasksResponse {
            background_tasks: self.system.background_tasks(),
        }))
    }

    async fn get_log_filter(
        &self,
        _: Request<v1::GetLogFilterRequest>,
    ) -> Result<Response<v1::LogFilter>, Status> {
        let filter = log::filter().ok_or_else(log_unavailable)?;
        Ok(Response::new(v1::LogFilter { filter }))
    }

    async fn set_log_filter(
        &self,
        request: Request<v1::SetLogFilterRequest>,
    ) -> Result<Response<v1::LogFilter>, Status> {
        let filter = request.into_inner().filter;
        if filter.trim().is_empty() {
            return Err(invalid("filter", "is required"));
        }
        if filter.len() > MAX_FILTER {
            return Err(invalid("filter", format!("must have at most {MAX_FILTER} bytes")));
        }
        let before = log::filter();
        if !log::set_filter(&filter).map_err(|error| invalid("filter", error.to_string()))? {
            return Err(log_unavailable());
        }
        tracing::warn!(filter, before, "log filter changed");
        Ok(Response::new(v1::LogFilter { filter }))
    }

    async fn issue_worker_token(
        &self,
        request: Request<v1::IssueWorkerTokenRequest>,
    ) -> Result<Response<v1::IssueWorkerTokenResponse>, Status> {
        self.worker_tokens.issue(request).await.map(Response::new)
    }

    async fn list_worker_tokens(
        &self,
        request: Request<v1::ListWorkerTokensRequest>,
    ) -> Result<Response<v1::ListWorkerTokensResponse>, Status> {
        self.worker_tokens.list(request.get_ref()).map(Response::new)
    }

    async fn revoke_worker_token(
        &self,
        request: Request<v1::RevokeWorkerTokenRequest>,
    ) -> Result<Response<v1::WorkerToken>, Status> {
        self.worker_tokens.revoke(request.get_ref()).await.map(Response::new)
    }

    async fn issue_sign_in_code(
        &self,
        request: Request<v1::IssueSignInCodeRequest>,
    ) -> Result<Response<v1::IssueSignInCodeResponse>, Status> {
        let headers = request.metadata().as_ref();
        let token = bearer_token(headers).and_then(|token| str::from_utf8(token).ok());
        let token = token.ok_or_else(|| error("TOKEN_REQUIRED", "there is no token to sign in with"))?;
        let expire_time = Some(time::timestamp(now() + sign_in::LIFETIME));
        let code = self.sign_in_codes.issue(SecretString::from(token));
        Ok(Response::new(v1::IssueSignInCodeResponse { code, expire_time }))
    }

    async fn redeem_sign_in_code(
        &self,
        request: Request<v1::RedeemSignInCodeRequest>,
    ) -> Result<Response<v1::RedeemSignInCodeResponse>, Status> {
        let token = self.sign_in_codes.redeem(&request.into_inner().code);
        let token = token.ok_or_else(|| {
            hinted(
                "SIGN_IN_CODE_INVALID",
                "the sign-in link was used before, or has expired",
                "print another one: rota ui",
            )
        })?;
        Ok(Response::new(v1::RedeemSignInCodeResponse { token: token.expose_secret().to_owned() }))
    }

    async fn create_browser_session(
        &self,
        request: Request<v1::CreateBrowserSessionRequest>,
    ) -> Result<Response<v1::BrowserSession>, Status> {
        self.browser_sessions.create(&request).await
    }

    async fn get_current_browser_session(
        &self,
        request: Request<v1::GetCurrentBrowserSessionRequest>,
    ) -> Result<Response<v1::BrowserSession>, Status> {
        BrowserSessionAdmin::current(&request)
    }

    async fn sign_out(
        &self,
        request: Request<v1::SignOutRequest>,
    ) -> Result<Response<v1::BrowserSession>, Status> {
        self.browser_sessions.sign_out(&request).await
    }

    async fn get_web_push(
        &self,
        request: Request<v1::GetWebPushRequest>,
    ) -> Result<Response<v1::WebPush>, Status> {
        self.browser_sessions.web_push(&request)
    }

    async fn subscribe_web_push(
        &self,
        request: Request<v1::SubscribeWebPushRequest>,
    ) -> Result<Response<v1::WebPush>, Status> {
        self.browser_sessions.subscribe(&request).await
    }

    async fn unsubscribe_web_push(
        &self,
        request: Request<v1::UnsubscribeWebPushRequest>,
    ) -> Result<Response<v1::WebPush>, Status> {
        self.browser_sessions.unsubscribe(&request).await
    }

    async fn get_sign_in_options(
        &self,
        _: Request<v1::GetSignInOptionsRequest>,
    ) -> Result<Response<v1::SignInOptions>, Status> {
        let options = self.people.as_ref().map(|people| {
            let sign_in = people.sign_in();
            let path = self.code_flow.as_ref().map(|flow| flow.path());
            v1::SignInOptions {
                issuer: people.issuer().to_owned(),
                name: sign_in.name.clone(),
                client_id: sign_in.cli_client_id.clone(),
                scopes: sign_in.scopes.clone(),
                browser_path: path.unwrap_or_default(),
            }
        });
        Ok(Response::new(options.unwrap_or_default()))
    }

    async fn list_browser_sessions(
        &self,
        request: Request<v1::ListBrowserSessionsRequest>,
    ) -> Result<Response<v1::ListBrowserSessionsResponse>, Status> {
        self.browser_sessions.list(request.get_ref()).map(Response::new)
    }

    async fn revoke_browser_session(
        &self,
        request: Request<v1::RevokeBrowserSessionRequest>,
    ) -> Result<Response<v1::BrowserSession>, Status> {
        self.browser_sessions.revoke(request.get_ref()).await.map(Response::new)
    }

    async fn set_namespace_budget(
        &self,
        request: Request<v1::SetNamespaceBudgetRequest>,
    ) -> Result<Response<v1::SetNamespaceBudgetResponse>, Status> {
        let request = request.into_inner();
        let namespace = wire::parent("name", &request.name)?;
        let budget = budget::check("budget", request.budget.as_ref())?;
        let expected = etag::expected_budget(&request.etag)?;
        let account = self.store.put_budget(namespace.clone(), budget, expected).await?;
        tracing::info!(%namespace, ?budget, "the budget of a namespace was set");
        let (_, reserved) = self.demand.agents.accounts().get_or_new(&(namespace, Scope::Namespace));
        let status = Some(budget::status(&account, &budget, reserved, now()));
        Ok(Response::new(v1::SetNamespaceBudgetResponse { status }))
    }

    async fn correct_spending(
        &self,
        request: Request<v1::CorrectSpendingRequest>,
    ) -> Result<Response<v1::CorrectSpendingResponse>, Status> {
        let request = request.into_inner();
        let key = wire::account("name", &request.name)?;
        if let Scope::Agent(agent) = &key.1
            && !self.demand.agents.contains(&(key.0.clone(), agent.clone()))
            && self.demand.agents.accounts().get(&key).is_none()
        {
            return Err(refused(Refused::NoAgent(agent.clone())));
        }
        let fields = [
            ("spent_today_micro_usd", request.spent_today_micro_usd),
            ("spent_this_month_micro_usd", request.spent_this_month_micro_usd),
        ];
        for (field, spent) in fields {
            budget::check_spent(field, spent)?;
        }
        let spent = fields.map(|(_, spent)| spent);
        if spent == [None, None] {
            return Err(invalid("spent_today_micro_usd", "is required, or that of the month"));
        }
        let before = self.demand.agents.accounts().get_or_new(&key).0;
        let account = self.store.correct_account(key.clone(), spent).await?;
        let ((_, reserved), budget) = self.demand.agents.account(&key);
        let (before, status) = (
            budget::status(&before, &budget, reserved, now()),
            budget::status(&account, &budget, reserved, now()),
        );
        tracing::warn!(
            namespace = %key.0,
            scope = %key.1,
            today_before = before.spent_today_micro_usd,
            this_month_before = before.spent_this_month_micro_usd,
            today = status.spent_today_micro_usd,
            this_month = status.spent_this_month_micro_usd,
            "what was spent was corrected, in millionths of a US dollar"
        );
        Ok(Response::new(v1::CorrectSpendingResponse { status: Some(status) }))
    }

    async fn list_budgets(
        &self,
        request: Request<v1::ListBudgetsRequest>,
    ) -> Result<Response<v1::ListBudgetsResponse>, Status> {
        let request = request.into_inner();
        let namespace = wire::parent_or_all("parent", &request.parent)?;
        let now = now();
        let known = self.demand.agents.accounts_of(namespace.as_ref()).into_iter();
        let budgets = known
            .map(|((account, reserved), limits)| budget::status(&account, &limits, reserved, now))
            .map(|status| (status.name.clone(), status));
        let mut budgets: Vec<_> = budgets.collect();
        budgets.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let (budgets, next_page_token) = page(budgets, request.page_size, &request.page_token)?;
        Ok(Response::new(v1::ListBudgetsResponse { budgets, next_page_token }))
    }

    async fn list_alerts(
        &self,
        request: Request<v1::ListAlertsRequest>,
    ) -> Result<Response<v1::ListAlertsResponse>, Status> {
        let namespace = wire::parent_or_all("parent", &request.get_ref().parent)?;
        let caller = request.extensions().get::<PersonCall>();
        let limited = caller.is_some_and(|caller| matches!(caller.namespaces, Namespaces::Of(_)));
        let alerts = self.alerts.list(namespace.as_ref(), limited).await;
        Ok(Response::new(v1::ListAlertsResponse { alerts }))
    }

    async fn get_metrics_history(
        &self,
        request: Request<v1::GetMetricsHistoryRequest>,
    ) -> Result<Response<v1::MetricsHistory>, Status> {
        self.history.get(&request.into_inner()).await.map(Response::new)
    }

    async fn get_spending(
        &self,
        request: Request<v1::GetSpendingRequest>,
    ) -> Result<Response<v1::Spending>, Status> {
        self.history.spending(&request.into_inner()).await.map(Response::new)
    }

    async fn prune(&self, request: Request<v1::PruneRequest>) -> Result<Response<v1::PruneResponse>, Status> {
        self.storage.prune(request.into_inner()).await.map(Response::new)
    }

    async fn get_database_status(
        &self,
        _: Request<v1::GetDatabaseStatusRequest>,
    ) -> Result<Response<v1::DatabaseStatus>, Status> {
        self.storage.database().await.map(Response::new)
    }

    async fn rotate_key(
        &self,
        _: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        self.rotation.rotate().await.map(Response::new)
    }

    async fn rebuild_search_index(
        &self,
        _: Request<v1::RebuildSearchIndexRequest>,
    ) -> Result<Response<v1::RebuildSearchIndexResponse>, Status> {
        self.storage.rebuild_index().await.map(Response::new)
    }

    type BackupStream = ReceiverStream<Result<v1::BackupResponse, Status>>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.storage.backup().map(Response::new)
    }

    async fn reset_breaker(
        &self,
        request: Request<v1::ResetBreakerRequest>,
    ) -> Result<Response<v1::ResetBreakerResponse>, Status> {
        let request = request.into_inner();
        if !request.credential.is_empty() {
            return self.end_cool_down(&request).await;
        }
        let key = wire::agent("name", &request.name)?;
        self.demand.breakers.end_cool_downs_of(&key, &self.store).await?;
        let of_backend = self.demand.breakers.reset_backend_of(&key).map(breaker::of_backend);
        let known = self.demand.breakers.reset(&key);
        if known.is_none() && !self.demand.agents.contains(&key) {
            return Err(super::Agents::missing(&key.1));
        }
        Ok(Response::new(v1::ResetBreakerResponse {
            breaker: known.map(|known| breaker::to_wire((key, known))).or(of_backend),
        }))
    }
}

impl Admin {
    async fn end_cool_down(
        &self,
        request: &v1::ResetBreakerRequest,
    ) -> Result<Response<v1::ResetBreakerResponse>, Status> {
        let credential = request.credential.parse();
        let credential = credential.map_err(|_| invalid("credential", "must have 16 hexadecimal digits"))?;
        let key = (wire::parent("name", &request.name)?, credential);
        if !self.demand.breakers.end_cool_down(key, &self.store).await? {
            return Err(error(
                "COOL_DOWN_NOT_FOUND",
                format!("the credential {credential} does not cool down"),
            ));
        }
        Ok(Response::new(v1::ResetBreakerResponse::default()))
    }
}

/// The control plane is embedded in another program, which manages the log.
fn log_unavailable() -> Status {
    error(
        "LOG_FILTER_UNAVAILABLE",
        "this control plane is embedded in a program that manages its own logging",
    )
}
