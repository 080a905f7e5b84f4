//! The algorithms that clients may choose from.

use std::borrow::Cow;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};

/// The algorithms of key exchange, encryption and integrity that clients may choose from, most
/// preferred first. Default: [`Algorithms::new`].
///
/// ```
/// use splengine_ssh::Algorithms;
///
/// # fn main() -> Result<(), splengine_ssh::AlgorithmError> {
/// let algorithms = Algorithms::strict().macs(["hmac-sha2-256-etm@openssh.com"])?;
/// # drop(algorithms);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Algorithms {
    key_exchanges: Vec<kex::Name>,
    ciphers: Vec<cipher::Name>,
    macs: Vec<mac::Name>,
}

/// A name that is no algorithm of this server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no {kind} that is served here; there is: {}", known.join(", "))]
#[non_exhaustive]
pub struct AlgorithmError {
    /// Name that was given.
    pub name: String,
    /// Kind of algorithm that was expected.
    pub kind: &'static str,
    /// The names of that kind.
    pub known: Vec<String>,
}

impl Algorithms {
    /// Offers those of [`strict`](Self::strict), and those without which widespread clients can't
    /// connect: AES-128 in GCM, and HMAC of SHA-2 over the text before it is encrypted (libssh2
    /// before 1.11, which curl, PHP and Perl are built on).
    pub fn new() -> Self {
        let mut algorithms = Self::strict();
        algorithms.ciphers.insert(2, cipher::AES_128_GCM);
        algorithms.macs.extend([mac::HMAC_SHA256, mac::HMAC_SHA512]);
        algorithms
    }

    /// ML-KEM with X25519, X25519; AES-256 in GCM, ChaCha20-Poly1305, AES-256 in CTR; HMAC of SHA-2
    /// over what is encrypted.
    pub fn strict() -> Self {
        Self {
            key_exchanges: vec![
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
            ],
            ciphers: vec![cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR],
            macs: vec![mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM],
        }
    }

    /// The default ones, and those of clients that know none of them: key exchange by ECDH over the
    /// NIST curves, AES-128 and AES-192 in CTR. The Diffie-Hellman groups of fixed primes are not offered: an
    /// exchange takes the server 0.02 to 0.14 s of processor time for clients that have shown no credentials and
    /// need not compute anything themselves.
    pub fn compatible() -> Self {
        let mut algorithms = Self::new();
        algorithms.key_exchanges.extend([
            kex::ECDH_SHA2_NISTP256,
            kex::ECDH_SHA2_NISTP384,
            kex::ECDH_SHA2_NISTP521,
        ]);
        algorithms.ciphers.extend([cipher::AES_192_CTR, cipher::AES_128_CTR]);
        algorithms
    }

    /// Offers only these key exchanges, by their names in SSH.
    ///
    /// # Errors
    ///
    /// [`AlgorithmError`] for a name that is none of [`compatible`](Self::compatible)'s.
    pub fn key_exchanges<'a>(
        mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AlgorithmError> {
        self.key_exchanges = find("key exchange", &Self::compatible().key_exchanges, names)?;
        Ok(self)
    }

    /// Offers only these ciphers, by their names in SSH.
    ///
    /// # Errors
    ///
    /// [`AlgorithmError`] for a name that is none of [`compatible`](Self::compatible)'s.
    pub fn ciphers<'a>(
        mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AlgorithmError> {
        self.ciphers = find("cipher", &Self::compatible().ciphers, names)?;
        Ok(self)
    }

    /// Offers only these algorithms of message integrity, by their names in SSH.
    ///
    /// # Errors
    ///
    /// [`AlgorithmError`] for a name that is none of [`compatible`](Self::compatible)'s.
    pub fn macs<'a>(
        mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AlgorithmError> {
        self.macs = find("MAC", &Self::compatible().macs, names)?;
        Ok(self)
    }

    /// As russh takes them.
    pub(crate) fn preferred(&self) -> Preferred {
        // Host keys are of those among them that there is a key of; the others are what clients may
        // sign with.
        const KEYS: &[Algorithm] = &[
            Algorithm::Ed25519,
            Algorithm::SkEd25519,
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
            Algorithm::SkEcdsaSha2NistP256,
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ];
        let mut kex = self.key_exchanges.clone();
        kex.extend([kex::EXTENSION_SUPPORT_AS_SERVER, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER]);
        Preferred {
            kex: kex.into(),
            key: Cow::Borrowed(KEYS),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: self.ciphers.clone().into(),
            mac: self.macs.clone().into(),
            compression: Cow::Borrowed(&[compression::NONE]),
        }
    }

    /// Which of the sets, if any, would let in a client that offers only these of one kind.
    pub(crate) fn set_with(offered: &[String]) -> Option<&'static str> {
        let has = |set: &Self| {
            let names = set.key_exchanges.iter().map(AsRef::<str>::as_ref);
            let names = names.chain(set.ciphers.iter().map(AsRef::as_ref));
            let mut names = names.chain(set.macs.iter().map(AsRef::as_ref));
            names.any(|name| offered.iter().any(|offered| offered == name))
        };
        [("default", Self::new()), ("compatible", Self::compatible())]
            .into_iter()
            .find_map(|(name, set)| has(&set).then_some(name))
    }
}

impl Default for Algorithms {
    fn default() -> Self {
        Self::new()
    }
}

fn find<'a, T: Copy + AsRef<str>>(
    kind: &'static str,
    known: &[T],
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<T>, AlgorithmError> {
    let unknown = |name: &str| AlgorithmError {
        name: name.to_owned(),
        kind,
        known: known.iter().map(|known| known.as_ref().to_owned()).collect(),
    };
    let find = |name: &'a str| {
        let found = known.iter().copied().find(|known| known.as_ref() == name);
        found.ok_or_else(|| unknown(name))
    };
    let found = names.into_iter().map(find).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(unknown("")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_served_is_told_with_those_that_are() {
        for name in ["hmac-sha1", "none", "", "aes128-ctr"] {
            let error = Algorithms::new().macs([name]).expect_err(name);
            assert_eq!((error.name.as_str(), error.kind), (name, "MAC"));
            assert!(error.to_string().contains("hmac-sha2-256-etm@openssh.com"), "{error}");
        }
        Algorithms::new().ciphers([]).expect_err("none at all");
        Algorithms::new().key_exchanges(["diffie-hellman-group1-sha1"]).expect_err("weak");
        let one = Algorithms::strict().key_exchanges(["ecdh-sha2-nistp256"]).expect("known");
        assert_eq!(one.key_exchanges, [kex::ECDH_SHA2_NISTP256]);
    }

    #[test]
    fn each_set_has_all_of_the_one_before() {
        let [strict, usual, compatible] =
            [Algorithms::strict(), Algorithms::new(), Algorithms::compatible()];
        for (less, more) in [(&strict, &usual), (&usual, &compatible)] {
            assert!(less.key_exchanges.iter().all(|name| more.key_exchanges.contains(name)));
            assert!(less.ciphers.iter().all(|name| more.ciphers.contains(name)));
            assert!(less.macs.iter().all(|name| more.macs.contains(name)));
        }
        let set = |name: &str| Algorithms::set_with(&["none".to_owned(), name.to_owned()]);
        assert_eq!(set("hmac-sha2-256"), Some("default"));
        assert_eq!(set("ecdh-sha2-nistp256"), Some("compatible"));
        assert_eq!(set("hmac-sha1"), None);
    }
}
