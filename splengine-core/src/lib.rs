//! Runs commands for others: streams, limits, whole process trees, callers and their rights.
//!
//! [`Engine`] is what adapters hold: it checks a [`Caller`]'s rights, queues a [`Request`], runs it
//! with an [`Execute`] such as [`LocalExecutor`], and gives its [`Event`]s and [`End`]. It knows no
//! protocol: the crates beside it turn it into network servers.

#[cfg(not(target_os = "linux"))]
compile_error!("splengine-core needs Linux: pidfds, subreapers and Linux's pseudoterminals");

mod auth;
mod batch;
mod blocking;
mod engine;
mod error;
mod execute;
mod files;
mod flat_dir;
mod fresh;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod ids;
mod local;
mod lock;
mod names;
mod net;
mod os;
mod part_state;
mod process;
mod protected;
mod quota;
mod root;
mod run;
mod screen;
mod session;
mod spare_thread;
mod store;
mod terminal;
mod text;
mod time;
mod user_name;

pub use auth::{
    Access, AccountList, Accounts, AddressRange, AuthError, Authenticator, Caller,
    CredentialSource, Credentials, GuessingPolicy, Guest, NoAuthenticator, ParseAddressRangeError,
    ParseScopeError, ParseTokenHashError, ParseUserNameError, Revocation, Scope, Scopes, Secret,
    SharedAuthenticator, StaticTokens, TokenError, TokenHash, UserName,
};
pub use batch::{
    BatchError, BatchEvent, BatchEventKind, BatchEvents, BatchFilter, BatchInfo, BatchJob,
    BatchList, BatchPolicy, BatchRecord, BatchRequest, BatchResultReader, BatchResults, BatchState,
    Batches, FailFast, JobAction, JobEvent, LogPiece, Outcome, RetryOn, RunIf, SalvagedBatch, Step,
    StepCheck, StepCounts, StepInfo, StepLog, StepOutput, StepResult, StepState, Submitted,
    salvage_batches,
};
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
pub use ids::{
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
pub use quota::{
    BelowFloor, CallerBudgets, CallerPlace, CallerPlaces, DiskReserve, GatherError, GatherLimits,
    Gathered, MemoryBudget, MemoryError, PlaceError, Reservation,
};
pub use screen::Screen;
pub use session::{
    Attach, Attachment, ClientInfo, ClientInput, Closed, Notice, Printed, Recording, RecordingFile,
    SavedInfo, ScreenShot, SessionError, SessionInfo, SessionPolicy, SessionRequest, SessionState,
    Sessions, ShareInfo, SizePolicy, StoreError, TerminalColors, Update,
};
pub use store::{Change, MemoryStore, Rows, Store, StoreFault};
#[cfg(feature = "redb")]
pub use store::{RedbStore, Repaired, SalvagedStore};
pub use terminal::{Orphan, Reattached, Session, SessionStatus, Size, Terminal, TerminalModes};
pub use text::Utf8Pieces;
