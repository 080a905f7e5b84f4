use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::quota::{MemoryBudget, Reservation};
use splengine_core::{Caller, Files};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::sftp::ops::{Client, Options};
use crate::sftp::packet::{
    Answer, MAX_DATA, MAX_PACKET, Request, Short, read_init, read_request, version,
};
use crate::sftp::status::{Code, Refusal};

/// An answer, and the memory that it takes until it is written.
type EncodedAnswer = (Vec<u8>, RequestMemory);

/// Memory of a request and its answer: of its channel, and of data also of its caller.
struct RequestMemory {
    of_channel: OwnedSemaphorePermit,
    of_caller: Option<Reservation>,
}

impl From<OwnedSemaphorePermit> for RequestMemory {
    fn from(of_channel: OwnedSemaphorePermit) -> Self {
        Self { of_channel, of_caller: None }
    }
}

/// Serves one client until `input` ends, and then answers what is left. Requests are done side by
/// side, `requests` at once (from [`MIN_REQUESTS`] to [`MAX_REQUESTS`]), and 64 KiB for each of them and
/// their answers at most; the next is read when there is memory again. Data that is read also takes memory
/// of `budget`, the caller's; where there is none for [`MEMORY_TIMEOUT`], the read is refused. What comes of them is always as if they had been done one after the other: whatever changes
/// something waits for all before it, and all after it wait. They are answered in the order in which
/// they came: no client may expect that (draft-ietf-secsh-filexfer-02, "Request Synchronization and
/// Reordering"), but OpenSSH's scp keeps of a file only what came in order, and says nothing of it.
///
/// # Errors
///
/// When `input` or `output` fails, or a client breaks the protocol so that it can't be answered.
///
/// # Cancel safety
///
/// When the future is dropped, what was begun is done, and nothing is answered.
pub(crate) async fn serve(
    files: Files,
    caller: Caller,
    options: Options,
    mut input: impl AsyncRead + Unpin + Send,
    output: impl AsyncWrite + Unpin + Send,
    requests: usize,
    budget: MemoryBudget,
) -> io::Result<()> {
    let client = Arc::new(Client::new(files, caller, options));
    let (answers, written) = mpsc::channel(MAX_REQUESTS);
    let reading = async move {
        let memory = Arc::new(Semaphore::new(requests.max(MIN_REQUESTS) * MIN_REQUEST_BYTES));
        let Some((first, taken)) = read_packet(&mut input, &memory).await? else { return Ok(()) };
        read_init(first).map_err(|Short| broken("a client must begin with SSH_FXP_INIT"))?;
        place(&answers).await.answer((version(), taken.into()));
        Reader { client, memory, budget, turns: Arc::new(Semaphore::new(MAX_REQUESTS)), answers }
            .run(input)
            .await
    };
    tokio::try_join!(reading, write(written, output)).map(|_| ())
}

struct Reader {
    client: Arc<Client>,
    memory: Arc<Semaphore>,
    budget: MemoryBudget,
    /// One of these is held by what only looks, all by what changes something.
    turns: Arc<Semaphore>,
    /// In the order of the requests.
    answers: Sender<oneshot::Receiver<EncodedAnswer>>,
}

impl Reader {
    async fn run(self, mut input: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        while let Some((packet, taken)) = read_packet(&mut input, &self.memory).await? {
            let mut taken = RequestMemory::from(taken);
            while let Some(done) = tasks.try_join_next() {
                done?;
            }
            let (id, request) = read_request(packet)
                .map_err(|Short| broken("a client sent a packet that is no request"))?;
            let request = match request {
                Ok(request) => request,
                Err(Short) => {
                    let message = "the request ends before its last member does";
                    let answer = Answer::Refused(Refusal::new(Code::BadMessage, message));
                    place(&self.answers).await.answer((answer.to_packet(id), taken));
                    continue;
                }
            };
            if let Request::Read { length, .. } = request {
                let more = usize::try_from(length).unwrap_or(MAX_DATA).min(MAX_DATA);
                let mut own = self.budget.reservation();
                if let Err(shortage) = own.resize_within(more, MEMORY_TIMEOUT).await {
                    let answer = Answer::Refused(Refusal::new(Code::Failure, shortage.of_answer()));
                    place(&self.answers).await.answer((answer.to_packet(id), taken));
                    continue;
                }
                taken.of_caller = Some(own);
                let more = take(&self.memory, more.saturating_sub(MIN_REQUEST_BYTES)).await?;
                taken.of_channel.merge(more);
            }
            let turn = RequestTurn::begin(&self.turns, &request).await;
            let (client, place) = (Arc::clone(&self.client), place(&self.answers).await);
            tasks.spawn(async move {
                let turn = turn.come().await;
                let answer = client.answer(request).await.to_packet(id);
                drop(turn);
                place.answer((answer, taken));
            });
        }
        while let Some(done) = tasks.join_next().await {
            done?;
        }
        Ok(())
    }
}

