//! Creation of sessions.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::auth::Caller;
use crate::blocking::blocking;
use crate::error::Field;
use crate::execute::{Command, ExecuteError, command_bytes, drop_exec};
use crate::ids::{SessionId, random_text};
use crate::run::{SESSION_VARIABLE, check_counts, check_env};
use crate::screen::Screen;
use crate::session::bounds::ReadTurn;
use crate::session::live_session::{Launch, LiveSession, SessionInit};
use crate::session::record::Record;
use crate::session::recording::Recorder;
use crate::session::registry;
use crate::session::store::SessionFiles;
use crate::session::stored::{StoredScreen, StoredSession};
use crate::session::tasks;
use crate::session::validate::{check_words, checked_name};
use crate::session::{Recording, SessionError, SessionInfo, SessionRequest, Sessions};
use crate::terminal::Size;

impl Sessions {
    pub(crate) async fn make(
        &self,
        caller: &Caller,
        mut request: SessionRequest,
        place: registry::SessionSlot,
    ) -> Result<SessionInfo, SessionError> {
        let runner = &self.runner;
        let registry = &self.registry;
        // What is large takes time. Before the turn to read, which others wait for, too.
        let (held, bytes) = (request.permit.take(), request.bytes());
        let permit = runner.large_work.permit_or_own(held, caller.accounted_user(), bytes).await;
        let permit = permit.map_err(ExecuteError::from)?;
        let source = match request.restore.take() {
            Some(saved) => Some(self.source(caller, saved).await?),
            None => None,
        };
        let (saved, stored) =
            source.map(|StoredSession { record, screen, turn }| (record, (screen, turn))).unzip();
        check_counts(&request.command)?;
        check_env(&request.command.env, runner.policy.request_env.as_deref())?;
        check_env(&request.server_env, None)?;
        let tty = request.tty_variable.iter().map(|name| (name.clone(), String::new()));
        check_env(&tty.collect::<Vec<_>>(), None)?;
        let name = checked_name(request.name.or_else(|| saved.as_ref()?.name.clone()))?;
        let (resolver, asker, mut command) = (Arc::clone(runner), caller.clone(), request.command);
        let split = move || {
            let mut words = resolver.words(&asker, &mut command)?;
            if let Some(words) = &mut words {
                drop_exec(words);
                check_words(words)?;
            }
            Ok::<_, SessionError>((words, command))
        };
        let (words, command) = permit.run(split).await.map_err(ExecuteError::from)??;
        let argv = match (words, &saved) {
            (Some(words), _) => words,
            (None, _) if !command.args.is_empty() => {
                let problem = "are given without a `command` to give them to".to_owned();
                return Err(SessionError::Malformed { field: Field::Args, problem });
            }
            (None, Some(saved)) => saved.argv.clone(),
            (None, None) if request.login_shell => runner.login_shell(),
            (None, None) => runner.shell().iter().map(OsString::from).collect(),
        };
        drop(permit);
        let size = request.size.or_else(|| saved.as_ref().map(Record::size)).unwrap_or_default();
        let mut env = saved.as_ref().map(|saved| saved.env.clone()).unwrap_or_default();
        env.extend(command.env);
        env.extend(request.server_env);
        let workdir = command.workdir.or_else(|| saved.as_ref()?.workdir.clone());
        let id = SessionId::new(caller.user());
        let launch = Launch {
            _held: registry.hold_command(caller.user(), command_bytes(&argv, &env))?,
            argv: argv.clone(),
            env: env.clone(),
            workdir: workdir.clone(),
        };
        let mut all = vec![
            ("TERM".to_owned(), "xterm-256color".to_owned()),
            ("COLORTERM".to_owned(), "truecolor".to_owned()),
        ];
        all.extend(env);
        all.push((SESSION_VARIABLE.to_owned(), id.to_string()));
        let command = Command {
            argv,
            workdir,
            env: all,
            user: caller.user().clone(),
            session_id: id.clone(),
            limits: runner.policy.default_limits.or(runner.policy.max_limits),
            background: command.background,
            grace: runner.policy.grace,
            path_first: runner.policy.program.directory(),
            terminal_modes: request.modes,
            tty_variable: request.tty_variable,
            mark: None,
        };
        let first_size = saved.as_ref().map_or(size, Record::size);
        let memory = registry.reserve_screen(caller.user(), first_size).await?;
        memory.grow_to(size)?;
        let drawn = match stored {
            Some(stored) => Some(self.drawn(first_size, stored).await?),
            None => None,
        };
        let (screen, first, stored) = match drawn {
            Some((screen, first, stored)) => (Some(screen), first, Some(stored)),
            None => (None, None, None),
        };
        let (files, recorder) = self.files(&id, size, stored).await;
        let opened = runner.executor.open_boxed(command, size).await;
        let terminal = match opened {
            Ok(terminal) => terminal,
            Err(error) => {
                if let Some(store) = registry.store.clone() {
                    let remove = move || {
                        drop((files, recorder));
                        store.remove_session(&id);
                    };
                    blocking(remove).await;
                }
                return Err(error.into());
            }
        };
        let restored = saved.is_some();
        let (live, typed) = LiveSession::new(
            SessionInit {
                id: id.clone(),
                user: caller.user().clone(),
                name,
                created: SystemTime::now(),
                epoch: random_text(),
                offset: 0,
                size: first_size,
                terminal,
                memory,
                launch,
                screen,
                first,
                restored,
                recorder,
                adopted: None,
            },
            Arc::clone(&registry.policy),
            registry.render_pool.clone(),
        );
        if restored {
            // The old program's modes must not be the new one's; its screen stays to be read.
            if live.is_alternate().await {
                let _ = live.printed(Bytes::from_static(LEAVE_ALTERNATE)).await;
            }
            let _ = live.printed(Bytes::from_static(RESTORED)).await;
            if live.state().size != size {
                let mut state = live.state();
                state.size = size;
                state.log.push_size(size);
            }
        }
        {
            let mut state = live.state();
            state.synthetic_bytes = state.log.end().offset;
        }
        registry.insert(&live);
        let kept = tasks::start(&live, typed, files, place, Arc::clone(&registry.io));
        // Whoever is told of a session finds it again in the next engine, however this one ends.
        let _ = kept.await;
        Ok(live.info())
    }

