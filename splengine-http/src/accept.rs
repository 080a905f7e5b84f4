//! In which form the client wants its answer.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use crate::stream::EVENTS;

/// The forms of an execution's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON object at the end.
    Json,
    /// Events, one JSON object a line.
    NdJson,
    /// Events as server-sent events.
    Sse,
}

impl Format {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Json, "application/json"),
        (Self::NdJson, "application/x-ndjson"),
        (Self::Sse, EVENTS),
    ];

    pub(crate) fn media_type(self) -> &'static str {
        Self::ALL.iter().find(|(format, _)| *format == self).map_or("", |(_, name)| name)
    }

    /// What a request asks for most; `None` when it is nothing that we have. Without a wish it is
    /// JSON.
    pub(crate) fn wanted(headers: &HeaderMap) -> Option<Self> {
        wanted(headers, Self::Json, |range| match range {
            "*/*" | "application/*" => Some(Self::Json),
            "text/*" => Some(Self::Sse),
            name => Self::ALL.iter().find(|(_, ours)| *ours == name).map(|(form, _)| *form),
        })
    }
}

/// What the `Accept` headers (RFC 9110, section 12.5.1) ask for most; `None` when it is nothing
/// that is `known` by its media range, in lower case. Without any it is `default`.
pub(crate) fn wanted<T>(
    headers: &HeaderMap,
    default: T,
    known: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let mut best: Option<(f32, T)> = None;
    let mut asked = false;
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            asked = true;
            let mut parameters = range.split(';').map(str::trim);
            let name = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parameters
                .find_map(|parameter| parameter.strip_prefix("q="))
                .map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if let Some(form) = known(&name)
                && weight > best.as_ref().map_or(0.0, |(weight, _)| *weight)
            {
                best = Some((weight, form));
            }
        }
    }
    if asked { best.map(|(_, form)| form) } else { Some(default) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_known_form_wins() {
        for (accept, wanted) in [
            ("*/*", Some(Format::Json)),
            ("application/json", Some(Format::Json)),
            ("text/event-stream", Some(Format::Sse)),
            ("Application/X-NDJSON; q=0.5", Some(Format::NdJson)),
            ("application/json;q=0.1, application/x-ndjson", Some(Format::NdJson)),
            ("text/html, */*;q=0.1", Some(Format::Json)),
            ("text/html", None),
            ("application/json;q=0", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a header"));
            assert_eq!(Format::wanted(&headers), wanted, "{accept}");
        }
        assert_eq!(Format::wanted(&HeaderMap::new()), Some(Format::Json));
    }
}
