//! The web console, as it is served. The build script puts it in.

/// A part of the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asset {
    /// Where it stands, counted from the page, which is itself the empty name.
    pub(crate) name: &'static str,
    pub(crate) body: &'static [u8],
    /// The same, compressed.
    pub(crate) gzip: &'static [u8],
    /// A hash of it.
    pub(crate) tag: &'static str,
}

impl Asset {
    pub(crate) fn content_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("js" | "mjs") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("txt") => "text/plain; charset=utf-8",
            _ => "text/html; charset=utf-8",
        }
    }

    /// Whether a browser shows it as a document of its own, where it is opened.
    pub(crate) fn is_document(&self) -> bool {
        !matches!(self.content_type().split(';').next(), Some("text/javascript" | "text/css"))
    }

    /// How long it may be kept. What has its version in its address never changes.
    pub(crate) fn cache_control(&self) -> &'static str {
        if self.name.is_empty() { "no-cache" } else { "public, max-age=31536000, immutable" }
    }
}

/// What stands at `path`, which counts from the page.
pub(crate) fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == path)
}

/// What the page may load, and from where: all of it from here, and nothing may frame it. xterm.js
/// makes style elements. Where it could not be embedded, it comes from the CDN, by its hash.
pub(crate) fn content_security_policy() -> String {
    let cdn = env!("SPLENGINE_CONSOLE_CDN");
    let cdn = if cdn.is_empty() { String::new() } else { format!(" {cdn}") };
    format!(
        "default-src 'none'; script-src 'self'{cdn}; style-src 'self' 'unsafe-inline'{cdn}; \
         img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
}

const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_all_that_it_names() {
        let index = asset("").expect("a page");
        let text = std::str::from_utf8(index.body).expect("text");
        let names = |part: &&str| {
            [".js", ".mjs", ".css", ".svg", ".txt"].iter().any(|end| part.ends_with(end))
        };
        for name in text.split('"').filter(names) {
            let elsewhere = name.starts_with("https://");
            assert!(elsewhere || asset(name).is_some(), "{name}");
            assert!(!elsewhere || content_security_policy().contains("https://"), "{name}");
        }
        assert!(asset("../Cargo.toml").is_none());
    }

    #[test]
    fn the_page_and_all_that_it_loads_are_small_when_compressed() {
        let loaded = ASSETS.iter().filter(|asset| !asset.name.contains("LICENSE"));
        let bytes: usize = loaded.map(|asset| asset.gzip.len()).sum();
        assert!(bytes < 250_000, "{bytes} bytes");
        assert!(ASSETS.iter().all(|asset| asset.gzip.starts_with(&[0x1f, 0x8b])));
    }

    #[test]
    fn no_script_stands_in_the_page() {
        let index = asset("").expect("a page");
        let text = std::str::from_utf8(index.body).expect("text");
        assert!(text.split("<script").skip(1).all(|script| script.contains("></script>")));
        for rest in text.split(" on").skip(1) {
            let rest = rest.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
            assert!(!rest.starts_with('='), "an event attribute");
        }
    }
}