/// A place in the order of requests. It is taken when a request is read, and comes once all are
/// done that must be.
enum RequestTurn {
    Now(Result<OwnedSemaphorePermit, AcquireError>),
    Later(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>),
}

impl RequestTurn {
    async fn begin(turns: &Arc<Semaphore>, request: &Request) -> Self {
        let count = if request.is_read_only() { 1 } else { MAX_REQUESTS };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut turn = Box::pin(Arc::clone(turns).acquire_many_owned(count));
        // Whoever has asked once stands in line, behind all who asked before.
        match poll_fn(|context| Poll::Ready(turn.as_mut().poll(context))).await {
            Poll::Ready(turn) => Self::Now(turn),
            Poll::Pending => Self::Later(turn),
        }
    }

    async fn come(self) -> Result<OwnedSemaphorePermit, AcquireError> {
        match self {
            Self::Now(turn) => turn,
            Self::Later(turn) => turn.await,
        }
    }
}

/// A packet without its length, and the memory that is taken for it; `None` at the end.
async fn read_packet(
    input: &mut (impl AsyncRead + Unpin),
    memory: &Arc<Semaphore>,
) -> io::Result<Option<(Bytes, OwnedSemaphorePermit)>> {
    let mut length = [0; 4];
    if input.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut length[1..]).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_PACKET {
        return Err(broken("a client announced a packet that is longer than 257 KiB"));
    }
    let taken = take(memory, length.max(MIN_REQUEST_BYTES)).await?;
    let mut packet = vec![0; length];
    input.read_exact(&mut packet).await?;
    Ok(Some((packet.into(), taken)))
}

async fn take(memory: &Arc<Semaphore>, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(memory).acquire_many_owned(bytes).await.map_err(io::Error::other)
}

async fn write(
    mut answers: Receiver<oneshot::Receiver<EncodedAnswer>>,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    while let Some(mut next) = answers.recv().await {
        let ready = next.try_recv();
        if ready.is_err() {
            output.flush().await?;
        }
        // Of one that will never be there, who was to give it tells.
        let (answer, taken) = match ready {
            Ok(answer) => answer,
            Err(_) => next.await.map_err(io::Error::other)?,
        };
        output.write_all(&answer).await?;
        drop(taken);
        if answers.is_empty() {
            output.flush().await?;
        }
    }
    output.flush().await
}

/// The place of an answer among all others.
struct ReplySlot(oneshot::Sender<EncodedAnswer>);

/// Where nobody writes answers any more, nobody waits for this one.
async fn place(answers: &Sender<oneshot::Receiver<EncodedAnswer>>) -> ReplySlot {
    let (place, answer) = oneshot::channel();
    let _ = answers.send(answer).await;
    ReplySlot(place)
}

impl ReplySlot {
    fn answer(self, answer: EncodedAnswer) {
        let _ = self.0.send(answer);
    }
}

fn broken(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Time that a read waits for memory of its caller.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(30);
/// At once, of one client.
pub(crate) const MAX_REQUESTS: usize = 64;
/// The same of one whose caller has many others. So much memory has the longest request with its answer.
pub(crate) const MIN_REQUESTS: usize = 8;
/// What each request takes at least, in bytes: an answer other than data fits into it.
const MIN_REQUEST_BYTES: usize = 64 * 1024;
