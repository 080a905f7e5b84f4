//! The rights that a user logs in with, and the reasons for refusals.

use splengine_core::auth::Scopes;
use splengine_core::{Caller, Scope};

use super::key::KeyError;
use super::options::Options;
use crate::targets::Targets;

/// What a client that has shown who it is may do.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Grant {
    pub(crate) caller: Caller,
    /// Run instead of whatever is asked for. An empty one runs nothing.
    pub(crate) forced_command: Option<String>,
    /// As the owner of the keys' file wrote it: no name of it is checked against any list yet.
    pub(crate) environment: Vec<(String, String)>,
    /// Whether a terminal may be asked for.
    pub(crate) pty: bool,
    /// Whether connections may be forwarded at all.
    pub(crate) forwarding: bool,
    /// To where alone; `None` is to what the server allows.
    pub(crate) permit_open: Option<Targets>,
    /// Whether what runs in the background outlives its command; `None` is as the client asks.
    pub(crate) keeps_background: Option<bool>,
    /// Whether terminals may be looked at, and nothing else: no more is left of the caller's rights.
    pub(crate) view_only: bool,
    /// How they showed who they are, for the log.
    pub(crate) how: String,
}

impl Grant {
    pub(super) fn new(caller: Caller, how: String, options: Options) -> Self {
        let watch = Scopes::NONE.with(Scope::Watch);
        let scopes = caller.scopes();
        let scopes = if options.view_only { scopes.restricted_to(watch) } else { scopes };
        Self {
            caller: caller.with_scopes(scopes),
            forced_command: options.command,
            environment: options.environment,
            pty: options.pty,
            forwarding: options.forwarding,
            permit_open: options.permit_open,
            keeps_background: options.keeps_background,
            view_only: options.view_only,
            how,
        }
    }

    /// Whether it is given on the same terms, whatever the rights are that the caller has.
    pub(super) fn has_terms_of(&self, other: &Self) -> bool {
        self.forced_command == other.forced_command
            && self.environment == other.environment
            && self.pty == other.pty
            && self.forwarding == other.forwarding
            && self.permit_open == other.permit_open
            && self.keeps_background == other.keeps_background
            && self.view_only == other.view_only
    }
}

/// Reason for a refused login: for the log, never for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the user name is malformed")]
    UserName,
    #[error("the user has no keys here")]
    UnknownUser,
    #[error("the key is none of the user's")]
    UnknownKey,
    #[error("{0}")]
    Key(KeyError),
    #[error("the key is revoked, or its authority is")]
    Revoked,
    #[error("a signature by SHA-1 is not taken")]
    Sha1,
    #[error("line {0} does not let the key in from there")]
    From(usize),
    #[error("the key of line {0} has expired")]
    Expired(usize),
    #[error("the certificate is not for users")]
    HostCertificate,
    #[error("the certificate's authority is not trusted")]
    Authority,
    #[error("the certificate's signature is wrong, or it is not valid now")]
    Validity,
    #[error("the certificate does not name the user")]
    Principal,
    #[error("the certificate has a critical option that is not known here, or malformed")]
    CriticalOption,
    #[error("the certificate does not let the key in from there")]
    CertificateFrom,
    #[error("the certificate and line {0} force different commands")]
    Commands(usize),
    #[error("whether a key in a device was touched is not told here, and must be")]
    Touch,
    #[error("passwords are of 1 to {max_bytes} bytes")]
    PasswordLength { max_bytes: usize },
    #[error("the user has no password, or the password is wrong")]
    Password,
    #[error("the terms have changed on which the client was let in")]
    Terms,
    #[error("too many passwords are being checked")]
    Busy,
    #[error("whoever knows the users can't answer now")]
    Unavailable,
    /// What exactly has been logged as a warning.
    #[error("a file that says who may come in can't be used")]
    Files,
}

impl Refusal {
    /// Whether it says no more than that the files name no such key of the user: the authenticator may
    /// know it.
    pub(super) fn is_of_nobody(&self) -> bool {
        matches!(self, Self::UserName | Self::UnknownUser | Self::UnknownKey)
    }

    /// This one where it tells more than `of_files`, why the files let nobody in.
    pub(super) fn or(self, of_files: Self) -> Self {
        if self.is_of_nobody() { of_files } else { self }
    }
}
