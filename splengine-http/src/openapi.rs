//! The OpenAPI document, generated from the routes and their types.

use serde_json::{Value, json};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, RefOr, Schema};
use utoipa::{Modify, OpenApi};

use crate::negotiate::EVENTS;
use crate::result_formats::ResultFormat;
use crate::routes;

/// The document of a server that has these forms of results.
pub(crate) fn document(forms: &[ResultFormat]) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let paths = &mut document.paths.paths;
    let submit = paths.get_mut("/api/v1/batches").and_then(|path| path.post.as_mut());
    offer(forms, submit);
    let results = paths.get_mut("/api/v1/batches/{id}/results").and_then(|path| path.get.as_mut());
    offer(forms, results);
    document
}

/// The same in JSON, with server-sent events as what each of them consists of.
pub(crate) fn json(forms: &[ResultFormat]) -> serde_json::Result<String> {
    let mut document = serde_json::to_value(document(forms))?;
    describe_events(&mut document);
    describe_summary(&mut document);
    describe_fail_status(&mut document["paths"]["/api/v1/execute"]["post"]["responses"]);
    serde_json::to_string(&document)
}

/// Returns a document, which must be an object with members, that says where its server is.
pub(crate) fn with_server(document: &[u8], url: &str) -> Vec<u8> {
    let mut placed = format!("{{\"servers\":{},", json!([{ "url": url }])).into_bytes();
    placed.extend_from_slice(document.get(1..).unwrap_or_default());
    placed
}

/// What a schema says of `text/event-stream` is said of the data of one event.
fn describe_events(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.get_mut("schema") {
                    Some(schema) if name == EVENTS => {
                        let data = schema.take();
                        *schema = json!({
                            "type": "object",
                            "description": "One event; the stream holds any number of them.",
                            "required": ["event", "data"],
                            "properties": {
                                "event": {"type": "string", "description": "Its name."},
                                "id": {
                                    "type": "string",
                                    "description": "Of a batch: what `Last-Event-ID` is to be to resume after it. \
                                        Other streams can't be resumed.",
                                },
                                "data": {
                                    "type": "string",
                                    "contentMediaType": "application/json",
                                    "contentSchema": data,
                                },
                            },
                        });
                    }
                    _ => describe_events(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(describe_events),
        _ => {}
    }
}

/// A batch without its steps is what the list has of it.
fn describe_summary(document: &mut Value) {
    let operation = &mut document["paths"]["/api/v1/batches/{id}"]["get"];
    let schema = &mut operation["responses"]["200"]["content"]["application/json"]["schema"];
    let whole = schema.take();
    *schema = json!({"anyOf": [whole, {"$ref": "#/components/schemas/Batch"}]});
}

/// With `failStatus` a run that failed is answered under a status of the client's.
fn describe_fail_status(responses: &mut Value) {
    let result = responses["200"]["content"]["application/json"].clone();
    let Some(responses) = responses.as_object_mut() else { return };
    for class in ["4XX", "5XX"] {
        let description = "With `failStatus`: it ran and failed.";
        responses.insert(class.to_owned(), json!({"description": description, "content": {}}));
    }
    let failed = responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5']));
    for (_, response) in failed {
        response["content"]["application/json"] = result.clone();
    }
}

fn offer(forms: &[ResultFormat], operation: Option<&mut Operation>) {
    let responses = operation.map(|operation| &mut operation.responses.responses);
    let response = responses.and_then(|responses| responses.get_mut("200"));
    let Some(RefOr::T(response)) = response else { return };
    for form in forms {
        // What the media type says needs no schema.
        let content = Content::new(None::<RefOr<Schema>>);
        response.content.insert(form.media_type.to_owned(), content.into());
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "splengine",
        description = "Runs commands for others.",
        license(name = "MIT", identifier = "MIT"),
    ),
    paths(
        routes::execute::execute,
        routes::executions::list,
        routes::executions::cancel,
        routes::batches::submit,
        routes::batches::list,
        routes::batches::get,
        routes::batches::events,
        routes::step_output::output,
        routes::step_log::log,
        routes::step_stdin::write,
        routes::batches::rerun,
        routes::results::results,
        routes::batches::cancel,
        routes::sessions::list,
        routes::sessions::create,
        routes::sessions::get,
        routes::sessions::change,
        routes::sessions::end,
        routes::sessions::screen,
        routes::sessions::recording,
        routes::sessions::input,
        routes::sessions::save,
        routes::sessions::list_shares,
        routes::sessions::share,
        routes::sessions::take_back_shares,
        routes::sessions::take_back_share,
        routes::sessions::list_saved,
        routes::sessions::get_saved,
        routes::sessions::remove_saved,
        routes::sessions::ticket,
        routes::files::read,
        routes::files::write,
        routes::files::remove,
        routes::files::transfer,
        routes::service::whoami,
        routes::service::definition,
        routes::service::health,
        routes::service::ready,
    ),
    modifiers(&BearerTokens),
)]
struct Document;

struct BearerTokens;

impl Modify for BearerTokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}
