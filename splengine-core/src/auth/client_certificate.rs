use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// End-entity certificate of a client (X.509), which the server's TLS has verified: an authority that the
/// server trusts has signed it, it was valid when the connection began, and the client has its private key.
/// Nothing of that is checked here, nor is the certificate parsed; whoever makes such a value vouches for it.
/// Cheap to clone. `Debug` shows the fingerprint alone.
///
/// A server makes it of the certificate that its TLS library has verified, and gives it to
/// [`CredentialSource::with_certificate`](crate::auth::CredentialSource::with_certificate). An application
/// that nests a service over HTTP of ours behind its own TLS puts it into the extensions of each request
/// instead, and never where the client alone says that it has such a certificate. What else the client has
/// sent, such as certificates of authorities, is no part of it: not all of that need be verified.
///
/// ```
/// use splengine_core::auth::{CertificateFingerprint, ClientCertificate};
///
/// // Stands for `connection.peer_certificates()` of rustls.
/// let der: &[u8] = b"the bytes of a certificate";
/// let certificate = ClientCertificate::new(der);
/// assert_eq!(certificate.der(), der);
/// assert_eq!(certificate.fingerprint(), CertificateFingerprint::of(der));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate(Arc<Parts>);

#[derive(PartialEq, Eq, Hash)]
struct Parts {
    der: Box<[u8]>,
    fingerprint: CertificateFingerprint,
}

impl ClientCertificate {
    /// Makes a verified certificate of these bytes (DER).
    #[must_use]
    pub fn new(der: impl Into<Box<[u8]>>) -> Self {
        let der = der.into();
        let fingerprint = CertificateFingerprint::of(&der);
        Self(Arc::new(Parts { der, fingerprint }))
    }

    /// Returns the bytes of the certificate (DER): for a parser of X.509, if names or extensions in it
    /// are wanted.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// Returns the SHA-256 of its bytes, by which an authenticator may know it. A renewed certificate
    /// has another one.
    #[must_use]
    pub fn fingerprint(&self) -> CertificateFingerprint {
        self.0.fingerprint
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCertificate").field(&self.0.fingerprint).finish()
    }
}

/// The SHA-256 of a certificate's bytes (DER). It is written `sha256:` and 64 hexadecimal digits, and also read
/// as OpenSSL writes it (`openssl x509 -noout -fingerprint -sha256`), as 32 pairs of digits with colons between
/// them. It is no secret.
///
/// ```
/// use splengine_core::auth::CertificateFingerprint;
///
/// let fingerprint = CertificateFingerprint::of(b"the bytes of a certificate");
/// let written = fingerprint.to_string();
/// assert_eq!(
///     written,
///     "sha256:ee555578d84bf276b1848e60a2b3ee27d8febde1eb7949d70e55823f2cfec776"
/// );
/// assert_eq!(written.parse::<CertificateFingerprint>()?, fingerprint);
/// # Ok::<(), splengine_core::auth::ParseFingerprintError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateFingerprint([u8; LENGTH]);

impl CertificateFingerprint {
    /// Computes the fingerprint of a certificate with these bytes (DER).
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl FromStr for CertificateFingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, step) = match text.strip_prefix("sha256:") {
            Some(digits) => (digits, 2),
            None => (text, 3),
        };
        let pairs = digits.as_bytes().chunks(step);
        let mut hash = [0; LENGTH];
        // No colon stands behind the last pair.
        if digits.len() != LENGTH * step - (step - 2) {
            return Err(ParseFingerprintError);
        }
        for (byte, pair) in hash.iter_mut().zip(pairs) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(ParseFingerprintError);
            let value = digit(0)? << 4 | digit(1)?;
            *byte = u8::try_from(value).map_err(|_| ParseFingerprintError)?;
            if pair.get(2).is_some_and(|between| *between != b':') {
                return Err(ParseFingerprintError);
            }
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no [`CertificateFingerprint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the fingerprint of a certificate is `sha256:` and 64 hexadecimal digits, or 32 pairs of them with colons \
     between them"
)]
#[non_exhaustive]
pub struct ParseFingerprintError;

const LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_and_openssl_write_them() {
        let fingerprint = CertificateFingerprint::of(b"");
        let written = fingerprint.to_string();
        assert_eq!(
            written,
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let digits = written["sha256:".len()..].to_ascii_uppercase();
        let pairs: Vec<&str> = (0..LENGTH).map(|at| &digits[2 * at..2 * at + 2]).collect();
        for text in [written.clone(), format!("sha256:{digits}"), pairs.join(":")] {
            assert_eq!(text.parse(), Ok(fingerprint), "{text}");
        }
        for text in [
            "",
            "sha256:",
            &digits,
            &written[..70],
            &format!("{written}0"),
            &written.replace("e3", "g3"),
            &written.replace("e3", "+3"),
            &pairs.join("-"),
            &format!("{}:", pairs.join(":")),
            &format!("sha256:{}", pairs.join(":")),
            &"ä".repeat(47),
            &format!("sha256:{}", "ä".repeat(32)),
        ] {
            assert_eq!(
                text.parse::<CertificateFingerprint>(),
                Err(ParseFingerprintError),
                "{text}"
            );
        }
    }

    #[test]
    fn of_a_certificate_no_more_than_its_fingerprint_is_shown() {
        let certificate = ClientCertificate::new(&b""[..]);
        let fingerprint = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(format!("{certificate:?}"), format!("ClientCertificate({fingerprint})"));
    }
}
