//! The JSON API: one table of routes, from which requests are dispatched and the OpenAPI document is made.

mod children;
mod configuration;
mod events;
mod history;
mod io;
mod logs;
mod machine;
mod openapi;
mod people;
mod session;
mod table;

use super::Web;
use super::answer::{check_forgery, check_own_page, read_only};
use super::problem::Problem;
use super::request::{Method, Request};
use super::response::Response;
use crate::auth::Visitor;
use table::{Access, Call, Route, Table};

/// The routes and the document that describes them.
#[derive(Debug)]
pub(crate) struct Api {
    routes: Vec<Route>,
    document: String,
}

/// Whether a path belongs to the API.
pub(crate) fn is_below(path: &str) -> bool {
    path == BASE || path.strip_prefix(BASE).is_some_and(|rest| rest.starts_with('/')) || path == METRICS
}

impl Api {
    pub(crate) fn new() -> Self {
        let mut table = Table::default();
        session::routes(&mut table);
        machine::routes(&mut table);
        children::routes(&mut table);
        events::routes(&mut table);
        history::routes(&mut table);
        io::routes(&mut table);
        logs::routes(&mut table);
        configuration::routes(&mut table);
        people::routes(&mut table);
        table.text(
            Method::Get,
            "/openapi.json",
            "openapi",
            "This document",
            Access::Open,
            "application/json",
            |call, (): ()| Ok(Response::new(200, "application/json", call.web.api.document.as_bytes())),
        );
        let (document, routes) = openapi::document(table);
        Self { routes, document }
    }

    pub(crate) fn answer(&self, web: &Web, request: &Request, visitor: &Visitor) -> Result<Response, Problem> {
        let mut allowed: Vec<&str> = Vec::new();
        for route in &self.routes {
            let Some(path) = route.fits(&request.segments) else { continue };
            if route.method != request.method {
                allowed.push(route.method.word());
                if route.method == Method::Get {
                    allowed.push("HEAD");
                }
                continue;
            }
            route.access.check(visitor)?;
            if request.method.changes() {
                check_own_page(request)?;
                if route.access != Access::Open {
                    check_forgery(request, visitor, None)?;
                }
                if visitor.session().is_some_and(|session| session.read_only) && !route.access.is_own() {
                    return Err(read_only());
                }
            }
            return (route.handler)(&Call { web, request, visitor, path });
        }
        if allowed.is_empty() {
            return Err(Problem::no_page(&request.path));
        }
        Err(Problem::method(&allowed.join(", ")))
    }
}

const BASE: &str = "/api/v1";
const METRICS: &str = "/metrics";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_every_route_once_and_refers_to_nothing_that_is_not_there() {
        let api = Api::new();
        let document: serde_json::Value = serde_json::from_str(&api.document).expect("it is JSON");
        let operations: Vec<&str> = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|path| path.as_object().expect("operations").values())
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        assert_eq!(operations.len(), api.routes.len());
        let mut unique = operations.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), operations.len(), "{operations:?}");
        for part in api.document.split("\"$ref\":\"").skip(1) {
            let reference = part.split('"').next().expect("a text ends");
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn paths_of_the_api_are_told_from_others() {
        for (path, is_api) in
            [("/api/v1", true), ("/api/v1/status", true), ("/api/v1x", false), ("/", false), ("/metrics", true)]
        {
            assert_eq!(is_below(path), is_api, "{path}");
        }
    }
}
