//! The web console, as it is served. The build script puts it in.

/// A part of the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asset {
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static [u8],
    pub(crate) etag: &'static str,
}

/// What stands at `path`, which counts from the page.
pub(crate) fn asset(path: &str) -> Option<Asset> {
    let (_, body, etag) = ASSETS.iter().find(|(name, ..)| *name == path)?;
    let content_type = match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "text/html; charset=utf-8",
    };
    Some(Asset { content_type, body, etag })
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

const ASSETS: &[(&str, &[u8], &str)] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_all_that_it_names() {
        let index = asset("").expect("a page");
        let text = std::str::from_utf8(index.body).expect("text");
        let names =
            |part: &&str| [".js", ".css", ".svg", ".txt"].iter().any(|end| part.ends_with(end));
        for name in text.split('"').filter(names) {
            let elsewhere = name.starts_with("https://");
            assert!(elsewhere || asset(name).is_some(), "{name}");
            assert!(!elsewhere || content_security_policy().contains("https://"), "{name}");
        }
        assert!(asset("../Cargo.toml").is_none());
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
