//! `rota admin budgets`, `set-budget` and `correct-spending`: what agents and namespaces have spent, and what namespaces may spend.

use clap::{Args, ValueEnum};
use rota_crds::Usd;
use rota_proto::names;
use rota_proto::v1::{self, BudgetStatus, CorrectSpendingRequest, SetNamespaceBudgetRequest};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{self, Paint, Table, time};

#[derive(Debug, Args)]
pub struct Budgets {
    /// Show the budgets of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

#[derive(Debug, Args)]
pub struct SetBudget {
    /// Limit of the cost in a day of UTC, in US dollars
    #[arg(long, value_name = "USD")]
    daily_usd: Option<Usd>,
    /// Limit of the cost in a month of UTC, in US dollars
    #[arg(long, value_name = "USD")]
    monthly_usd: Option<Usd>,
    /// What becomes of new tasks while the budget is exhausted
    #[arg(long, value_name = "ACTION", default_value = "queue")]
    when_exhausted: WhenExhausted,
    /// Remove the budget of the namespace, which then spends without a limit
    #[arg(long, conflicts_with_all = ["daily_usd", "monthly_usd", "when_exhausted"])]
    none: bool,
}

#[derive(Debug, Args)]
pub struct CorrectSpending {
    /// Agent whose spending is corrected [default: the namespace, of all its agents together]
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Cost of this day of UTC, in US dollars [default: as it is]
    #[arg(long, value_name = "USD", required_unless_present = "this_month_usd")]
    today_usd: Option<Usd>,
    /// Cost of this month of UTC, in US dollars [default: as it is]
    #[arg(long, value_name = "USD")]
    this_month_usd: Option<Usd>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WhenExhausted {
    /// They wait for the next day or month
    Queue,
    /// They are refused until the next day or month
    Refuse,
}

impl Budgets {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let budgets = context.client.all_budgets(&context.parent(self.all_namespaces)).await?;
        if !context.out.is_human() {
            context.out.list("budgets", &budgets)?;
            return Ok(Exit::Ok);
        }
        let mut table = Table::new(&[
            "NAMESPACE",
            "AGENT",
            "TODAY",
            "DAILY",
            "THIS MONTH",
            "MONTHLY",
            "RESERVED",
            "USUAL",
            "EXHAUSTED UNTIL",
        ]);
        for one in &budgets {
            table.row(row(one));
        }
        if table.is_empty() {
            context.reporter.line("nothing was spent, and there are no budgets");
        }
        context.out.table(&table)?;
        Ok(Exit::Ok)
    }
}

fn row(one: &BudgetStatus) -> [(String, Paint); 9] {
    let budget = one.budget.unwrap_or_default();
    let (namespace, agent) = match names::parse(&one.name, "agents") {
        Some((namespace, agent)) => (namespace, agent),
        None => (names::last(&one.name), ""),
    };
    let plain = |text: String| (text, Paint::Plain);
    let dollars = |micro| plain(format!("${}", Usd { micro }));
    let limit = |micro| if micro == 0 { plain("none".to_owned()) } else { dollars(micro) };
    [
        plain(namespace.to_owned()),
        plain(agent.to_owned()),
        dollars(one.spent_today_micro_usd),
        limit(budget.daily_micro_usd),
        dollars(one.spent_this_month_micro_usd),
        limit(budget.monthly_micro_usd),
        dollars(one.reserved_micro_usd),
        plain(output::money(one.usual_micro_usd)),
        (time(one.exhausted_until.as_ref()), Paint::Bad),
    ]
}

impl CorrectSpending {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let name = match &self.agent {
            Some(agent) => names::agent(&context.namespace, agent),
            None => context.parent(false),
        };
        let micro = |usd: Option<Usd>| usd.map(|usd| usd.micro);
        let request = CorrectSpendingRequest {
            name,
            spent_today_micro_usd: micro(self.today_usd),
            spent_this_month_micro_usd: micro(self.this_month_usd),
        };
        let status = context.client.correct_spending(request).await?.status.unwrap_or_default();
        if !context.out.is_human() {
            context.out.value(&status)?;
            return Ok(Exit::Ok);
        }
        let what = match &self.agent {
            Some(agent) => format!("agent {agent}"),
            None => format!("namespace {}", context.namespace),
        };
        let usd = |micro| Usd { micro };
        context.reporter.line(&format!(
            "spending of {what} corrected: ${} today, ${} this month",
            usd(status.spent_today_micro_usd),
            usd(status.spent_this_month_micro_usd)
        ));
        Ok(Exit::Ok)
    }
}

impl SetBudget {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let budget = self.budget()?;
        let request = SetNamespaceBudgetRequest { name: context.parent(false), budget, ..Default::default() };
        let status = context.client.set_namespace_budget(request).await?.status.unwrap_or_default();
        if !context.out.is_human() {
            context.out.value(&status)?;
            return Ok(Exit::Ok);
        }
        let namespace = &context.namespace;
        let text = match status.budget {
            Some(_) => format!("budget of namespace {namespace} set: {}", output::spent(&status)),
            None => format!("budget of namespace {namespace} removed"),
        };
        context.reporter.line(&text);
        Ok(Exit::Ok)
    }

    fn budget(&self) -> anyhow::Result<Option<v1::Budget>> {
        if self.none {
            return Ok(None);
        }
        let limits = [self.daily_usd, self.monthly_usd].map(|usd| usd.map(|usd| usd.micro));
        if limits == [None, None] || limits.contains(&Some(0)) {
            let message =
                "--daily-usd or --monthly-usd is required, and must be above 0; --none removes the budget";
            return Err(Failure::new(Exit::Usage, message.to_owned()).into());
        }
        let when = match self.when_exhausted {
            WhenExhausted::Queue => v1::WhenExhausted::Queue,
            WhenExhausted::Refuse => v1::WhenExhausted::Refuse,
        };
        let [daily, monthly] = limits.map(Option::unwrap_or_default);
        Ok(Some(v1::Budget {
            daily_micro_usd: daily,
            monthly_micro_usd: monthly,
            when_exhausted: when.into(),
        }))
    }
}
