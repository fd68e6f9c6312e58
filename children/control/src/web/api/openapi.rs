//! The OpenAPI 3.1 document, made from the table of routes.

use serde_json::{Map, Value, json};

use super::super::problem::{Problem, title};
use super::table::{Access, METRICS, Route, Table};

/// The document, and the routes that it describes.
pub(crate) fn document(mut table: Table) -> (String, Vec<Route>) {
    let problem = table.schemas.subschema_for::<Problem>().to_value();
    let mut paths: Map<String, Value> = Map::new();
    for route in &table.routes {
        let path = if route.path == METRICS { METRICS.to_owned() } else { format!("{}{}", super::BASE, route.path) };
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        operations[route.method.word().to_ascii_lowercase()] = operation(route);
    }
    let responses: Map<String, Value> = PROBLEMS
        .iter()
        .map(|(status, _)| {
            let content = json!({"application/problem+json": {"schema": problem}});
            (status.to_string(), json!({"description": title(*status), "content": content}))
        })
        .collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "multusd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything that people and programs can see and do. Errors are RFC 9457 problems.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": table.schemas.take_definitions(true),
            "responses": responses,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "multus",
                    "description": "Set by logging in; named __Host-multus over TLS. What changes something needs the header X-CSRF-Token, too.",
                },
            },
        },
    });
    (document.to_string(), table.routes)
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
        .collect();
    if let Some(query) = &route.about.query {
        let required = |name: &str| query["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
        for (name, schema) in query["properties"].as_object().into_iter().flatten() {
            let description = schema["description"].clone();
            let (required, schema) = (required(name), not_null(schema.clone()));
            let parameter = json!({"name": name, "in": "query", "required": required, "schema": schema, "description": description});
            parameters.push(parameter);
        }
    }
    let changes_tagged = route.about.tagged && route.method.changes();
    if changes_tagged {
        let description = "The ETag that came with the document; instead of version in the body.";
        parameters.push(
            json!({"name": "If-Match", "in": "header", "schema": {"type": "string"}, "description": description}),
        );
    }
    let mut responses = Map::new();
    match &route.about.answer {
        None => drop(responses.insert("204".to_owned(), json!({"description": "Done"}))),
        Some((media_type, schema)) => {
            let mut content = Map::new();
            content.insert((*media_type).to_owned(), json!({"schema": schema}));
            let mut answer = json!({"description": "Done", "content": content});
            if route.about.tagged {
                answer["headers"] = json!({"ETag": {"description": "The version", "schema": {"type": "string"}}});
            }
            responses.insert("200".to_owned(), answer);
        }
    }
    for (status, when) in PROBLEMS {
        let fits = match when {
            When::Always => true,
            When::Body => route.about.body.is_some(),
            When::Changes => route.method.changes(),
            When::Tagged => changes_tagged,
        };
        if fits {
            responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{status}")}));
        }
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "description": who(route.access),
        "parameters": parameters,
        "responses": responses,
        "security": if route.access == Access::Open { json!([{}]) } else { json!([{"token": []}, {"session": []}]) },
    });
    if let Some(body) = &route.about.body {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": body}}});
    }
    operation
}

/// In a query there is no `null`: a parameter is there or not.
fn not_null(mut schema: Value) -> Value {
    if let Some(types) = schema["type"].as_array() {
        let left: Vec<Value> = types.iter().filter(|kind| **kind != "null").cloned().collect();
        schema["type"] = match <[Value; 1]>::try_from(left) {
            Ok([only]) => only,
            Err(more) => more.into(),
        };
    }
    schema
}

fn who(access: Access) -> String {
    match access {
        Access::Open => "Anybody may.".to_owned(),
        Access::Own => "Whoever is logged in may.".to_owned(),
        Access::Level(level) => format!("Right level {level} or a lower number is needed."),
    }
}

/// Which problems an operation can have.
enum When {
    Always,
    Body,
    Changes,
    Tagged,
}

const PROBLEMS: [(u16, When); 16] = [
    (400, When::Always),
    (401, When::Always),
    (403, When::Always),
    (404, When::Always),
    (405, When::Always),
    (408, When::Changes),
    (409, When::Always),
    (412, When::Tagged),
    (413, When::Changes),
    (415, When::Body),
    (421, When::Always),
    (422, When::Always),
    (429, When::Always),
    (500, When::Always),
    (503, When::Always),
    (504, When::Always),
];

#[cfg(test)]
mod tests {
    use super::super::super::problem::title;
    use super::*;

    #[test]
    fn every_problem_that_is_sent_is_listed_and_has_words() {
        for (status, _) in PROBLEMS {
            assert_ne!(title(status), "Error", "{status}");
        }
        // What the guard answers when the workers do not.
        for status in [408, 413, 421, 503, 504] {
            assert!(PROBLEMS.iter().any(|(listed, _)| *listed == status), "{status}");
        }
    }
}
