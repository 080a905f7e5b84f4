//! In which form the client wants its answer.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// The media type of server-sent events.
pub(crate) const EVENTS: &str = "text/event-stream";

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
        let index = wanted(headers, Self::ALL.iter().map(|(_, name)| *name))?;
        Some(Self::ALL[index].0)
    }
}

/// The place of the media type that the `Accept` headers ask for most, by RFC 9110, section 12.5.1:
/// of the ranges that hold for a type the most specific one gives its weight. Of types of the same
/// weight it is the one that was named most precisely, then the one that was named first, then the
/// first of `offered`. `None` when none of them is accepted.
pub(crate) fn wanted<'a>(
    headers: &HeaderMap,
    offered: impl Iterator<Item = &'a str>,
) -> Option<usize> {
    let ranges: Vec<Range> = headers
        .get_all(ACCEPT)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .enumerate()
        .filter_map(|(place, text)| Range::parse(place, text))
        .collect();
    if ranges.is_empty() {
        return Some(0);
    }
    let rated = offered.enumerate().filter_map(|(index, name)| {
        let of_type = ranges.iter().filter_map(|range| Some((range.precision(name)?, range)));
        // The last of equals is the greatest: of two that say the same the first one counts.
        let (precision, range) = of_type.rev().max_by_key(|(precision, _)| *precision)?;
        (range.weight > 0).then_some((range.weight, precision, range.place, index))
    });
    let best =
        rated.max_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(b.2.cmp(&a.2)).then(b.3.cmp(&a.3)));
    best.map(|(.., index)| index)
}

/// One range of media types.
struct Range {
    name: String,
    /// In thousandths.
    weight: u16,
    place: usize,
}

impl Range {
    /// `None` for an empty place between commas. A weight that is none counts as 0.
    fn parse(place: usize, text: &str) -> Option<Self> {
        let mut parameters = text.split(';').map(str::trim);
        let name = parameters.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parameters.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim_end().eq_ignore_ascii_case("q").then(|| value.trim())
        });
        let weight = match weight {
            None => 1000,
            Some(text) => {
                let weight = text.parse().ok().filter(|weight| (0.0..=1.0).contains(weight));
                weight.map_or(0, |weight: f32| (weight * 1000.0).round() as u16)
            }
        };
        (!name.is_empty()).then_some(Self { name, weight, place })
    }

    /// How precisely it names this type, if it does.
    fn precision(&self, name: &str) -> Option<u8> {
        if self.name == name {
            return Some(2);
        }
        match self.name.strip_suffix('*')? {
            "*/" => Some(0),
            kind if kind.ends_with('/') && name.starts_with(kind) => Some(1),
            _ => None,
        }
    }
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
            ("application/x-ndjson;Q=0.1, application/json;Q=0.9", Some(Format::Json)),
            ("text/html, */*;q=0.1", Some(Format::Json)),
            ("text/html", None),
            ("text/html, */*;q=0", None),
            ("application/json;q=0", None),
            // What is excluded by name is not let in by a range.
            ("application/json;q=0, application/*", Some(Format::NdJson)),
            ("application/json;q=0, */*;q=0.1", Some(Format::NdJson)),
            ("*/*, application/json;q=0.5, application/x-ndjson;q=0.4", Some(Format::Sse)),
            ("text/*", Some(Format::Sse)),
            ("application/x-ndjson, */*", Some(Format::NdJson)),
            ("*/*, application/x-ndjson", Some(Format::NdJson)),
            ("text/event-stream, application/json", Some(Format::Sse)),
            ("application/json, text/event-stream", Some(Format::Json)),
            ("application/json; charset=utf-8 ; q = 0.2, text/*;q=0.3", Some(Format::Sse)),
            ("application/json;q=nonsense", None),
            ("application/json;q=2", None),
            ("", Some(Format::Json)),
            (" , ,", Some(Format::Json)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a header"));
            assert_eq!(Format::wanted(&headers), wanted, "{accept}");
        }
        assert_eq!(Format::wanted(&HeaderMap::new()), Some(Format::Json));
    }
}
