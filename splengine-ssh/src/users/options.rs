//! The options before a key (sshd(8), AUTHORIZED_KEYS FILE FORMAT). Pure.

use std::time::SystemTime;

use super::address::Addresses;
use super::error::LineError;
use crate::targets::Targets;

/// What a line of `authorized_keys` says of its key.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Options {
    /// The key signs certificates, and lets nobody in itself.
    pub(crate) is_authority: bool,
    /// For an authority: the names that its certificates may bear for this user.
    pub(crate) principals: Option<Vec<String>>,
    /// Run instead of whatever is asked for. An empty one runs nothing.
    pub(crate) command: Option<String>,
    /// The first of each name counts.
    pub(crate) environment: Vec<(String, String)>,
    /// The earliest of them.
    pub(crate) expires: Option<SystemTime>,
    pub(crate) from: Option<Addresses>,
    pub(crate) pty: bool,
    /// Whether connections may be forwarded at all.
    pub(crate) forwarding: bool,
    /// To where alone; `None` is to what the server's configuration allows.
    pub(crate) permit_open: Option<Targets>,
    /// Our own: whether what runs in the background outlives its command. `None` is as the client asks.
    pub(crate) keeps_background: Option<bool>,
    /// Our own: terminals may be looked at, and nothing else.
    pub(crate) view_only: bool,
    /// A key in a device need not be touched.
    pub(crate) no_touch: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            is_authority: false,
            principals: None,
            command: None,
            environment: Vec::new(),
            expires: None,
            from: None,
            pty: true,
            forwarding: true,
            permit_open: None,
            keeps_background: None,
            view_only: false,
            no_touch: false,
        }
    }
}

impl Options {
    /// The options, and what follows them.
    pub(super) fn parse(text: &str) -> Result<(Self, &str), LineError> {
        let mut options = Self::default();
        let mut rest = text;
        for place in 1.. {
            let end = rest.find(['=', ',', '"', ' ', '\t', '\r']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            if let Some(value) = after.strip_prefix('=') {
                let name = known(&VALUES, name).ok_or(LineError::UnknownOption(place))?;
                let (value, after) = unquote(value).ok_or(LineError::Quotes(name))?;
                options.assign(name, value)?;
                rest = after;
            } else {
                let name = known(&SWITCHES, name).ok_or(LineError::UnknownOption(place))?;
                options.switch(name)?;
                rest = after;
            }
            match rest.chars().next() {
                Some(',') => rest = &rest[1..],
                Some(' ' | '\t' | '\r') | None => break,
                Some(_) => return Err(LineError::Separator(place)),
            }
        }
        Ok((options, rest))
    }

    fn switch(&mut self, name: &'static str) -> Result<(), LineError> {
        match name {
            "restrict" => {
                self.pty = false;
                self.forwarding = false;
            }
            "no-port-forwarding" => self.forwarding = false,
            "port-forwarding" => self.forwarding = true,
            "no-pty" => self.pty = false,
            "pty" => self.pty = true,
            "cert-authority" => self.is_authority = true,
            "view-only" => self.view_only = true,
            "no-touch-required" => self.no_touch = true,
            "touch-required" => self.no_touch = false,
            "verify-required" => return Err(LineError::Verify),
            // X11 and agents are forwarded to nobody, and there are no rc files.
            _ => {}
        }
        Ok(())
    }

    fn assign(&mut self, name: &'static str, value: String) -> Result<(), LineError> {
        match name {
            "command" => once(&mut self.command, value, name),
            "from" => {
                let addresses = Addresses::parse(&value).ok_or(LineError::From)?;
                once(&mut self.from, addresses, name)
            }
            "principals" => {
                let principals: Vec<_> = value.split(',').map(str::to_owned).collect();
                if principals.iter().any(String::is_empty) {
                    return Err(LineError::Principals);
                }
                once(&mut self.principals, principals, name)
            }
            "expiry-time" => {
                let time = parse_time(&value).ok_or(LineError::Time)?;
                self.expires = Some(self.expires.map_or(time, |earlier| earlier.min(time)));
                Ok(())
            }
            "environment" => {
                let (name, value) = value.split_once('=').ok_or(LineError::Environment)?;
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                if name.is_empty() || !name.bytes().all(is_name) {
                    return Err(LineError::Environment);
                }
                if self.environment.iter().all(|(known, _)| known != name) {
                    self.environment.push((name.to_owned(), value.to_owned()));
                }
                Ok(())
            }
            "permitopen" => {
                let targets = self.permit_open.get_or_insert_default();
                targets.add(&value).map_err(|_| LineError::PermitOpen)
            }
            "background" => {
                let keeps = match value.as_str() {
                    "keep" => true,
                    "kill" => false,
                    _ => return Err(LineError::Background),
                };
                once(&mut self.keeps_background, keeps, name)
            }
            // `permitlisten` and `tunnel` narrow what is refused to all.
            _ => Ok(()),
        }
    }
}

/// Case does not count, as with OpenSSH.
fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().copied().find(|known| known.eq_ignore_ascii_case(name))
}

fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), LineError> {
    if slot.replace(value).is_some() { Err(LineError::Twice(name)) } else { Ok(()) }
}

/// A value in quotes, and what follows it. Only `\"` is an escape; any other backslash is itself.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let end = rest.find(['"', '\\'])?;
        value.push_str(&rest[..end]);
        rest = &rest[end..];
        if let Some(after) = rest.strip_prefix("\\\"") {
            value.push('"');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('\\') {
            value.push('\\');
            rest = after;
        } else {
            return Some((value, &rest[1..]));
        }
    }
}

/// `YYYYMMDD[HHMM[SS]]`, in UTC with a `Z` or without: the server has no time zone of its own.
fn parse_time(text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        14 => digits.to_owned(),
        _ => return None,
    };
    let (date, time) = digits.split_at(8);
    let time = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        &date[4..6],
        &date[6..],
        &time[..2],
        &time[2..4],
        &time[4..]
    );
    humantime::parse_rfc3339(&time).ok()
}

const SWITCHES: [&str; 17] = [
    "agent-forwarding",
    "cert-authority",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-user-rc",
    "no-verify-required",
    "no-x11-forwarding",
    "port-forwarding",
    "pty",
    "restrict",
    "touch-required",
    "user-rc",
    "verify-required",
    "view-only",
    "x11-forwarding",
];
const VALUES: [&str; 9] = [
    "background",
    "command",
    "environment",
    "expiry-time",
    "from",
    "permitlisten",
    "permitopen",
    "principals",
    "tunnel",
];
