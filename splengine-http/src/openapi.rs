//! The OpenAPI document, generated from the routes and their types.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::routes;

/// The document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
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
        routes::batches::submit,
        routes::batches::list,
        routes::batches::get,
        routes::batches::events,
        routes::batches::output,
        routes::batches::rerun,
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
