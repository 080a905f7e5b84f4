//! Keys: which are strong enough, and their text form. Pure.

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{HashAlg, PublicKey};

/// Why a key is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("there is no key in it")]
    Missing,
    #[error("its key is broken: a key is its type, a space and base64, as in the file *.pub")]
    Malformed,
    #[error(
        "a key of its type is not taken: ssh-ed25519, ecdsa-sha2-nistp256, -384 and -521, ssh-rsa, \
         sk-ssh-ed25519@openssh.com and sk-ecdsa-sha2-nistp256@openssh.com are"
    )]
    Type,
    #[error("an RSA key of {0} bits is not taken: {MIN_RSA_BITS} to {MAX_RSA_BITS} bits are")]
    RsaSize(usize),
    #[error("a certificate does not belong here: list its authority's key, as `cert-authority`")]
    Certificate,
}

/// Whether this begins a key, and not the options before one.
pub(super) fn is_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-", "rsa-sha2-"].iter().any(|prefix| word.starts_with(prefix))
}

/// A key and whatever comment: `type base64 comment`.
pub(super) fn parse(text: &str) -> Result<KeyData, KeyError> {
    let mut words = text.split(BLANK).filter(|word| !word.is_empty());
    let kind = words.next().ok_or(KeyError::Missing)?;
    if !is_type(kind) {
        return Err(KeyError::Missing);
    }
    if kind.contains("-cert-v01@") {
        return Err(KeyError::Certificate);
    }
    let base64 = words.next().ok_or(KeyError::Malformed)?;
    let key = PublicKey::from_openssh(&format!("{kind} {base64}"));
    let key = key.map_err(|_| KeyError::Malformed)?;
    Ok(key.key_data().clone())
}

/// Whether a key of this type and size is taken.
pub(super) fn check(key: &KeyData) -> Result<(), KeyError> {
    match key {
        KeyData::Ed25519(_)
        | KeyData::Ecdsa(_)
        | KeyData::SkEd25519(_)
        | KeyData::SkEcdsaSha2NistP256(_) => Ok(()),
        KeyData::Rsa(key) => {
            let modulus = key.n().as_positive_bytes().unwrap_or_default();
            let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
            let bits = modulus.len() * 8 - zeros;
            let fits = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits);
            if fits { Ok(()) } else { Err(KeyError::RsaSize(bits)) }
        }
        KeyData::Certificate(_) => Err(KeyError::Certificate),
        _ => Err(KeyError::Type),
    }
}

/// Whether the key lives in a device that can be asked for a touch.
pub(super) fn is_in_device(key: &KeyData) -> bool {
    matches!(key, KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_))
}

/// For logs: type and fingerprint.
pub(super) fn describe(key: &KeyData) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// What parts words in OpenSSH's files; a file may have been written with CRLF.
pub(super) const BLANK: [char; 3] = [' ', '\t', '\r'];

const MIN_RSA_BITS: usize = 2048;
/// No more can be verified here.
const MAX_RSA_BITS: usize = 8192;
