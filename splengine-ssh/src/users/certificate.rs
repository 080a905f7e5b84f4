//! OpenSSH's user certificates (PROTOCOL.certkeys, draft-miller-ssh-cert). Pure.
//!
//! As sshd judges them, but that a certificate which names no user at all is refused by a
//! `cert-authority` line too.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg};
use splengine_core::UserName;

use super::address::Addresses;
use super::authorized_keys::Entry;
use super::grant::Refusal;
use super::key;
use super::options::Options;

/// What is known where a certificate is shown.
pub(super) struct Circumstances<'a> {
    pub(super) user: &'a UserName,
    /// The client's address, if it has one.
    pub(super) from: Option<IpAddr>,
    pub(super) now: SystemTime,
    /// Trusted for all users.
    pub(super) authorities: &'a [KeyData],
    /// The user's own lines.
    pub(super) entries: &'a [Entry],
    /// All authorities could be read.
    pub(super) has_authorities: bool,
    /// All of the user's lines could be read.
    pub(super) has_entries: bool,
}

/// What the certificate lets its bearer do. That the bearer has its key, the caller has seen.
pub(super) fn judge(
    certificate: &Certificate,
    circumstances: &Circumstances<'_>,
) -> Result<Options, Refusal> {
    let Circumstances { from, now, .. } = *circumstances;
    if certificate.cert_type() != CertType::User {
        return Err(Refusal::HostCertificate);
    }
    if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None }) {
        return Err(Refusal::Sha1);
    }
    let authority = certificate.signature_key();
    for key in [certificate.public_key(), authority] {
        key::check(key).map_err(Refusal::Key)?;
    }
    let own = own_terms(certificate, from)?;
    let now_secs = now.duration_since(UNIX_EPOCH).map_err(|_| Refusal::Validity)?.as_secs();
    // The signature again, which costs little: so this is right wherever it is asked from.
    let fingerprint = authority.fingerprint(HashAlg::Sha256);
    certificate.validate_at(now_secs, [&fingerprint]).map_err(|_| Refusal::Validity)?;

    // Where the user has lines of their own with this authority, these decide, as they may allow less; the last one
    // tells why not.
    let Circumstances { user, authorities, entries, has_authorities, has_entries, .. } =
        *circumstances;
    let mut of_lines = None;
    for entry in entries.iter().filter(|entry| entry.options.is_authority) {
        if entry.key == *authority {
            match by_line(certificate, &own, entry, circumstances) {
                Ok(terms) => return Ok(terms),
                Err(refusal) => of_lines = Some(refusal),
            }
        }
    }
    if !has_entries {
        return Err(Refusal::Files);
    }
    if let Some(refusal) = of_lines {
        return Err(refusal);
    }
    if !authorities.contains(authority) {
        return Err(if has_authorities { Refusal::Authority } else { Refusal::Files });
    }
    require_principal(certificate, &[user.as_str()])?;
    require_touchless(certificate, own.no_touch)?;
    Ok(own)
}

/// What the certificate itself says.
fn own_terms(certificate: &Certificate, from: Option<IpAddr>) -> Result<Options, Refusal> {
    let mut terms = Options {
        pty: certificate.extensions().contains_key("permit-pty"),
        forwarding: certificate.extensions().contains_key("permit-port-forwarding"),
        no_touch: certificate.extensions().contains_key("no-touch-required"),
        expires: (certificate.valid_before() != u64::MAX)
            .then(|| certificate.valid_before_time())
            .flatten(),
        ..Options::default()
    };
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            "force-command" => terms.command = Some(value.clone()),
            "source-address" => {
                let addresses = Addresses::parse_networks(value).ok_or(Refusal::CriticalOption)?;
                if !from.is_some_and(|from| addresses.admit(from)) {
                    return Err(Refusal::CertificateFrom);
                }
            }
            _ => return Err(Refusal::CriticalOption),
        }
    }
    Ok(terms)
}

/// What both the certificate and the line allow.
fn by_line(
    certificate: &Certificate,
    own: &Options,
    entry: &Entry,
    circumstances: &Circumstances<'_>,
) -> Result<Options, Refusal> {
    entry.admit(circumstances.from, circumstances.now)?;
    let mut terms = entry.options.clone();
    match &terms.principals {
        Some(principals) => require_principal(certificate, principals)?,
        None => require_principal(certificate, &[circumstances.user.as_str()])?,
    }
    terms.no_touch &= own.no_touch;
    require_touchless(certificate, terms.no_touch)?;
    terms.pty &= own.pty;
    terms.forwarding &= own.forwarding;
    terms.expires = [terms.expires, own.expires].into_iter().flatten().min();
    match (&terms.command, &own.command) {
        (Some(one), Some(other)) if one != other => return Err(Refusal::Commands(entry.line)),
        (None, Some(command)) => terms.command = Some(command.clone()),
        _ => {}
    }
    Ok(terms)
}

fn require_principal(certificate: &Certificate, names: &[impl AsRef<str>]) -> Result<(), Refusal> {
    let is_named =
        |principal: &String| names.iter().any(|name| name.as_ref() == principal.as_str());
    if certificate.valid_principals().iter().any(is_named) {
        Ok(())
    } else {
        Err(Refusal::Principal)
    }
}

fn require_touchless(certificate: &Certificate, no_touch: bool) -> Result<(), Refusal> {
    let is_in_device = key::is_in_device(certificate.public_key());
    if is_in_device && !no_touch { Err(Refusal::Touch) } else { Ok(()) }
}

/// For the log.
pub(super) fn describe(certificate: &Certificate) -> String {
    let id: String = certificate.key_id().chars().take(100).collect();
    format!(
        "certificate {id:?} (serial {}) of {} by {}",
        certificate.serial(),
        key::describe(certificate.public_key()),
        key::describe(certificate.signature_key())
    )
}

#[cfg(test)]
mod tests;
