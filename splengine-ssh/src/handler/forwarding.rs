//! The rules for forwarded connections, and the log lines for refused ones.

use russh::ChannelOpenFailure;
use russh::server::{ChannelOpenHandle, Msg, Session};
use splengine_core::Scope;

use super::Client;
use crate::forward::Destination;

impl Client {
    /// Forwards a connection to where that is allowed.
    pub(super) async fn forward(
        &mut self,
        channel: russh::Channel<Msg>,
        destination: Option<Destination>,
        shown: &str,
        answer: ChannelOpenHandle,
        session: &mut Session,
    ) {
        let Some((grant, destination)) = self.grant.clone().zip(destination) else {
            answer.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return;
        };
        let policy = if !grant.forwarding || grant.view_only {
            Err("an option of the key forbids forwarding")
        } else if !grant.caller.may(Scope::Execute) {
            Err("the caller lacks the scope `execute`")
        } else {
            let (targets, why) = match &grant.permit_open {
                Some(targets) => (targets, "it is no target of the key's permitopen="),
                None => {
                    (&self.context.options.permit_open, "it is no target that is permitted here")
                }
            };
            let is_allowed = match &destination {
                Destination::Tcp(host, port) => targets.allow_tcp(host, u32::from(*port)),
                Destination::Socket(path) => targets.allow_socket(path),
            };
            if is_allowed { Ok(()) } else { Err(why) }
        };
        if let Err(why) = policy {
            self.refuse_forwarding(shown, why);
            answer.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return;
        }
        let Some(id) = self.channel(channel, session) else {
            answer.reject(ChannelOpenFailure::ResourceShortage).await;
            return;
        };
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.forward(&self.context, destination, answer, self.peer, &self.login, &grant);
        }
    }

    /// Refuses what is not forwarded at all: listeners, agents, X11.
    pub(super) fn refuse_listening(&self, what: &str) {
        self.refuse_forwarding(what, NO_LISTENING);
    }

    fn refuse_forwarding(&self, what: &str, why: &str) {
        let Some((user, unlogged)) = self.may_log_refusal() else { return };
        let what: String = what.chars().take(MAX_SHOWN_CHARS).collect();
        tracing::info!(%user, peer = %self.peer, what, why, unlogged, "a forwarding is refused");
    }
}

const NO_LISTENING: &str = "only connections to permitted targets are forwarded here";
/// Of what a client asks for, in the log.
const MAX_SHOWN_CHARS: usize = 300;
