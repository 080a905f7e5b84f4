use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, SshId};
use splengine_core::Engine;
use splengine_core::auth::Authenticator;
use splengine_core::net::{BindError, ConnectionLimits, Listener};
use splengine_core::quota::{CallerBudgets, CallerPlaces};
use tokio::net::ToSocketAddrs;

use crate::context::{Context, LogLines, Options};
use crate::server::SshServer;
use crate::spill_buffer::Disk;
use crate::targets::Targets;
use crate::{Algorithms, HostKeys, TargetError, Users, UsersError};

/// Failure to open an SSH server.
///
/// ```
/// use splengine_core::{Engine, LocalExecutor};
/// use splengine_ssh::{HostKeys, OpenError, SshServer, Users};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// let keys = HostKeys::open_or_create(directory.path().join("host_key"))?;
/// let users = Users::new().authorized_keys("/no/such/directory");
/// let opened = SshServer::builder(engine).users(users).bind("127.0.0.1:0", &keys).await;
/// assert!(matches!(opened, Err(OpenError::Users(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address is not available, or the listener has none.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A file or directory of the [`Users`] can't be used.
    #[error(transparent)]
    Users(#[from] UsersError),
}

/// Placeholder in the builder until the [`Users`] are set.
#[derive(Debug)]
#[non_exhaustive]
pub struct NoUsers;

/// Sets up the SSH server. Made by [`SshServer::builder`]; it can be opened only after
/// [`users`](Self::users) or [`authenticate`](Self::authenticate), and with a host key.
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_core::Engine;
/// use splengine_ssh::{Algorithms, HostKeys, SshServer, Users};
///
/// # async fn example(
/// #     engine: Engine,
/// #     users: Users,
/// #     keys: HostKeys,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let server = SshServer::builder(engine)
///     .users(users)
///     .accept_env(["LANG", "LC_*", "APP_*"])
///     .algorithms(Algorithms::strict())
///     .login_grace(Duration::from_secs(30))
///     .permit_open(["127.0.0.1:5432", "/run/app.sock"])?
///     .bind("127.0.0.1:2222", &keys)
///     .await?;
/// # server.await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct SshServerBuilder<U> {
    engine: Engine,
    users: U,
    options: Options,
    limits: ConnectionLimits,
    login_grace: Duration,
    disk: [u64; 2],
    channels: [usize; 2],
    unread_directory: Option<PathBuf>,
    keepalive: (Duration, usize),
    rekey: (usize, Duration),
    algorithms: Algorithms,
}

impl SshServer {
    /// Returns a builder of a server of `engine`, with defaults.
    pub fn builder(engine: Engine) -> SshServerBuilder<NoUsers> {
        SshServerBuilder {
            engine,
            users: NoUsers,
            options: Options {
                accept_env: ["LANG", "LC_*", "TZ", "COLORTERM"].map(str::to_owned).into(),
                max_channels: 64,
                max_linger: Duration::from_secs(5),
                signals_as_status: false,
                serves_scp: true,
                permit_open: Targets::default(),
            },
            limits: Self::default_connection_limits(),
            login_grace: Duration::from_mins(2),
            disk: [1 << 30, 4 << 30],
            channels: [256, 2048],
            unread_directory: None,
            keepalive: (Duration::from_secs(30), 3),
            rekey: (1 << 30, Duration::from_hours(1)),
            algorithms: Algorithms::new(),
        }
    }
}

impl SshServer {
    /// Bounds on connections that a server has by default: those of [`ConnectionLimits::new`], but
    /// 512 unauthenticated ones in all and 20 of one address, since each may cost a key exchange.
    pub fn default_connection_limits() -> ConnectionLimits {
        ConnectionLimits::new().max_unauthenticated(512).max_unauthenticated_per_address(20)
    }
}

impl<U> SshServerBuilder<U> {
    /// Sets the users who may log in.
    pub fn users(self, users: Users) -> SshServerBuilder<Users> {
        SshServerBuilder {
            engine: self.engine,
            users,
            options: self.options,
            limits: self.limits,
            login_grace: self.login_grace,
            disk: self.disk,
            channels: self.channels,
            unread_directory: self.unread_directory,
            keepalive: self.keepalive,
            rekey: self.rekey,
            algorithms: self.algorithms,
        }
    }

