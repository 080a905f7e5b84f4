//! An authenticator that lets in one user of the host. The tests of other servers include it.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use splengine_core::Caller;
use splengine_core::auth::{
    AuthError, Authenticator, CredentialKind, CredentialSource, Credentials,
};
use splengine_core::net::Listener;
use tempfile::TempDir;

/// The user with this uid is `alice`; nobody else is let in.
#[derive(Clone, Copy)]
pub(crate) struct ByUid(u32);

impl ByUid {
    /// Lets in who runs this test.
    pub(crate) fn own() -> Self {
        Self(std::fs::metadata("/proc/self").expect("it is there").uid())
    }

    /// Lets in nobody who connects here.
    pub(crate) fn other() -> Self {
        Self(Self::own().0 + 1)
    }
}

impl Authenticator for ByUid {
    async fn authenticate(
        &self,
        credentials: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        match credentials {
            Credentials::UnixPeer(peer) if peer.uid == self.0 => {
                let alice = Caller::new("alice").map_err(|_| AuthError::Invalid)?;
                Ok(alice.with_all_scopes())
            }
            Credentials::None => Err(AuthError::Missing),
            _ => Err(AuthError::Invalid),
        }
    }

    fn accepts(&self, kind: CredentialKind) -> bool {
        kind == CredentialKind::UnixPeer
    }
}

/// A listener with the directory in which its socket is.
pub(crate) async fn unix_listener() -> (TempDir, PathBuf, Listener) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("engine.sock");
    let listener = Listener::bind_unix(&path, 0o600).await.expect("bound");
    (directory, path, listener)
}
