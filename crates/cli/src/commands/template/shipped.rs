//! Templates that come with the program: the files of `templates/`, with their comments.

use rota_proto::names;
use rota_proto::v1::{WorkflowTemplate, WorkflowTemplateSpec};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Paint, Table};

macro_rules! shipped {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("../../../../../templates/", $name, ".yaml")))),*] };
}

const SHIPPED: [(&str, &str); 5] =
    shipped!["analyse-and-refactor", "build-feature", "deploy-app", "fix-until-green", "review-by-three"];

/// Returns the file of a template.
pub(super) fn text(name: &str) -> Result<&'static str, Failure> {
    let found = SHIPPED.iter().find(|(shipped, _)| *shipped == name);
    found.map(|(_, text)| *text).ok_or_else(|| {
        let names = SHIPPED.map(|(name, _)| name).join(", ");
        Failure::usage(format!("no template {name} comes with the program"))
            .hint(format!("use one of {names}"))
    })
}

pub(super) fn spec(name: &str) -> Result<WorkflowTemplateSpec, Failure> {
    super::spec_of(name, text(name)?)
}

/// Returns a template as the API has it, which no namespace has yet.
pub(super) fn template(name: &str) -> Result<WorkflowTemplate, Failure> {
    Ok(WorkflowTemplate {
        name: names::template("-", name),
        spec: Some(spec(name)?),
        ..WorkflowTemplate::default()
    })
}

pub(super) fn list(context: &Context) -> anyhow::Result<Exit> {
    let all = SHIPPED.iter().map(|(name, _)| template(name)).collect::<Result<Vec<_>, _>>()?;
    if !context.out.is_human() {
        context.out.list("workflowTemplates", &all)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAME", "DESCRIPTION"]);
    for template in &all {
        let description = template.spec.as_ref().map_or("", |spec| spec.description.as_str());
        let name = names::last(&template.name).to_owned();
        table.row([(name, Paint::Plain), (description.to_owned(), Paint::Plain)]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}