    /// Sets the authenticator, as on the other servers: the same as [`users`](Self::users) with nothing
    /// but [`Users::authenticator`].
    ///
    /// ```no_run
    /// use splengine_core::Engine;
    /// use splengine_core::auth::Authenticator;
    /// use splengine_ssh::{HostKeys, SshServer};
    ///
    /// # async fn example(
    /// #     engine: Engine,
    /// #     directory: impl Authenticator,
    /// #     keys: HostKeys,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let server = SshServer::builder(engine).authenticate(directory).bind("[::1]:2222", &keys);
    /// server.await?.await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn authenticate(self, authenticator: impl Authenticator) -> SshServerBuilder<Users> {
        self.users(Users::new().authenticator(authenticator))
    }

    /// Sets the variables that a client may set, a star at the end standing for any rest; those that
    /// the engine does not let requests set are left out all the same, and so are those that make the
    /// loader or a shell run other code (`LD_*`, `PATH`, `BASH_ENV`, `ENV`, `IFS` and their like).
    /// `SPL_SESSION_ID`, which names a session, is always accepted. Default: `LANG`, `LC_*`, `TZ`,
    /// `COLORTERM`.
    pub fn accept_env(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.accept_env = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the maximum time for a client to authenticate. Default 2 minutes.
    pub fn login_grace(mut self, time: Duration) -> Self {
        self.login_grace = time;
        self
    }

    /// Sets the bounds on connections. Default: [`SshServer::default_connection_limits`]. The
    /// unauthenticated timeout is the [login grace](Self::login_grace), whatever `limits` say.
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the maximum number of connections served at once, at least 1, default 1024; see
    /// [`ConnectionLimits::max_connections`].
    pub fn max_connections(mut self, count: usize) -> Self {
        self.limits = self.limits.max_connections(count);
        self
    }

    /// Sets the maximum number of channels that one connection may have open at once; a further one
    /// is refused. Default 64.
    pub fn max_channels(mut self, count: usize) -> Self {
        self.options.max_channels = count;
        self
    }

    /// Sets the maximum number of channels that one caller, and that all callers, have open at once on
    /// all connections, both at least 1, default 256 and 2,048; no caller has more than are left to the
    /// others. A further one is refused. Of the channels on which a caller is served SFTP the first 16
    /// (64 of all callers) have up to 64 requests at once and 4 MiB for them; each further one has 8
    /// and 512 KiB.
    pub fn max_channels_of_callers(mut self, of_caller: usize, of_all: usize) -> Self {
        self.channels = [of_caller, of_all];
        self
    }

    /// Sets the maximum number of bytes of what clients send and programs have not read yet that
    /// are kept on disk: of all channels of one caller, and of all callers. Default 1 GiB and
    /// 4 GiB. The first 1 MiB of a channel is in memory, as long as that is no more than 32 MiB of
    /// one caller and 128 MiB of all. A channel that would go over it, or leave less free space
    /// than the engine's [floor](splengine_core::engine::EngineBuilder::disk_floor), is closed, and
    /// says why. Up to 64 MiB of a channel that were read count until so much more was read.
    ///
    /// A client whose command reads slowly is slowed down long before, if it has no other channel
    /// open.
    pub fn max_unread(mut self, of_caller: u64, of_all: u64) -> Self {
        self.disk = [of_caller, of_all];
        self
    }

    /// Sets the directory for what is [not read yet](Self::max_unread), in files without a name; it is
    /// made (mode 0700) when it is needed. Default: the host's directory for temporary files.
    pub fn unread_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.unread_directory = Some(directory.into());
        self
    }

    /// Sets the time that a client may be silent before it is asked whether it is there, and the number
    /// of such questions that it may leave unanswered before its connection is closed. Default 30 s and
    /// 3. A client that answers may be silent for any time.
    pub fn keepalive(mut self, interval: Duration, count: usize) -> Self {
        self.keepalive = (interval, count.max(1));
        self
    }

    /// Sets after how many bytes of either direction, at most 1 GiB, and after how much time new keys
    /// are agreed on. Default 1 GiB and 1 hour (RFC 4253, section 9).
    pub fn rekey(mut self, bytes: usize, time: Duration) -> Self {
        self.rekey = (bytes.clamp(1 << 16, 1 << 30), time);
        self
    }

    /// Sets the algorithms that clients may choose from. Default: [`Algorithms::new`].
    pub fn algorithms(mut self, algorithms: Algorithms) -> Self {
        self.algorithms = algorithms;
        self
    }

    /// Sets whether a command that a signal ended is told by the exit status 128 and the signal's
    /// number, as shells do, instead of by the signal's name (RFC 4254, section 6.10). Dropbear's
    /// client and libssh2 take the latter for status 0, and PuTTY for 128. Default false.
    pub fn signals_as_status(mut self, as_status: bool) -> Self {
        self.options.signals_as_status = as_status;
        self
    }

    /// Sets whether the old protocol of scp (`scp -O`, and all of OpenSSH before 9.0) is served, by a
    /// server of our own over the same files as SFTP. Default true; else it is refused with a message.
    pub fn serve_scp(mut self, is_served: bool) -> Self {
        self.options.serves_scp = is_served;
        self
    }

    /// Sets the targets to which clients may have connections forwarded (`ssh -L`, `-D`, `-J`,
    /// `-W`): `HOST:PORT`, with a `*` for any port or any host, or the path of a socket of this
    /// host. A host is compared as the client names it. Of a key with `permitopen=` only the
    /// targets of that option are allowed; of one with `restrict` or `no-port-forwarding` none.
    /// Default: none. A caller needs the scope `execute`.
    ///
    /// # Errors
    ///
    /// [`TargetError`] for a text of another form.
    pub fn permit_open<'a>(
        mut self,
        targets: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, TargetError> {
        self.options.permit_open = Targets::parse(targets)?;
        Ok(self)
    }

    /// Sets the time that connections have, once the server ends, to finish their work. Default
    /// 5 s.
    pub fn max_linger(mut self, time: Duration) -> Self {
        self.options.max_linger = time;
        self
    }
}

