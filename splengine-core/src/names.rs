//! Lists of names of environment variables.

/// Whether one of `patterns` names `name`. A `*` at a pattern's end stands for any rest.
pub(crate) fn any_names<'a>(patterns: impl IntoIterator<Item = &'a str>, name: &[u8]) -> bool {
    patterns.into_iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == pattern.as_bytes(),
    })
}
