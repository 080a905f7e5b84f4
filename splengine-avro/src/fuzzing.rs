//! Entry points of the fuzz targets, in no other build, with the properties that must hold for all
//! input. All of it runs on a stack as small as those of a runtime's workers, on which a server does.

mod schemas;

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use bytes::{Buf as _, Bytes, BytesMut};

use crate::datum::{Datum, Reader};
use crate::framing::{Broken, Frames, PREFIX, Sasl, WireFormat};
use crate::handshake::Conversation;
use crate::metadata::Metadata;
use crate::peer_protocols::{ClientProtocol, Clients};
use crate::records::{
    BatchEvent, BatchInfo, BatchJob, BatchPage, BatchRecord, BatchRequest, BatchResult, Command,
    EngineError, EngineInfo, EventPage, ExecutionResult, OutputPart, RunRequest, RunResult,
    SavedSession, SessionInfo, SessionOutput, SessionRequest, Step,
};

/// Does something on a stack of the size that tokio gives its threads.
pub(crate) fn on_small_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let done = thread.spawn_scoped(scope, work).expect("a thread").join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Bytes as a connection brings them, the first one telling how they are cut.
///
/// # Panics
///
/// When something does not hold.
pub fn framing(bytes: &[u8]) {
    on_small_stack(|| framing_here(bytes));
}

fn framing_here(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    if let Some(first) = bytes.first_chunk::<PREFIX>() {
        WireFormat::of(first, MAX);
    }
    let mut input = BytesMut::from(bytes);
    let begun = Sasl::start(&mut input);
    let is_taken = matches!(begun, Ok(Sasl::Anonymous | Sasl::Other));
    assert_eq!(is_taken, input.len() < bytes.len());
    for frames in [|| Frames::netty(MAX), || Frames::classic(MAX)] {
        let whole = messages(frames(), bytes, bytes.len());
        let pieces = messages(frames(), bytes, usize::from(cut));
        assert_eq!(whole, pieces, "however they are cut");
        for (serial, message) in whole.0 {
            assert!(message.len() <= MAX.min(bytes.len()));
            let mut output = BytesMut::new();
            frames().write(serial, &message, &mut output);
            if !message.is_empty() || frames().is_netty() {
                assert_eq!(frames().next(&mut output), Ok(Some((serial, message))));
                assert!(output.is_empty());
            }
        }
    }
}

/// All that come, and whether the connection could go on.
fn messages(mut frames: Frames, bytes: &[u8], cut: usize) -> (Vec<(u32, Bytes)>, bool) {
    let (mut all, mut input) = (Vec::new(), BytesMut::new());
    for piece in bytes.chunks(cut.max(1)) {
        input.extend_from_slice(piece);
        loop {
            match frames.next(&mut input) {
                Ok(Some(message)) => all.push(message),
                Ok(None) => break,
                Err(Broken) => return (all, false),
            }
        }
    }
    (all, true)
}

/// Messages of one connection, each after two bytes with its length; the first bit of all tells
/// whether it is stateless. What are calls is read as far as it is without doing anything.
pub fn handshake(bytes: &[u8]) {
    on_small_stack(|| handshake_here(bytes));
}

/// The text of a client's protocol: the bytes behind the first one, if that is even, or one made of
/// them; and a call by it.
///
/// # Panics
///
/// When something does not hold.
pub fn schemas(bytes: &[u8]) {
    on_small_stack(|| schemas_here(bytes));
}

fn schemas_here(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let text = match first % 2 {
        0 => String::from_utf8_lossy(bytes).into_owned(),
        _ => schemas::protocol(bytes),
    };
    let client = ClientProtocol::new(&text);
    assert!(client.cost() < MAX_COST, "{} bytes", client.cost());
    for call in ["\0\x0eexecute", "\0\x06run"] {
        let call = [call.as_bytes(), bytes.get(..64).unwrap_or(bytes)].concat();
        read(&client, call.into());
    }
}

fn handshake_here(mut bytes: &[u8]) {
    static CLIENTS: LazyLock<Arc<Clients>> = LazyLock::new(|| Arc::new(Clients::new()));
    let is_stateless = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut conversation = Conversation::new(Arc::clone(&CLIENTS), is_stateless);
    while bytes.len() > 2 {
        let length = usize::from(bytes.get_u16() & 0x7fff).min(bytes.len());
        let message = bytes.copy_to_bytes(length);
        let Ok(opened) = conversation.open_here(message) else { return };
        if let Some((client, call)) = opened.call {
            read(&client, call);
        }
    }
}

