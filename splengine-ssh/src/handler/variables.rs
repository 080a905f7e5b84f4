//! The environment of what runs on a channel: what a client may set of it, and what is set for it.

use russh::ChannelId;
use splengine_core::net::Peer;

use super::Client;

impl Client {
    /// The addresses of both ends, as sshd tells commands of them.
    pub(super) fn ends(&self) -> Vec<(String, String)> {
        let shell = self.context.engine.shell().first().cloned().unwrap_or_default();
        let mut ends = vec![("SHELL".to_owned(), shell)];
        // There are no addresses at the ends of a UNIX socket.
        if let (Peer::Tcp(from), Some(to)) = (self.peer, self.ours.tcp()) {
            let [from_ip, to_ip] = [from, to].map(|end| end.ip().to_canonical());
            let (from_port, to_port) = (from.port(), to.port());
            ends.extend([
                ("SSH_CLIENT".to_owned(), format!("{from_ip} {from_port} {to_port}")),
                ("SSH_CONNECTION".to_owned(), format!("{from_ip} {from_port} {to_ip} {to_port}")),
            ]);
        }
        ends
    }

    /// Sets a variable of what a channel is to start, if that may be set; returns whether it was.
    pub(super) fn set_variable(&mut self, id: ChannelId, name: &str, value: &str) -> bool {
        let takes =
            self.takes(name) && name.len() <= MAX_NAME_BYTES && value.len() <= MAX_VALUE_BYTES;
        match self.channels.get_mut(&id).filter(|channel| channel.is_fresh()) {
            Some(channel) if name == "SPL_SESSION_ID" && value.len() <= MAX_VALUE_BYTES => {
                channel.session = Some(value.to_owned());
                true
            }
            Some(channel) if name == "SPL_BACKGROUND" => match value {
                "keep" | "kill" => {
                    channel.keeps_background = value == "keep";
                    true
                }
                _ => false,
            },
            Some(channel) if takes && channel.has_room_for(name, value) => {
                channel.env.push((name.to_owned(), value.to_owned()));
                true
            }
            _ => false,
        }
    }

    /// Whether the settings and the engine let a client set the variable `name`.
    fn takes(&self, name: &str) -> bool {
        let named = |pattern: &str| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        !NEVER.iter().any(|pattern| named(pattern))
            && self.context.options.accept_env.iter().any(|pattern| named(pattern))
            && self.context.engine.accepts_env(name)
    }
}

/// What tells a loader, a shell or an interpreter what to run, or where from.
const NEVER: &[&str] = &[
    "LD_*",
    "DYLD_*",
    "PATH",
    "BASH_ENV",
    "ENV",
    "IFS",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "NODE_OPTIONS",
    "PYTHON*",
    "PERL5*",
    "RUBY*",
    "SPL_*",
];
/// Maximum length of a variable's name; a longer one is refused.
const MAX_NAME_BYTES: usize = 256;
/// Maximum length of a variable's value; a longer one is refused.
const MAX_VALUE_BYTES: usize = 4096;
