//! Forms of a batch's results beside JSON, which others bring.

use std::fmt;
use std::sync::Arc;

use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use splengine_core::batch::BatchResults;
use tokio::task::spawn_blocking;

use crate::headers::header;
use crate::negotiate;
use crate::problem::Problem;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Write = dyn Fn(&BatchResults) -> Result<Bytes, BoxError> + Send + Sync;

/// A form, by its media type.
#[derive(Clone)]
pub(crate) struct ResultFormat {
    pub(crate) media_type: &'static str,
    extension: &'static str,
    write: Arc<Write>,
}

impl ResultFormat {
    /// # Panics
    ///
    /// Where one of the names is none.
    pub(crate) fn new(
        media_type: &'static str,
        extension: &'static str,
        write: Arc<Write>,
    ) -> Self {
        // RFC 6838, section 4.2, but capitals.
        let is_name = |name: &str| {
            let is_known = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&-^_.+".contains(&byte)
            };
            !name.is_empty() && name.bytes().all(is_known)
        };
        let is_type = media_type.split_once('/').is_some_and(|(a, b)| is_name(a) && is_name(b));
        assert!(is_type, "`{media_type}` is no media type in lower case, without parameters");
        assert!(is_name(extension), "`{extension}` is no ending of a file's name");
        Self { media_type, extension, write }
    }

    /// What a request asks for most: one of `forms`, or JSON, which is `None`.
    pub(crate) fn wanted(forms: &[Self], headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let names = || std::iter::once(JSON).chain(forms.iter().map(|form| form.media_type));
        let wanted = negotiate::wanted(headers, names()).ok_or_else(|| {
            let names: Vec<&str> = names().collect();
            let detail = format!("Accept must allow {}", names.join(" or "));
            Problem::new(StatusCode::NOT_ACCEPTABLE, detail)
        })?;
        // JSON is the first.
        Ok(wanted.checked_sub(1).map(|place| forms[place].clone()))
    }

    /// The results as a file.
    pub(crate) async fn answer(self, results: BatchResults) -> Result<Response, Problem> {
        let name = format!("attachment; filename=\"{}.{}\"", results.info.id, self.extension);
        let write = self.write;
        // What it costs is not ours to know.
        let written = spawn_blocking(move || write(&results)).await.map_err(BoxError::from);
        let body = written.and_then(|written| written).map_err(|error| {
            let form = self.media_type;
            tracing::error!(%error, form, "the results of a batch can't be told in this form");
            let detail = "the results can't be told in this form";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        })?;
        let media_type = HeaderValue::from_static(self.media_type);
        let headers = [(CONTENT_TYPE, media_type), (CONTENT_DISPOSITION, header(&name))];
        Ok((headers, body).into_response())
    }
}

impl fmt::Debug for ResultFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultFormat").field("media_type", &self.media_type).finish_non_exhaustive()
    }
}

const JSON: &str = "application/json";