    /// The screen that is loaded, and the bytes that draw it, if they are few enough to be kept.
    async fn drawn(
        &self,
        size: Size,
        stored: Stored,
    ) -> Result<(Screen, Option<Bytes>, Stored), SessionError> {
        let registry = &self.registry;
        let next = |(screen, _): &mut Stored| screen.next_piece();
        let look = |drawn: Screen, stored: Stored| {
            let is_small = stored.0.length() <= MAX_FIRST_SCREEN_BYTES;
            (is_small.then(|| drawn.snapshot().into()), drawn, stored)
        };
        let scrollback = registry.policy.scrollback;
        let drawn = registry.render_pool.redrawn(size, scrollback, stored, next, look).await?;
        let (first, screen, stored) = drawn;
        Ok((screen, first, stored))
    }

    /// The files of a new session. Without them it still serves.
    async fn files(
        &self,
        id: &SessionId,
        size: Size,
        mut stored: Option<Stored>,
    ) -> (Option<SessionFiles>, Option<Recorder>) {
        let registry = &self.registry;
        let Some(store) = registry.store.clone() else { return (None, None) };
        let policy = Arc::clone(&registry.policy);
        let id = id.clone();
        blocking(move || {
            let files = match store.session(&id) {
                Ok(files) => files,
                Err(error) => {
                    tracing::warn!(%error, session = %id, "a session gets no files");
                    return (None, None);
                }
            };
            if policy.recording == Recording::Off {
                return (Some(files), None);
            }
            let recorder = files.new_recording().ok().and_then(|(cast, keyframes)| {
                let begun = Recorder::begin(cast, keyframes, policy.max_recording, size);
                let mut recorder = begun.ok()?;
                if let Some((screen, _)) = &mut stored {
                    screen.rewind().ok()?;
                    while let piece = screen.next_piece().ok()?
                        && !piece.is_empty()
                    {
                        recorder.first_screen(&piece).ok()?;
                    }
                }
                Some(recorder)
            });
            (Some(files), recorder)
        })
        .await
    }
}

/// What is read of a file, and the turn to read it.
type Stored = (StoredScreen, ReadTurn);

/// A screen that takes more is not kept beside the one that a loaded session goes on with: who attaches
/// from the start gets the latter.
const MAX_FIRST_SCREEN_BYTES: u64 = 256 << 10;
/// Leaves the alternate screen for the last line of the usual one. Not by mode 1049, which would put
/// the cursor elsewhere.
const LEAVE_ALTERNATE: &[u8] = b"\x1b[?1047l\x1b[999;1H";
/// Resets what the old program had set, but no cell: DECSTR, the mouse, focus and paste modes off,
/// the cursor shown; then a line of its own.
const RESTORED: &[u8] = b"\x1b[!p\x1b[?1000;1002;1003;1004;1006;1016;2004;2026l\x1b[20l\x1b[?25h\x1b[0m\r\n\x1b[2m[restored]\x1b[0m\r\n";
