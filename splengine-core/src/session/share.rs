//! Shares: rights to one session, given away by a ticket that works once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::auth::Access;
use crate::auth::Secret;
use crate::auth::{Caller, Guest};
use crate::ids::{SessionId, ShareId, random_text};
use crate::session::{SessionError, ShareInfo};
use crate::user_name::UserName;

/// All shares and tickets. They live no longer than the engine.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<State>);

#[derive(Debug)]
struct State {
    max_in_all: usize,
    shares: HashMap<ShareId, Share>,
    /// By the hash of the ticket; which of them are guessed right can't be told from time.
    tickets: HashMap<[u8; 32], Issued>,
}

/// A ticket that nobody has shown yet.
#[derive(Debug)]
struct Issued {
    ticket: Ticket,
    owner: UserName,
    issued: Instant,
    until: Instant,
}

#[derive(Debug)]
struct Share {
    info: ShareInfo,
    owner: UserName,
    made: Instant,
    until: Instant,
    guest: UserName,
}

#[derive(Debug)]
enum Ticket {
    Share(ShareId),
    Caller(Caller),
}

impl Shares {
    pub(crate) fn share(
        &self,
        owner: &UserName,
        session: &SessionId,
        access: Access,
        expires_in: Duration,
    ) -> Result<(ShareInfo, Secret), SessionError> {
        let mut state = self.lock();
        state.forget_old();
        let of_session = state.shares.values().filter(|share| share.info.session_id == *session);
        if of_session.count() >= MAX_SHARES_PER_SESSION {
            let (what, limit) = ("shares of one session", MAX_SHARES_PER_SESSION);
            return Err(SessionError::CallerLimit { what, limit });
        }
        let of_owner = state.shares.values().filter(|share| share.owner == *owner);
        if of_owner.count() >= MAX_PER_CALLER {
            return Err(SessionError::CallerLimit { what: "shares", limit: MAX_PER_CALLER });
        }
        state.check_tickets(owner)?;
        if state.shares.len() >= state.max_in_all {
            let all = state.shares.iter().map(|(id, share)| (id, &share.owner, share.made));
            let oldest = oldest_of_most(all).cloned();
            oldest.and_then(|id| state.shares.remove(&id));
        }
        let id = ShareId::new();
        let (now, wall) = (Instant::now(), SystemTime::now());
        let info = ShareInfo {
            id: id.clone(),
            session_id: session.clone(),
            access,
            expires: wall + expires_in,
            used: false,
        };
        let random = random_text();
        let guest = format!("guest-{}", &random[..6]).parse().map_err(|_| SessionError::NoShare)?;
        let (owner, until) = (owner.clone(), now + expires_in);
        let share = Share { info: info.clone(), owner: owner.clone(), made: now, until, guest };
        state.shares.insert(id.clone(), share);
        let ticket = state.ticket(Ticket::Share(id), owner, until);
        Ok((info, ticket))
    }

    /// A ticket that stands for `caller`, once.
    pub(crate) fn ticket(&self, caller: &Caller) -> Result<Secret, SessionError> {
        let mut state = self.lock();
        state.forget_old();
        state.check_tickets(caller.accounted_user())?;
        let until = Instant::now() + TICKET_LIFE;
        Ok(state.ticket(Ticket::Caller(caller.clone()), caller.accounted_user().clone(), until))
    }

    /// Who shows this ticket. It does not work again.
    pub(crate) fn redeem(&self, ticket: &Secret) -> Result<Caller, SessionError> {
        let mut state = self.lock();
        let hash: [u8; 32] = Sha256::digest(ticket.expose()).into();
        let Issued { ticket, until, .. } =
            state.tickets.remove(&hash).ok_or(SessionError::NoShare)?;
        if Instant::now() >= until {
            return Err(SessionError::NoShare);
        }
        match ticket {
            Ticket::Caller(caller) => Ok(caller),
            Ticket::Share(id) => {
                let share = state.shares.get_mut(&id).ok_or(SessionError::NoShare)?;
                share.info.used = true;
                let guest = Guest {
                    share: id,
                    session: share.info.session_id.clone(),
                    access: share.info.access,
                    expires: share.info.expires,
                    owner: share.owner.clone(),
                };
                Ok(Caller::new_guest(share.guest.clone(), guest))
            }
        }
    }

