//! Runs commands for others: streams, limits, whole process trees, callers and their rights.
//!
//! [`Engine`] is what adapters hold: it checks a [`Caller`]'s rights, queues a [`Request`], runs it
//! with an [`Execute`] such as [`LocalExecutor`], and gives its [`Event`]s and [`End`]. It knows no
//! protocol: the crates beside it turn it into network servers.

#[cfg(not(target_os = "linux"))]
compile_error!("splengine-core needs Linux: pidfds, subreapers and Linux's pseudoterminals");

mod auth;
mod batch;
mod budget;
mod caller;
mod disk;
mod engine;
mod error;
mod execute;
mod files;
mod flat_dir;
mod fresh;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod gather;
mod id;
mod input_budget;
mod local;
mod lock;
mod names;
mod net;
mod places;
mod process;
mod protected;
mod retention;
mod scope;
mod screen;
mod session;
mod spare_thread;
mod store;
mod text;

pub use auth::{
    AccountList, Accounts, AddressRange, AuthError, Authenticator, CredentialSource, Credentials,
    GuessingPolicy, NoAuthenticator, ParseAddressRangeError, ParseTokenHashError, Revocation,
    Secret, SharedAuthenticator, StaticTokens, TokenError, TokenHash,
};
pub use batch::{
    BatchError, BatchEvent, BatchEventKind, BatchEvents, BatchFilter, BatchInfo, BatchJob,
    BatchList, BatchPolicy, BatchRecord, BatchRequest, BatchResultReader, BatchResults, BatchState,
    Batches, FailFast, JobAction, JobEvent, LogPiece, Outcome, RetryOn, RunIf, SalvagedBatch, Step,
    StepCheck, StepCounts, StepInfo, StepLog, StepOutput, StepResult, StepState, Submitted,
    salvage_batches,
};
pub use budget::{CallerBudgets, MemoryBudget, MemoryError, Reservation};
pub use caller::{Caller, Guest, ParseUserNameError, UserName};
pub use disk::{BelowFloor, DiskReserve};
pub use engine::{
    Admitted, BuildError, Engine, EngineBuilder, EngineStats, ExecutionInfo, ExecutionState,
    HistogramStats, PartState, QueuedRun, Readiness, Resumed,
};
pub use error::ErrorKind;
pub use execute::{
    Background, Cancel, Captured, Command, End, Event, Execute, ExecuteError, Exit, ExitStatus,
    Gap, LimitKind, Limits, Output, OutputClosed, Program, ProgramError, Reason, Request, Run,
    Signal, SlowReader, SplitError, Stdin, Stopper, Stream, Usage, split_words,
};
pub use files::{
    DiskSpace, FileEntry, FileError, FileEvent, FileInfo, FileKind, FileListing, FilePolicy,
    FilePolicyError, FileRevision, FileWatch, Files, OpenFile, OpenOptions, Replaced,
    SetAttributes,
};
pub use gather::{GatherError, GatherLimits, Gathered};
pub use id::{
    BatchId, ExecutionId, ParseBatchIdError, ParseExecutionIdError, ParseSavedIdError,
    ParseSessionIdError, ParseShareIdError, SavedId, SessionId, ShareId,
};
pub use local::{
    CgroupMode, Environment, HoldError, LocalExecutor, LocalExecutorBuilder, PtyHost, SetupError,
    hold,
};
pub use net::{
    Activity, Announced, BindError, Closing, Connection, ConnectionHandle, ConnectionLimits,
    ConnectionStats, PeerAddress, is_anybodys_name, serve_connections,
};
pub use places::{CallerPlace, CallerPlaces, PlaceError};
pub use scope::{ParseScopeError, Scope, Scopes};
pub use screen::Screen;
pub use session::{
    Access, Attach, Attachment, ClientInfo, ClientInput, Closed, Notice, Orphan, Printed,
    Reattached, Recording, RecordingFile, SavedInfo, ScreenShot, Session, SessionError,
    SessionInfo, SessionPolicy, SessionRequest, SessionState, SessionStatus, Sessions, ShareInfo,
    Size, SizePolicy, StoreError, Terminal, TerminalColors, TerminalModes, Update,
};
pub use store::{Change, MemoryStore, Rows, Store, StoreFault};
#[cfg(feature = "redb")]
pub use store::{RedbStore, Repaired, SalvagedStore};
pub use text::Utf8Pieces;
