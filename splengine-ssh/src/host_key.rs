//! The keys by which clients recognise this server.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey};
use splengine_core::auth::Secret;

/// The keys by which clients know this server, each in a file in OpenSSH's format: the first of ed25519;
/// behind it others, also, for clients that know no ed25519, of ECDSA or of RSA with 3072 bits or more
/// (signatures by which take a time that depends on the key: RUSTSEC-2023-0071).
///
/// ```no_run
/// use splengine_ssh::HostKeys;
///
/// # fn example() -> Result<(), splengine_ssh::HostKeyError> {
/// let keys = HostKeys::open_or_create("/var/lib/splengine/ssh_host_ed25519_key")?;
/// println!("{}", keys.fingerprints().join("\n"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HostKeys {
    keys: Vec<PrivateKey>,
    certificates: Vec<Certificate>,
}

/// A file that can't hold a host key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// The file can't be read.
    #[error("failed to read the host key `{}`", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The file is missing, and can't be made.
    #[error("failed to create the host key `{}`", path.display())]
    Create {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Others than its owner can read or write it.
    #[error(
        "the host key `{}` is open to others than its owner (mode {mode:04o}): close it with \
         `chmod 600`", path.display()
    )]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
    /// The file's owner is neither root nor the user that this process runs as.
    #[error(
        "the host key `{}` belongs to the user with id {owner}: it must belong to root or to the \
         user this server runs as", path.display()
    )]
    Owner {
        /// Path of the file.
        path: PathBuf,
        /// The id of its owner.
        owner: u32,
    },
    /// The file holds no private key in OpenSSH's format.
    #[error(
        "`{}` is not a private key in OpenSSH's format: make one with `ssh-keygen -t ed25519 -N ''`, \
         or name a file that is not there yet", path.display()
    )]
    Format {
        /// Path of the file.
        path: PathBuf,
    },
    /// The key is encrypted, and the server has no passphrase when it starts.
    #[error(
        "the host key `{}` is encrypted: take the passphrase off with `ssh-keygen -p -N ''`",
        path.display()
    )]
    Encrypted {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file holds no host certificate, or one that is for none of the keys.
    #[error(
        "`{}` is not a certificate of a host in OpenSSH's format for one of the host keys: make one \
         with `ssh-keygen -s AUTHORITY -h -I NAME -n HOST KEY.pub`", path.display()
    )]
    Certificate {
        /// Path of the file.
        path: PathBuf,
    },
    /// The key is of an algorithm that is not served.
    #[error(
        "the host key `{}` is of {algorithm}, and only ssh-ed25519 is served as the first, and behind \
         it ECDSA, and RSA of 3072 bits or more: make one with `ssh-keygen -t ed25519 -N ''`",
        path.display()
    )]
    Algorithm {
        /// Path of the file.
        path: PathBuf,
        /// Name of the key's algorithm.
        algorithm: String,
    },
}

