//! Shares: rights to one session, given away by a ticket that works once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::auth::Secret;
use crate::caller::{Caller, Guest, UserName};
use crate::id::{SessionId, ShareId, random_text};
use crate::session::{Access, SessionError, ShareInfo};

/// All shares and tickets. They live no longer than the engine.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shares: HashMap<ShareId, Share>,
    /// By the hash of the ticket; which of them are guessed right can't be told from time.
    tickets: HashMap<[u8; 32], (Ticket, Instant)>,
}

#[derive(Debug)]
struct Share {
    info: ShareInfo,
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
        session: &SessionId,
        access: Access,
        expires_in: Duration,
    ) -> Result<(ShareInfo, Secret), SessionError> {
        let mut state = self.lock();
        state.forget_old();
        let of_session = state.shares.values().filter(|share| share.info.session_id == *session);
        if of_session.count() >= MOST_SHARES {
            return Err(SessionError::CallerLimit { what: "shares", limit: MOST_SHARES });
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
        let share = Share { info: info.clone(), until: now + expires_in, guest };
        state.shares.insert(id.clone(), share);
        let ticket = state.ticket(Ticket::Share(id), now + expires_in);
        Ok((info, ticket))
    }

    /// A ticket that stands for `caller`, once.
    pub(crate) fn ticket(&self, caller: &Caller) -> Result<Secret, SessionError> {
        let mut state = self.lock();
        state.forget_old();
        if state.tickets.len() >= MOST_TICKETS {
            return Err(SessionError::CallerLimit { what: "tickets", limit: MOST_TICKETS });
        }
        Ok(state.ticket(Ticket::Caller(caller.clone()), Instant::now() + TICKET_LIFE))
    }

    /// Who shows this ticket. It does not work again.
    pub(crate) fn redeem(&self, ticket: &Secret) -> Result<Caller, SessionError> {
        let mut state = self.lock();
        let hash: [u8; 32] = Sha256::digest(ticket.expose()).into();
        let (ticket, until) = state.tickets.remove(&hash).ok_or(SessionError::NoShare)?;
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
                };
                Ok(Caller::new_guest(share.guest.clone(), guest))
            }
        }
    }

    /// Whether what made this caller a guest still stands.
    pub(crate) fn stands(&self, guest: &Guest) -> bool {
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
    pub(crate) fn take_back(&self, session: &SessionId, which: Which<'_>) -> bool {
        let mut state = self.lock();
        let of_ticket = match which {
            Which::Ticket(ticket) => {
                let hash: [u8; 32] = Sha256::digest(ticket.expose()).into();
                match state.tickets.get(&hash) {
                    Some((Ticket::Share(id), _)) => Some(id.clone()),
                    _ => return false,
                }
            }
            Which::All | Which::One(_) => None,
        };
        let before = state.shares.len();
        state.shares.retain(|id, share| {
            let meant = match which {
                Which::All => true,
                Which::One(one) => id == one,
                Which::Ticket(_) => of_ticket.as_ref() == Some(id),
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
pub(crate) enum Which<'a> {
    All,
    One(&'a ShareId),
    Ticket(&'a Secret),
}

impl State {
    fn ticket(&mut self, ticket: Ticket, until: Instant) -> Secret {
        let text = format!("ticket-{}{}", random_text(), &random_text()[..13]);
        self.tickets.insert(Sha256::digest(&text).into(), (ticket, until));
        Secret::new(text)
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        self.tickets.retain(|_, (_, until)| *until > now);
        self.shares.retain(|_, share| share.until > now);
    }
}

/// Of one session.
const MOST_SHARES: usize = 64;
const MOST_TICKETS: usize = 4096;
const TICKET_LIFE: Duration = Duration::from_secs(30);
