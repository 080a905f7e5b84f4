//! The web console, as it is served.

pub(crate) struct Asset {
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static [u8],
    pub(crate) etag: &'static str,
    pub(crate) immutable: bool,
}

pub(crate) fn asset(path: &str) -> Option<Asset> {
    (path.is_empty()).then_some(Asset {
        content_type: "text/html",
        body: b"<!doctype html>",
        etag: "\"0\"",
        immutable: false,
    })
}

pub(crate) fn content_security_policy() -> String {
    "default-src 'none'".to_owned()
}
