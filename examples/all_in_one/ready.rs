//! The messages that are printed once the servers have their addresses.

use std::io::Write as _;

use crate::servers::Opened;
use crate::settings::Settings;

/// Reports it to the log and on standard output, and prints the link with a token that was made on
/// standard error.
pub(crate) fn announce(settings: &Settings, opened: &Opened) {
    let mut ready = vec!["\"ready\":true".to_owned()];
    for (server, address) in &opened.addresses {
        let address = serde_json::Value::from(address.to_string());
        ready.push(format!("\"{server}\":{address}"));
    }
    if let Some(token) = &settings.made_token {
        ready.push(format!("\"token\":\"{}\"", token.expose()));
        if let Some(page) = &opened.page {
            // Among the lines of the log it would be overlooked.
            let link = format!("\nOpen the console:\n{page}#token={}\n\n", token.expose());
            let _ = std::io::stderr().write_all(link.as_bytes());
        }
    }
    tracing::warn!(
        uid = rustix::process::geteuid().as_raw(),
        "whatever callers with the scopes `execute` or `sessions` run, they all run as this one user: \
         each of them can read and change what the others' programs and files hold"
    );
    tracing::info!(root = %settings.root.display(), "ready");
    let line = format!("{{{}}}\n", ready.join(","));
    let _ = std::io::stdout().write_all(line.as_bytes()).and_then(|()| std::io::stdout().flush());
}