/// All that is done with a call before anything is done for it.
pub(crate) fn read(client: &ClientProtocol, call: Bytes) {
    let mut reader = Reader::new(call);
    let Ok(metadata) = Metadata::read(&mut reader) else { return };
    let _ = (metadata.deadline(), metadata.credentials());
    metadata.echo().write(&mut Vec::new());
    let Ok(name) = reader.text().map(str::to_owned) else { return };
    let Ok((_, message)) = client.message(&name) else { return };
    let written = reader.rest();
    if message.cost(&name, &written).is_err() {
        return;
    }
    let Ok(mut parameters) = message.parameters(&name, written) else { return };
    let parameters = &mut parameters;
    match name.as_str() {
        "execute" => drop(Command::read(parameters)),
        "executeBatch" | "executeBatchDetailed" => drop(BatchJob::read(parameters)),
        "run" => drop(RunRequest::read(parameters)),
        "submitBatch" => drop(BatchRequest::read(parameters)),
        "openSession" => drop(SessionRequest::read(parameters)),
        _ => drop(String::read(parameters)),
    }
}

/// A record, the first byte telling which.
///
/// # Panics
///
/// When something does not hold.
pub fn datum(bytes: &[u8]) {
    on_small_stack(|| datum_here(bytes));
}

fn datum_here(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = Command::from_single_object(bytes.clone());
    let _ = ExecutionResult::from_registry_form(bytes.clone());
    let kinds: &[fn(Bytes)] = &[
        round_trip::<Command>,
        round_trip::<ExecutionResult>,
        round_trip::<BatchJob>,
        round_trip::<BatchResult>,
        round_trip::<EngineInfo>,
        round_trip::<EngineError>,
        round_trip::<RunRequest>,
        round_trip::<RunResult>,
        round_trip::<Step>,
        round_trip::<BatchRequest>,
        round_trip::<BatchInfo>,
        round_trip::<BatchRecord>,
        round_trip::<BatchPage>,
        round_trip::<BatchEvent>,
        round_trip::<EventPage>,
        round_trip::<OutputPart>,
        round_trip::<SessionRequest>,
        round_trip::<SessionInfo>,
        round_trip::<SessionOutput>,
        round_trip::<SavedSession>,
    ];
    kinds[usize::from(*kind) % kinds.len()](bytes);
}

/// What can be read is written so that it is read again. Never in more bytes: what it was read from
/// may have been longer, but was at least as long.
fn round_trip<T: Datum + Debug + PartialEq>(bytes: Bytes) {
    let length = bytes.len();
    let Ok(record) = T::read(&mut Reader::new(bytes)) else { return };
    let mut written = Vec::new();
    record.write(&mut written);
    assert!(written.len() <= length);
    let mut reader = Reader::new(written.into());
    assert_eq!(T::read(&mut reader).as_ref(), Ok(&record));
    assert_eq!(reader.finish(), Ok(()));
}

const MAX: usize = 1 << 12;
/// Several times what the limits on protocols let one take, in bytes.
const MAX_COST: usize = 8 << 20;

#[cfg(test)]
mod tests {
    /// The fuzzers' seeds, without a fuzzer.
    #[test]
    fn seeds_do_no_harm() {
        type Target = (&'static str, fn(&[u8]));
        const TARGETS: [Target; 4] = [
            ("framing", super::framing),
            ("handshake", super::handshake),
            ("datum", super::datum),
            ("schemas", super::schemas),
        ];
        for (name, target) in TARGETS {
            let seeds = format!("{}/fuzz/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut count = 0;
            for seed in std::fs::read_dir(seeds).expect("a directory") {
                target(&std::fs::read(seed.expect("a file").path()).expect("read"));
                count += 1;
            }
            assert!(count > 3, "only {count} of {name}");
        }
    }

    /// Protocols made of the seeds with bytes changed: near the limits, and beyond them.
    #[test]
    fn changed_schemas_do_no_harm() {
        let seeds = format!("{}/fuzz/seeds/schemas", env!("CARGO_MANIFEST_DIR"));
        let seeds: Vec<Vec<u8>> = std::fs::read_dir(seeds)
            .expect("a directory")
            .map(|seed| std::fs::read(seed.expect("a file").path()).expect("read"))
            .collect();
        let mut dice = crate::mutation_tests::Dice(0x5eed);
        for _ in 0..RUNS {
            let mut bytes = seeds[dice.roll(seeds.len())].clone();
            bytes.extend_from_slice(&seeds[dice.roll(seeds.len())][1..]);
            dice.mutate(&mut bytes);
            super::schemas(&bytes);
        }
    }

    const RUNS: usize = 50;
}
