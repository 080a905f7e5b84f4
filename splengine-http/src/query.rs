//! Parameters of a request's query.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::problem::Problem;

/// The parameters of a query, all of which are known.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        Self::with_lists(query, known, &[])
    }

    /// The same with `lists`, which may be there more than once.
    pub(crate) fn with_lists(
        query: Option<&str>,
        known: &[&str],
        lists: &[&str],
    ) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
        let pairs: Vec<(String, String)> = pairs.collect();
        for (place, (name, _)) in pairs.iter().enumerate() {
            if lists.contains(&name.as_str()) {
                continue;
            }
            if !known.contains(&name.as_str()) {
                let known = [known, lists].concat();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::malformed(format!(
                    "the query has the unknown parameter `{name}`; there is: {known}"
                )));
            }
            if pairs[..place].iter().any(|(other, _)| other == name) {
                let detail = format!("the query has the parameter `{name}` more than once");
                return Err(Problem::malformed(detail));
            }
        }
        Ok(Self(pairs))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All that a name is given.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::malformed(format!("`{name}` must be true or false"))),
        }
    }
}

/// A request without a query, of which a route knows no parameter.
pub(crate) struct NoQuery;

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::of(parts.uri.query(), &[]).map(|_| Self)
    }
}
