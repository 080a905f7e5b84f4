//! The changing state of a session: its clients, the client in control, its size and its end.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::auth::Access;
use crate::ids::ShareId;
use crate::os::ExitStatus;
use crate::session::input_queue::InputSequence;
use crate::session::log::Log;
use crate::session::{
    ClientInfo, ClientsOf, Closed, Notice, SessionError, SessionPolicy, TerminalColors,
};
use crate::terminal::Size;
use crate::user_name::UserName;

pub(crate) struct LiveState {
    pub(crate) log: Log,
    /// So much of the log did not come from the program.
    pub(crate) synthetic_bytes: u64,
    pub(crate) clients: BTreeMap<u64, AttachedClient>,
    pub(super) next_client: u64,
    /// By the name of a client: how far its input has come, and when it left.
    pub(crate) input_sequences: VecDeque<InputSender>,
    pub(crate) controller: Option<u64>,
    pub(crate) size: Size,
    /// Size that the clients came to last, for which there was no memory.
    pub(crate) refused_size: Option<Size>,
    /// What programs are told that ask.
    pub(crate) colors: TerminalColors,
    pub(crate) name: Option<String>,
    pub(crate) title: String,
    pub(crate) versions: Versions,
    pub(crate) last_activity: SystemTime,
    pub(crate) active: Instant,
    pub(crate) detached: Option<Instant>,
    pub(crate) warned: Option<Instant>,
    pub(crate) cursor_queries: u64,
    pub(crate) recording: bool,
    pub(crate) end: Option<(ExitStatus, Instant)>,
    pub(crate) closed: Option<Closed>,
    /// The end is written down, and its place is another's.
    pub(crate) is_settled: bool,
}

/// A client that sends numbered input.
#[derive(Debug)]
pub(crate) struct InputSender {
    pub(crate) name: String,
    pub(crate) user: UserName,
    pub(crate) sequence: InputSequence,
    /// It goes on where some connection broke, and did not say as whom.
    pub(crate) unnamed: bool,
    pub(crate) left: Option<Instant>,
}

/// Counts the changes of what clients are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) title: u64,
    pub(crate) presence: u64,
    pub(crate) control: u64,
}

#[derive(Debug)]
pub(crate) struct AttachedClient {
    pub(crate) name: String,
    pub(crate) user: UserName,
    pub(crate) access: Access,
    pub(crate) share: Option<ShareId>,
    pub(crate) window: Option<Size>,
    pub(crate) colors: Option<TerminalColors>,
    /// Everything below it is drawn; `None` for a client that does not say.
    pub(crate) acked: Option<u64>,
    /// Everything below it is in the client's socket; `None` where its server does not say.
    pub(crate) delivered: Option<u64>,
    /// How much had been printed when it came.
    pub(crate) joined_at: u64,
    /// It was waited for long enough.
    pub(crate) slow: bool,
    /// It was waited for before anything was known of how far it is, which is done once.
    pub(crate) was_waited_for: bool,
    pub(crate) notices: VecDeque<Notice>,
    pub(crate) closed: Option<Closed>,
}

impl LiveState {
    /// Something happened in the session.
    pub(crate) fn touch(&mut self) {
        self.last_activity = SystemTime::now();
        self.active = Instant::now();
    }

    /// Tells all clients.
    pub(crate) fn notify(&mut self, notice: Notice) {
        self.clients.values_mut().for_each(|client| client.notify(notice.clone()));
    }

    /// Tells the clients that may type.
    pub(crate) fn notify_typists(&mut self, notice: &Notice) {
        let typists = self.clients.values_mut().filter(|client| client.may_type());
        typists.for_each(|client| client.notify(notice.clone()));
    }

    /// Checks whether one more client may attach, of the guest of `share` if that is given. `max` are all
    /// that may.
    pub(crate) fn check_clients(
        &self,
        share: Option<&ShareId>,
        max: usize,
    ) -> Result<(), SessionError> {
        let full = |of, limit| Err(SessionError::ClientsFull { of, limit });
        if let Some(share) = share {
            let guests = self.clients.values().filter_map(|client| client.share.as_ref());
            let (mut of_share, mut of_guests) = (0, 0);
            for found in guests {
                of_guests += 1;
                of_share += usize::from(found == share);
            }
            if of_share >= SessionPolicy::MAX_CLIENTS_PER_SHARE {
                return full(ClientsOf::Share, SessionPolicy::MAX_CLIENTS_PER_SHARE);
            }
            let max_guests = max - max.div_ceil(4);
            if of_guests >= max_guests {
                return full(ClientsOf::Guests, max_guests);
            }
        }
        if self.clients.len() >= max {
            return full(ClientsOf::Session, max);
        }
        Ok(())
    }

    pub(crate) fn join(&mut self, client: AttachedClient) -> u64 {
        let key = self.next_client;
        self.next_client += 1;
        self.detached = None;
        let takes_control = client.may_type() && self.controller.is_none();
        self.clients.insert(key, client);
        self.versions.presence += 1;
        if takes_control {
            self.give_control(Some(key));
        }
        key
    }

    pub(crate) fn leave(&mut self, key: u64) {
        let Some(client) = self.clients.remove(&key) else { return };
        self.versions.presence += 1;
        if let Some(known) = self.input_sequences.iter_mut().find(|known| known.name == client.name)
        {
            known.left = Some(Instant::now());
        }
        if self.controller == Some(key) {
            let next = self.clients.iter().find(|(_, client)| client.may_type());
            let next = next.map(|(key, _)| *key);
            self.give_control(next);
        }
        if self.clients.is_empty() {
            self.detached = Some(Instant::now());
        }
    }

    pub(crate) fn give_control(&mut self, to: Option<u64>) {
        if self.controller != to {
            self.controller = to;
            self.versions.control += 1;
            self.choose_colors();
        }
    }

    /// Takes those of the client in control; where they are not known, the ones before stay.
    pub(crate) fn choose_colors(&mut self) {
        let controller = self.controller.and_then(|key| self.clients.get(&key));
        if let Some(colors) = controller.and_then(|client| client.colors) {
            self.colors = colors;
        }
    }

    pub(crate) fn presence(&self, own: u64) -> Vec<ClientInfo> {
        self.clients
            .iter()
            .map(|(key, client)| ClientInfo {
                id: client.name.clone(),
                user: client.user.clone(),
                access: client.access,
                you: *key == own,
            })
            .collect()
    }
}

impl AttachedClient {
    pub(crate) fn may_type(&self) -> bool {
        self.access == Access::Control
    }

    pub(crate) fn notify(&mut self, notice: Notice) {
        if self.notices.len() < MAX_NOTICES {
            self.notices.push_back(notice);
        }
    }
}

/// A client that does not even read these misses the next.
const MAX_NOTICES: usize = 16;
