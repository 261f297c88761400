//! Lists of `AdminService` that are read to their end, page by page.

use rota_proto::v1;

use crate::{Client, Error};

impl Client {
    /// Reads all pages of [`Client::list_budgets`]. `namespaces/-` means all namespaces.
    pub async fn all_budgets(&self, parent: &str) -> Result<Vec<v1::BudgetStatus>, Error> {
        let mut all = Vec::new();
        let mut request =
            v1::ListBudgetsRequest { parent: parent.into(), page_size: 1000, ..Default::default() };
        loop {
            let page = self.list_budgets(request.clone()).await?;
            all.extend(page.budgets);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Reads all pages of [`Client::list_worker_tokens`]. `namespaces/-` means all namespaces.
    pub async fn all_worker_tokens(&self, parent: &str) -> Result<Vec<v1::WorkerToken>, Error> {
        let mut all = Vec::new();
        let mut request =
            v1::ListWorkerTokensRequest { parent: parent.into(), page_size: 200, ..Default::default() };
        loop {
            let page = self.list_worker_tokens(request.clone()).await?;
            all.extend(page.worker_tokens);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }
}
