use std::fmt;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;

/// A switch that takes rights back from all callers that were recognised by one token, key, or login.
/// All clones are the same switch.
///
/// [`Caller::revocable`](crate::Caller::revocable) makes a caller depend on it.
///
/// ```
/// use splengine_core::auth::Revocation;
/// use splengine_core::{Caller, Scope};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // One for each login: who logs out loses the rights of that login, and of no other.
/// let (first, second) = (Revocation::new(), Revocation::new());
/// let alice = Caller::new("alice")?.with_all_scopes();
/// let (here, there) = (alice.clone().revocable(&first), alice.revocable(&second));
/// first.revoke();
/// assert!(!here.may(Scope::Execute) && there.may(Scope::Execute));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Revocation(watch::Sender<bool>);

/// The switches that one caller depends on.
#[derive(Clone, Default)]
pub(crate) struct Revocations(Option<Arc<[watch::Receiver<bool>]>>);

impl Revocation {
    /// Makes a revocation that has not been used yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::channel(false).0)
    }

    /// Takes the rights back, for good, and wakes all futures that wait for it.
    pub fn revoke(&self) {
        self.0.send_replace(true);
    }

    /// Whether anybody keeps a caller that depends on it.
    pub(super) fn is_used(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Returns whether the rights were taken back.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        *self.0.borrow()
    }
}

impl Default for Revocation {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation").field("is_revoked", &self.is_revoked()).finish()
    }
}

impl Revocations {
    pub(crate) fn and(self, revocation: &Revocation) -> Self {
        let before = self.0.as_deref().unwrap_or_default();
        let all = before.iter().cloned().chain([revocation.0.subscribe()]);
        Self(Some(all.collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.0.as_deref().unwrap_or_default().iter().any(|switch| *switch.borrow())
    }

    pub(crate) async fn revoked(&self) {
        let switches = self.0.as_deref().unwrap_or_default().iter().cloned();
        let mut waits: Vec<_> = switches
            .map(|mut switch| {
                Box::pin(async move {
                    // A switch that is gone without having been used stays as it was.
                    if switch.wait_for(|revoked| *revoked).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
            })
            .collect();
        let any = std::future::poll_fn(|cx| {
            let is_over = waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready());
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        });
        any.await;
    }
}

impl PartialEq for Revocations {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Revocations {}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.as_deref().unwrap_or_default().len();
        write!(f, "{count}, revoked: {}", self.is_revoked())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use crate::auth::Revocation;
    use crate::{Caller, Scope};

    #[tokio::test(start_paused = true)]
    async fn any_switch_takes_all_rights() {
        let [token, login] = [Revocation::new(), Revocation::new()];
        let alice = Caller::new("alice").expect("a name").with_all_scopes();
        let kept = alice.clone().revocable(&token).revocable(&login);
        let waits = async |caller: &Caller| {
            timeout(Duration::from_secs(1), caller.revoked()).await.is_err()
        };
        assert!(waits(&alice).await && waits(&kept).await);
        let waiting = tokio::spawn({
            let kept = kept.clone();
            async move { kept.revoked().await }
        });
        drop(token);
        assert!(kept.may(Scope::Files));
        login.revoke();
        waiting.await.expect("no panic");
        assert!(kept.is_revoked() && !kept.may(Scope::Files) && !waits(&kept).await);
        assert!(alice.may(Scope::Files));
        assert_eq!(alice, kept);
    }
}
