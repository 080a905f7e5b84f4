//! Conversions from types of SSH to those of the engine. Pure.

use russh::Sig;
use splengine_core::execute::Signal;
use splengine_core::terminal::Size;

pub(super) fn size(cols: u32, rows: u32) -> Size {
    let short = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    // What has no size of its own, such as a script, says 0.
    if cols == 0 || rows == 0 { Size::default() } else { Size::clamped(short(cols), short(rows)) }
}

pub(super) fn is_name_of_terminal(term: &str) -> bool {
    term.len() <= 64 && term.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._".contains(&b))
}

/// RFC 4254, section 6.10, and what OpenSSH sends beside it.
pub(super) fn known(signal: &Sig) -> Option<Signal> {
    let number = match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) if name == "USR2" => 12,
        Sig::Custom(_) => return None,
    };
    Signal::from_number(number)
}

/// Whether this client names a link before what it leads to, as the draft has it. OpenSSH's server
/// takes them the other way round, and so do most clients; these ask who the server is.
pub(super) fn links_first(client: &[u8]) -> bool {
    const ASK: [&[u8]; 5] = [
        b"SSH-2.0-AsyncSSH",
        b"SSH-2.0-WinSCP",
        b"SSH-2.0-libssh_",
        b"SSH-2.0-ssh2js",
        b"SSH-2.0-phpseclib",
    ];
    ASK.iter().any(|name| client.starts_with(name))
}