impl SshServerBuilder<Users> {
    /// Binds `address`; port 0 is any that is free. Clients know the server by `keys`.
    /// Nothing is served before the server is awaited.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the address is not available, or a file of the users can't be used.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets go of the address.
    pub async fn bind(
        self,
        address: impl ToSocketAddrs + std::fmt::Debug,
        keys: &HostKeys,
    ) -> Result<SshServer, OpenError> {
        self.listen(Listener::bind(address).await?, keys)
    }

    /// Makes a server on an existing listener, of a UNIX socket or inherited; nothing is served before
    /// the server is awaited. Reads the files of the users, to [check](Users::check) them. A key that is
    /// restricted to addresses (`from=`) lets in no client of a UNIX socket.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the listener has no address, or a file of the users can't be used.
    pub fn listen(
        self,
        listener: impl Into<Listener>,
        keys: &HostKeys,
    ) -> Result<SshServer, OpenError> {
        self.users.check()?;
        let listener = listener.into();
        let local_addr = listener.local_addr()?;
        let config = Arc::new(self.config(keys));
        let [of_caller, of_all] = self.channels;
        let disk = Disk::new(self.unread_directory, self.engine.disk_reserve(), self.disk);
        Ok(SshServer {
            listener,
            local_addr,
            config,
            limits: self.limits.unauthenticated_timeout(self.login_grace).counted_by(&self.engine),
            context: Arc::new(Context {
                sftp_memory: CallerBudgets::new(&self.engine.memory_budget(MAX_SFTP_BYTES)),
                engine: self.engine,
                users: self.users,
                options: self.options,
                disk,
                channels: CallerPlaces::bounded(of_all, of_caller),
                wide_sftp: CallerPlaces::bounded(MAX_WIDE_SFTP, MAX_WIDE_SFTP_OF_CALLER),
                lines: LogLines::default(),
            }),
        })
    }

    fn config(&self, keys: &HostKeys) -> Config {
        let mut methods = MethodSet::empty();
        methods.push(MethodKind::PublicKey);
        if self.users.has_passwords() {
            methods.push(MethodKind::Password);
            methods.push(MethodKind::KeyboardInteractive);
        }
        let (interval, count) = self.keepalive;
        let unanswered = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(2);
        Config {
            server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-splengine")),
            methods,
            // Of all refusals alike, so that how long one takes tells nothing; but each client
            // begins by asking what there is.
            auth_rejection_time: Duration::from_millis(300),
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: keys.private_keys(),
            window_size: 2 << 20,
            maximum_packet_size: 32 << 10,
            channel_buffer_size: 16,
            event_buffer_size: 16,
            limits: Limits::new(self.rekey.0, self.rekey.0, self.rekey.1),
            preferred: self.algorithms.preferred(),
            certificates: keys.certificates(),
            max_auth_attempts: 6,
            // Longer than a client takes that answers. It is what ends a connection whose client
            // reads nothing, of which keepalives tell nothing.
            inactivity_timeout: Some(interval.saturating_mul(unanswered)),
            keepalive_interval: Some(interval),
            keepalive_max: count,
            nodelay: true,
        }
    }
}

/// Data of SFTP that clients have asked for and not taken, of all of them.
const MAX_SFTP_BYTES: usize = 128 << 20;
const MAX_WIDE_SFTP: usize = 64;
const MAX_WIDE_SFTP_OF_CALLER: usize = 16;
