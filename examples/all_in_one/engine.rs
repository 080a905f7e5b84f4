//! The engine, made of its settings.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

use splengine_core::local::LocalExecutorBuilder;
use splengine_core::{Engine, LocalExecutor};

use crate::failure::Failure;
use crate::settings::Settings;
use crate::{open_files, own_files};

/// The engine with everything that was asked for, and with what was left of the one before.
pub(crate) async fn open(settings: &Settings) -> Result<Engine, Failure> {
    own_files::make_private(&settings.root.join("runtime"));
    let pty_host = settings.pty_host()?;
    let executor = LocalExecutor::builder(&settings.root)
        .environment(settings.environment.clone())
        .cgroup(settings.cgroup.clone())
        // No other part of this program starts a process.
        .reap_unknown(true);
    // Other directories below `runtime` belong to the callers that made them, who may work in them.
    let executor = ["batches", "logins", "runs", "sessions", "ssh"]
        .iter()
        .fold(executor, |all, name| all.protect(settings.root.join("runtime").join(name)));
    let executor = settings.own_files.refuse_as_workdirs(executor);
    let runs = settings.root.join("runtime/runs");
    let executor = match DirBuilder::new().recursive(true).mode(0o700).create(&runs) {
        Ok(()) => executor.runs_dir(runs),
        Err(error) => {
            let directory = runs.display();
            tracing::warn!(%error, %directory, "runs can't be noted: a crash may leave them running");
            executor
        }
    };
    let executor = settings
        .max_background_runs()
        .into_iter()
        .fold(executor, LocalExecutorBuilder::max_background_runs);
    let executor = pty_host
        .into_iter()
        .fold(executor, LocalExecutorBuilder::pty_host)
        .build()
        .map_err(|error| Failure::caused("--root or [cgroup]", &error))?;
    open_files::raise_limit();
    let engine = settings.configure(Engine::builder(executor))?.build();
    let engine = engine.map_err(|error| settings.build_error(&error))?;
    if engine.resume().await.has_failed {
        return Err(settings.unreadable_batches().into());
    }
    Ok(engine)
}