impl HostKeys {
    /// Reads the key in the file at `path`. A missing file is created with a new key, readable by its
    /// owner alone. Servers that start together get the same key.
    ///
    /// # Errors
    ///
    /// [`HostKeyError`] when the file can't be read or made, is open to others, or holds anything but
    /// an ed25519 key without passphrase.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, HostKeyError> {
        Self { keys: Vec::new(), certificates: Vec::new() }.and(path)
    }

    /// Adds one more key, opened or made as by [`open_or_create`](Self::open_or_create).
    ///
    /// A client that takes one algorithm is shown one key of it, the first. To change keys, put the new
    /// one first and keep the old one until every client knows the new one.
    ///
    /// # Errors
    ///
    /// [`HostKeyError`], as there.
    pub fn and(mut self, path: impl AsRef<Path>) -> Result<Self, HostKeyError> {
        let path = path.as_ref();
        let is_first = self.keys.is_empty();
        let key = match read(path, is_first) {
            Err(HostKeyError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                create(path)
                    .map_err(|source| HostKeyError::Create { path: path.to_owned(), source })?;
                read(path, is_first)?
            }
            key => key?,
        };
        if self.keys.iter().all(|known| known.public_key() != key.public_key()) {
            self.keys.push(key);
        }
        Ok(self)
    }

    /// Returns the fingerprints of the keys as clients see them, such as `SHA256:…`, in the order
    /// in which the keys were given.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.fingerprint(HashAlg::Sha256).to_string()).collect()
    }

    /// Adds the certificate in the file at `path`, which an authority has signed for one of the keys
    /// (`ssh-keygen -s … -h`): clients that trust the authority then recognise this server without
    /// knowing its key.
    ///
    /// # Errors
    ///
    /// [`HostKeyError`] when the file can't be read, holds no host certificate in OpenSSH's format, or
    /// one that is for none of the keys.
    pub fn certificate(mut self, path: impl AsRef<Path>) -> Result<Self, HostKeyError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path)
            .map_err(|source| HostKeyError::Unreadable { path: path.to_owned(), source })?;
        let wrong = || HostKeyError::Certificate { path: path.to_owned() };
        let certificate = Certificate::from_openssh(text.trim()).map_err(|_| wrong())?;
        let is_for = |key: &PrivateKey| key.public_key().key_data() == certificate.public_key();
        if certificate.cert_type() != CertType::Host || !self.keys.iter().any(is_for) {
            return Err(wrong());
        }
        self.certificates.push(certificate);
        Ok(self)
    }

    pub(crate) fn certificates(&self) -> Vec<Certificate> {
        self.certificates.clone()
    }

    pub(crate) fn private_keys(&self) -> Vec<PrivateKey> {
        self.keys.clone()
    }
}

impl fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKeys").field(&self.fingerprints()).finish()
    }
}

fn read(path: &Path, is_first: bool) -> Result<PrivateKey, HostKeyError> {
    let text = text(path)?;
    let format = || HostKeyError::Format { path: path.to_owned() };
    let key = PrivateKey::from_openssh(text.expose()).map_err(|_| format())?;
    if key.is_encrypted() {
        return Err(HostKeyError::Encrypted { path: path.to_owned() });
    }
    let algorithm = key.algorithm();
    let is_served = match key.key_data() {
        KeypairData::Ed25519(_) => true,
        KeypairData::Ecdsa(_) => !is_first,
        KeypairData::Rsa(rsa) => !is_first && rsa.key_size() >= MIN_RSA_BITS,
        _ => false,
    };
    if !is_served {
        return Err(HostKeyError::Algorithm {
            path: path.to_owned(),
            algorithm: algorithm.to_string(),
        });
    }
    Ok(key)
}

fn text(path: &Path) -> Result<Secret, HostKeyError> {
    let path = || path.to_owned();
    let unreadable = |source| HostKeyError::Unreadable { path: path(), source };
    // Before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(path()).map_err(unreadable)?.is_file() {
        return Err(HostKeyError::Format { path: path() });
    }
    let file = File::open(path()).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(HostKeyError::Owner { path: path(), owner });
    }
    if mode & 0o077 != 0 {
        return Err(HostKeyError::Open { path: path(), mode });
    }
    // Of its full size from the start, so that growing leaves no copies behind.
    let mut text = String::with_capacity(MAX_FILE_BYTES);
    match file.take(MAX_FILE_BYTES as u64).read_to_string(&mut text) {
        Ok(_) => Ok(Secret::new(text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(HostKeyError::Format { path: path() })
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// Puts a new key there, whole or not at all. Another server's that is there by then stays.
fn create(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)?;
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    // Nobody else can read it: that is how temporary files are made.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => {
            tracing::info!(path = %path.display(), "made a host key");
            File::open(directory)?.sync_all()
        }
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

/// Of a host key of RSA, as ssh-audit asks for.
const MIN_RSA_BITS: u32 = 3072;
/// In bytes. A file with an ed25519 key in it has some 400.
const MAX_FILE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests;
