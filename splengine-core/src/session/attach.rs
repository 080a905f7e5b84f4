//! Options with which a client attaches to a session.

use crate::auth::Access;
use crate::session::TerminalColors;
use crate::terminal::Size;

/// Options with which to attach to a session.
///
/// ```
/// use splengine_core::auth::Access;
/// use splengine_core::session::{Attach, Update};
/// use splengine_core::terminal::Size;
/// use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let sessions = engine.sessions();
/// let id = sessions.create(&alice, SessionRequest::new().command("cat")).await?.id;
/// let attach = Attach::new(Access::Control).window(Size::clamped(100, 30));
/// let client = sessions.attach(&alice, &id, attach)?;
/// let (name, epoch, offset) =
///     (client.client_id().to_owned(), client.epoch().to_owned(), client.offset());
/// // The connection breaks, and its client comes back.
/// drop(client);
/// let again = Attach::new(Access::Control).client(name.as_str()).resume(epoch, offset);
/// let client = sessions.attach(&alice, &id, again)?;
/// assert_eq!(client.client_id(), name);
/// # drop(client);
/// # sessions.end(&alice, &id).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Attach {
    pub(crate) access: Access,
    pub(crate) resume: Option<(String, u64)>,
    pub(crate) client: Option<String>,
    pub(crate) window: Option<Size>,
    pub(crate) colors: Option<TerminalColors>,
    pub(crate) from_start: bool,
}

impl Attach {
    /// Asks for the right to look, or to type as well.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { access, resume: None, client: None, window: None, colors: None, from_start: false }
    }

    /// Continues after a broken connection: with the output that follows `offset`, if the session still
    /// has this epoch and that output is still kept, else with the screen.
    #[must_use]
    pub fn resume(mut self, epoch: impl Into<String>, offset: u64) -> Self {
        self.resume = Some((epoch.into(), offset));
        self
    }

    /// Sets the client that an earlier attachment was for, by its
    /// [id](crate::session::Attachment::client_id): the numbers of its input continue, and the earlier
    /// attachment is closed if it is still there.
    #[must_use]
    pub fn client(mut self, id: impl Into<String>) -> Self {
        self.client = Some(id.into());
        self
    }

    /// Sets the size of the client's window.
    #[must_use]
    pub fn window(mut self, size: Size) -> Self {
        self.window = Some(size);
        self
    }

    /// Sets the colours of the client's terminal, by default unknown.
    #[must_use]
    pub fn colors(mut self, colors: TerminalColors) -> Self {
        self.colors = Some(colors);
        self
    }

    /// Begins with all that was printed, if all of it is still kept, in place of the screen as it is
    /// now; in a loaded session with the screen that it was loaded with and all that was printed since.
    #[must_use]
    pub fn from_start(mut self) -> Self {
        self.from_start = true;
        self
    }
}
