//! The files of settings and secrets, which callers must not reach.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use splengine_core::files::FilePolicy;
use splengine_core::local::LocalExecutorBuilder;

use crate::args::Args;
use crate::file::File;
use crate::settings::{Address, UsageError};

/// Reads a file that the settings name, of [`MAX_FILE_BYTES`] at most.
pub(crate) fn read(path: &Path, name: &str) -> Result<Vec<u8>, UsageError> {
    let mut content = Vec::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content));
    match read {
        Err(error) => Err(UsageError::caused(name, &error)),
        Ok(length) if length as u64 > MAX_FILE_BYTES => {
            Err(UsageError::new(name, &format!("is larger than {MAX_FILE_BYTES} bytes")))
        }
        Ok(_) => Ok(content),
    }
}

/// The same of a text.
pub(crate) fn read_text(path: &Path, name: &str) -> Result<String, UsageError> {
    String::from_utf8(read(path, name)?).map_err(|_| UsageError::new(name, "is not UTF-8"))
}

/// Enough for the tokens of a hundred thousand users.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Every file, directory and UNIX socket that the settings name, with what to call the setting; but root, and the
/// programs that callers run.
pub(crate) struct OwnFiles(Vec<(String, PathBuf)>);

impl OwnFiles {
    pub(crate) fn gather(args: &Args, file: &File) -> Self {
        let (avro, ssh) = (&file.avro, &file.ssh);
        let keys = args.authorized_keys.as_ref().or(file.authorized_keys.as_ref());
        let sockets = [
            ("http", args.http.as_ref().or(file.http.address.as_ref())),
            ("ws", args.ws.as_ref().or(file.ws.address.as_ref())),
            ("ssh", args.ssh.as_ref().or(file.ssh.address.as_ref())),
            ("avro", args.avro.as_ref().or(file.avro.address.as_ref())),
        ];
        let sockets = sockets.into_iter().filter_map(|(server, address)| {
            Some((args.culprit(server), Address::socket_path(address?)?))
        });
        let named = [
            (args.culprit("tokens"), args.tokens.as_ref().or(file.tokens.as_ref())),
            (args.culprit("authorized_keys"), keys),
            (args.culprit("config"), args.config.as_ref()),
            ("[avro] certificates".to_owned(), avro.certificates.as_ref()),
            ("[avro] private-key".to_owned(), avro.private_key.as_ref()),
            ("[ssh] trusted-ca".to_owned(), ssh.trusted_ca.as_ref()),
            ("[ssh] revoked-keys".to_owned(), ssh.revoked_keys.as_ref()),
            ("[ssh] passwords".to_owned(), ssh.passwords.as_ref()),
            ("[ssh] unread-directory".to_owned(), ssh.unread_directory.as_ref()),
        ];
        let named = named.into_iter().filter_map(|(setting, path)| Some((setting, path?.clone())));
        let host_keys =
            ssh.host_keys.iter().map(|path| ("[ssh] host-keys".to_owned(), path.clone()));
        let certificates = ssh.host_certificates.iter();
        let certificates =
            certificates.map(|path| ("[ssh] host-certificates".to_owned(), path.clone()));
        Self(named.chain(host_keys).chain(certificates).chain(sockets).collect())
    }

    /// Hides them from callers of `Files`, and warns of those that lie below root.
    pub(crate) fn hide(&self, root: &Path, mut policy: FilePolicy) -> FilePolicy {
        for (setting, path) in &self.0 {
            if lies_below(root, path) {
                tracing::warn!(
                    setting,
                    path = %path.display(),
                    "lies below root; it is hidden from files, SFTP and working directories, but not \
                     from commands, which run as this server's user: move it out of root",
                );
            }
            policy = policy.protect(path);
        }
        policy
    }

    /// What to call the setting that names this path.
    pub(crate) fn setting(&self, path: &Path) -> &str {
        let named = self.0.iter().find(|(_, named)| named == path);
        named.map_or("the settings", |(setting, _)| setting)
    }

    /// Lets no command be started in those that are directories.
    pub(crate) fn refuse_as_workdirs(&self, builder: LocalExecutorBuilder) -> LocalExecutorBuilder {
        self.0.iter().fold(builder, |builder, (_, path)| builder.protect(path))
    }
}

/// Whether what `path` leads to, or would, lies below root, as it is written or without links.
fn lies_below(root: &Path, path: &Path) -> bool {
    let names = |path: &Path| {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // As much of it as is there, and the rest.
        let resolved = absolute.ancestors().find_map(|there| {
            let rest = absolute.strip_prefix(there).ok()?;
            Some(there.canonicalize().ok()?.join(rest))
        });
        let leads_up = |path: &PathBuf| path.components().any(|part| part == Component::ParentDir);
        [Some(absolute), resolved].into_iter().flatten().filter(move |path| !leads_up(path))
    };
    let roots: Vec<PathBuf> = names(root).collect();
    names(path).any(|path| roots.iter().any(|root| path.starts_with(root)))
}

/// Keeps other users of the host out of what the server keeps below root, whatever the umask. Where
/// it can't, as on a disk that can't be written, whatever needs the directory says so.
pub(crate) fn make_private(directory: &Path) {
    let _ = DirBuilder::new().mode(0o700).create(directory);
    let Ok(metadata) = directory.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return;
    }
    let path = directory.display();
    match fs::set_permissions(directory, Permissions::from_mode(mode & 0o700)) {
        Ok(()) => tracing::warn!(
            %path,
            mode = format_args!("{mode:o}"),
            "was open to other users of this host, who may have read what is in it; it is not any more",
        ),
        Err(error) => tracing::warn!(
            %path,
            %error,
            "is open to other users of this host, and that can't be changed; chmod 700 it",
        ),
    }
}