    /// Whether what made this caller a guest still stands.
    pub(crate) fn is_share_valid(&self, guest: &Guest) -> bool {
        let state = self.lock();
        let share = state.shares.get(&guest.share);
        share.is_some_and(|share| {
            share.until > Instant::now() && share.info.session_id == guest.session
        })
    }

    pub(crate) fn list(&self, session: &SessionId) -> Vec<ShareInfo> {
        let mut state = self.lock();
        state.forget_old();
        let mut shares: Vec<ShareInfo> = state
            .shares
            .values()
            .filter(|share| share.info.session_id == *session)
            .map(|share| share.info.clone())
            .collect();
        shares.sort_by(|a, b| a.expires.cmp(&b.expires).then(a.id.cmp(&b.id)));
        shares
    }

    /// Takes back one share of a session, that of a ticket, or all. Says whether there was any.
    pub(crate) fn take_back(&self, session: &SessionId, which: ShareSelector<'_>) -> bool {
        let mut state = self.lock();
        let of_ticket = match which {
            ShareSelector::Ticket(ticket) => {
                let hash: [u8; 32] = Sha256::digest(ticket.expose()).into();
                match state.tickets.get(&hash) {
                    Some(Issued { ticket: Ticket::Share(id), .. }) => Some(id.clone()),
                    _ => return false,
                }
            }
            ShareSelector::All | ShareSelector::One(_) => None,
        };
        let before = state.shares.len();
        state.shares.retain(|id, share| {
            let meant = match which {
                ShareSelector::All => true,
                ShareSelector::One(one) => id == one,
                ShareSelector::Ticket(_) => of_ticket.as_ref() == Some(id),
            };
            !(meant && share.info.session_id == *session)
        });
        state.shares.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which shares are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ShareSelector<'a> {
    All,
    One(&'a ShareId),
    Ticket(&'a Secret),
}

impl Default for State {
    fn default() -> Self {
        let (shares, tickets) = (HashMap::new(), HashMap::new());
        Self { max_in_all: MAX_IN_ALL, shares, tickets }
    }
}

impl State {
    fn check_tickets(&self, owner: &UserName) -> Result<(), SessionError> {
        let of_owner = self.tickets.values().filter(|issued| issued.owner == *owner);
        if of_owner.count() < MAX_PER_CALLER {
            return Ok(());
        }
        Err(SessionError::CallerLimit { what: "tickets that are not used", limit: MAX_PER_CALLER })
    }

    fn ticket(&mut self, ticket: Ticket, owner: UserName, until: Instant) -> Secret {
        if self.tickets.len() >= self.max_in_all {
            let all = self.tickets.iter().map(|(hash, one)| (hash, &one.owner, one.issued));
            let oldest = oldest_of_most(all).copied();
            oldest.and_then(|hash| self.tickets.remove(&hash));
        }
        let text = format!("ticket-{}{}", random_text(), &random_text()[..13]);
        let issued = Issued { ticket, owner, issued: Instant::now(), until };
        self.tickets.insert(Sha256::digest(&text).into(), issued);
        Secret::new(text)
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        self.shares.retain(|_, share| share.until > now);
        let Self { shares, tickets, .. } = self;
        tickets.retain(|_, issued| {
            let is_for_something = match &issued.ticket {
                Ticket::Share(id) => shares.contains_key(id),
                Ticket::Caller(_) => true,
            };
            issued.until > now && is_for_something
        });
    }
}

/// The oldest of those of the caller who has most of them.
fn oldest_of_most<'a, T>(
    all: impl Iterator<Item = (T, &'a UserName, Instant)> + Clone,
) -> Option<T> {
    let mut counts: HashMap<&UserName, usize> = HashMap::new();
    all.clone().for_each(|(_, owner, _)| *counts.entry(owner).or_default() += 1);
    let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let theirs = all.filter(|(_, owner, _)| *owner == most);
    theirs.min_by_key(|(_, _, at)| *at).map(|(one, ..)| one)
}

const MAX_SHARES_PER_SESSION: usize = 64;
/// Maximum number of shares of one caller, and of tickets that nobody has shown yet.
const MAX_PER_CALLER: usize = 256;
/// The same of all callers. Beyond it the oldest one of the caller who has most is removed, and is
/// refused when it is used: never that of a caller who has few.
const MAX_IN_ALL: usize = 4096;
const TICKET_LIFE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Caller {
        Caller::new(name).expect("a name").with_all_scopes()
    }

    const IN_ALL: usize = MAX_PER_CALLER + 64;

    fn few() -> Shares {
        let shares = Shares::default();
        shares.lock().max_in_all = IN_ALL;
        shares
    }

    #[tokio::test(start_paused = true)]
    async fn one_callers_tickets_take_nobody_elses_place() {
        let (shares, ticket) = (few(), |shares: &Shares, user| shares.ticket(&caller(user)));
        let bobs = ticket(&shares, "bob").expect("a ticket");
        for _ in 0..MAX_PER_CALLER {
            ticket(&shares, "alice").expect("a ticket");
        }
        let error = ticket(&shares, "alice").expect_err("her own bound");
        assert!(matches!(error, SessionError::CallerLimit { limit: MAX_PER_CALLER, .. }));
        for _ in 0..100 {
            ticket(&shares, "carol").expect("in the place of one of alice's");
        }
        assert_eq!(shares.lock().tickets.len(), IN_ALL);
        assert_eq!(shares.redeem(&bobs).expect("his only one"), caller("bob"));
        tokio::time::advance(TICKET_LIFE).await;
        ticket(&shares, "alice").expect("a ticket");
        assert_eq!(shares.lock().tickets.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tickets_of_guests_count_for_their_host() {
        let (shares, alice, minute) = (few(), caller("alice"), Duration::from_secs(60));
        let session = SessionId::new(alice.user());
        let guest = || {
            let shared = shares.share(alice.user(), &session, Access::View, minute);
            shares.redeem(&shared.expect("shared").1).expect("a guest")
        };
        let guests = [guest(), guest()];
        for number in 0..MAX_PER_CALLER {
            shares.ticket(&guests[number % 2]).expect("a ticket");
        }
        for one in [&guests[0], &guests[1], &alice] {
            let error = shares.ticket(one).expect_err("her own bound");
            assert!(matches!(error, SessionError::CallerLimit { limit: MAX_PER_CALLER, .. }));
        }
        let bobs = shares.ticket(&caller("bob")).expect("a ticket");
        assert_eq!(shares.redeem(&bobs).expect("his"), caller("bob"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_callers_shares_take_nobody_elses_place() {
        let (shares, minute) = (few(), Duration::from_secs(60));
        let session = |user: &str| SessionId::new(caller(user).user());
        let share = |user: &str, session: &SessionId| {
            shares.share(caller(user).user(), session, Access::View, minute)
        };
        let (_, bobs) = share("bob", &session("bob")).expect("shared");
        for _ in 0..MAX_PER_CALLER / MAX_SHARES_PER_SESSION {
            let own = session("alice");
            for _ in 0..MAX_SHARES_PER_SESSION {
                share("alice", &own).expect("shared");
            }
            assert!(share("alice", &own).is_err());
        }
        let error = share("alice", &session("alice")).expect_err("her own bound");
        assert!(matches!(error, SessionError::CallerLimit { limit: MAX_PER_CALLER, .. }));
        for _ in 0..100 {
            share("carol", &session("carol")).expect("in the place of one of alice's");
        }
        assert_eq!(shares.lock().shares.len(), IN_ALL);
        assert!(shares.redeem(&bobs).expect("his only one").guest().is_some());
    }
}
