//! HTTP paths of all calls, from the `google.api.http` options of the protos.

use http::Method;
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};

use crate::Error;
use crate::template::Template;

/// One HTTP form of a call.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) template: Template,
    pub(crate) body: Body,
    pub(crate) call: MethodDescriptor,
    /// Path of the call in gRPC.
    pub(crate) path: PathAndQuery,
    /// Largest body of a request.
    pub(crate) max_body: usize,
}

/// Largest body of a request, unless its call has a limit of its own.
const MAX_BODY: usize = 8 << 20;

/// What the body of a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    Message,
    Field(String),
}

/// All HTTP forms, those with a verb first: an id may contain a colon.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    routes: Vec<Route>,
}

pub(crate) enum Found<'a> {
    Route(&'a Route, Vec<(&'a str, String)>),
    /// The path exists, for other methods.
    Methods(Vec<&'a Method>),
    Nothing,
}

impl Routes {
    pub(crate) fn new(pool: &DescriptorPool) -> Result<Self, Error> {
        let option =
            pool.get_extension_by_name("google.api.http").ok_or(Error::Descriptors("google.api.http"))?;
        let mut routes = Vec::new();
        for call in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let options = call.options();
            if options.has_extension(&option)
                && let Some(rule) = options.get_extension(&option).as_message()
            {
                add(&mut routes, &call, rule)?;
            }
        }
        routes.sort_by_key(|route| route.template.verb.is_none());
        Ok(Self { routes })
    }

    /// Sets the limits of bodies that are not [`MAX_BODY`].
    pub(crate) fn limit(&mut self, max_body: impl Fn(&str) -> Option<usize>) {
        for route in &mut self.routes {
            route.max_body = max_body(route.path.path()).unwrap_or(MAX_BODY);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let mut others = Vec::new();
        for route in &self.routes {
            let Some(values) = route.template.values(path) else { continue };
            if route.method == *method {
                return Found::Route(route, values);
            }
            others.push(&route.method);
        }
        if others.is_empty() { Found::Nothing } else { Found::Methods(others) }
    }
}

fn add(routes: &mut Vec<Route>, call: &MethodDescriptor, rule: &DynamicMessage) -> Result<(), Error> {
    let text = |name: &str| rule.get_field_by_name(name)?.as_str().map(str::to_owned);
    let methods = ["get", "put", "post", "delete", "patch"];
    let has = |name: &&str| rule.has_field_by_name(name);
    let method = methods.into_iter().find(has).ok_or(Error::Descriptors("a method"))?;
    routes.push(Route {
        method: Method::from_bytes(method.to_uppercase().as_bytes())
            .map_err(|_| Error::Descriptors("a method"))?,
        template: Template::parse(&text(method).unwrap_or_default())?,
        body: match text("body").unwrap_or_default() {
            body if body.is_empty() => Body::None,
            body if body == "*" => Body::Message,
            field => Body::Field(field),
        },
        path: format!("/{}/{}", call.parent_service().full_name(), call.name())
            .parse()
            .map_err(|_| Error::Descriptors("a path"))?,
        call: call.clone(),
        max_body: MAX_BODY,
    });
    let more = rule.get_field_by_name("additional_bindings");
    for rule in more.iter().filter_map(|list| list.as_list()).flatten().filter_map(|rule| rule.as_message()) {
        add(routes, call, rule)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls without an HTTP form: messages in both directions, streams of the client, and contents in parts.
    const WITHOUT: &[&str] = &["AttachTask", "UploadParts", "DownloadParts", "FindMissingParts", "Backup"];

    #[test]
    fn every_call_has_a_path() {
        let pool = crate::pool().unwrap();
        let routes = Routes::new(&pool).unwrap();
        let ours = pool.services().filter(|service| service.full_name().starts_with("rota.v1."));
        for call in ours.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let forms: Vec<_> = routes.iter().filter(|route| route.call == call).collect();
            assert_eq!(forms.is_empty(), WITHOUT.contains(&call.name()), "{}", call.full_name());
            for route in forms {
                let variables = route.template.variables.iter().map(|variable| variable.field.as_str());
                let body = match &route.body {
                    Body::Field(field) => Some(field.as_str()),
                    _ => None,
                };
                for path in variables.chain(body) {
                    let mut message = Some(call.input());
                    for part in path.split('.') {
                        let field = message.as_ref().and_then(|message| message.get_field_by_name(part));
                        let field = field.unwrap_or_else(|| panic!("{}: no {path}", call.full_name()));
                        message = field.kind().as_message().cloned();
                    }
                }
            }
        }
    }

    #[test]
    fn no_path_is_hidden_by_another() {
        let routes = Routes::new(&crate::pool().unwrap()).unwrap();
        for route in routes.iter() {
            let segments = route.template.segments.iter().map(|segment| match segment {
                crate::template::Segment::Literal(literal) => literal.clone(),
                crate::template::Segment::Any => "x".to_owned(),
            });
            let verb = route.template.verb.iter().map(|verb| format!(":{verb}")).collect::<String>();
            let path = format!("/{}{verb}", segments.collect::<Vec<_>>().join("/"));
            match routes.find(&route.method, &path) {
                Found::Route(found, _) => assert_eq!(found.call, route.call, "{path}"),
                _ => panic!("{path} is not found"),
            }
        }
    }
}
