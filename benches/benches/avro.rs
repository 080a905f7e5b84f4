//! What the Avro RPC server serves: `execute`, with an executor that does nothing, to a raw load over
//! the Netty framing, against an avsc server that does nothing either; and what reading and writing
//! its records costs, against apache-avro's path through resolution.
//!
//! `cargo bench -p benches --bench avro`, with `node` on PATH and avsc below `interop/avro` for the
//! first part

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use benches::{Times, report};
use serde::{Deserialize, Serialize};
use splengine_avro::AvroServer;
use splengine_core::auth::StaticTokens;
use splengine_core::execute::{Cancel, Exit, ExitStatus, Output, Stdin};
use splengine_core::{Caller, Engine, Execute, ExecuteError};
use tokio::time::Instant;

const ROUNDS: usize = 7;
const RECORDS: usize = 20_000;

/// Runs nothing, at once.
struct Nothing;

impl Execute for Nothing {
    async fn execute(
        &self,
        _: splengine_core::execute::Command,
        _: Stdin,
        output: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        output.started();
        Ok(Exit::new(ExitStatus::Code(0)))
    }
}

fn main() {
    records();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let addr = runtime.block_on(async {
        let engine = Engine::builder(Nothing).max_running(1024).build().expect("built");
        let everyone = Caller::new("bench").expect("a user name").with_all_scopes();
        let server = AvroServer::builder(engine)
            .authenticate(StaticTokens::new().allow_anonymous(everyone))
            .bind("127.0.0.1:0")
            .await
            .expect("bound");
        let addr = server.local_addr().tcp().expect("of TCP");
        tokio::spawn(async { server.await });
        addr
    });
    let Some(avsc) = Avsc::start() else { return };
    for (window, ours_calls, theirs_calls, aim) in
        [(256, 200_000, 30_000, "at least 10x"), (1, 20_000, 10_000, "at least 1.4x")]
    {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(load(addr, window, ours_calls, &mut our_times));
            theirs.push(load(avsc.addr, window, theirs_calls, &mut their_times));
        }
        for rates in [&mut ours, &mut theirs] {
            rates.sort_unstable_by(f64::total_cmp);
        }
        let what = format!("calls a second, window {window}, against avsc");
        report(&what, ours[ROUNDS / 2], theirs[ROUNDS / 2], "/s", aim);
        let p99 = |times: Vec<Duration>| Times::new(times).quantile(0.99).as_secs_f64() * 1e6;
        let what = format!("… the 99th percentile of a call, window {window}");
        report(&what, p99(our_times), p99(their_times), "us", "-");
    }
}

/// Calls a second, with so many of them on their way; how long each took goes to `times`.
fn load(addr: SocketAddr, window: usize, calls: usize, times: &mut Vec<Duration>) -> f64 {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_nodelay(true).expect("set");
    let protocol = splengine_avro::protocol();
    shake_hands(&mut stream, protocol);
    let mut call = vec![0, 14];
    call.extend_from_slice(b"execute\x08echo\x02\x04hi\0\0\0");
    let frame = |serial: u32| {
        let mut bytes = serial.to_be_bytes().to_vec();
        bytes.extend_from_slice(&1_u32.to_be_bytes());
        bytes.extend_from_slice(&(call.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&call);
        bytes
    };
    let begun = Instant::now();
    let mut sent_at = vec![begun; calls];
    let (mut sent, mut answered) = (0, 0);
    let (mut input, mut output) = (vec![0; 1 << 16], Vec::new());
    let mut kept = Vec::new();
    while answered < calls {
        output.clear();
        while sent < calls && sent - answered < window {
            sent_at[sent] = Instant::now();
            output.extend_from_slice(&frame(sent as u32));
            sent += 1;
        }
        stream.write_all(&output).expect("sent");
        let length = stream.read(&mut input).expect("reads");
        assert!(length > 0, "closed");
        kept.extend_from_slice(&input[..length]);
        let mut at = 0;
        while let Some(head) = kept.get(at..at + 12) {
            let word = |from: usize| {
                u32::from_be_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]])
            };
            let size = word(8) as usize;
            let Some(answer) = kept.get(at + 12..at + 12 + size) else { break };
            assert_eq!((word(4), answer.starts_with(&[0, 0, 0])), (1, true));
            times.push(sent_at[word(0) as usize].elapsed());
            answered += 1;
            at += 12 + size;
        }
        kept.drain(..at);
    }
    calls as f64 / begun.elapsed().as_secs_f64()
}

/// With the text at once, so that one answer is enough whatever the server knows.
fn shake_hands(stream: &mut TcpStream, protocol: &str) {
    // Both sides know the message and its types; avsc refuses what it lacks.
    let mut value: serde_json::Value = serde_json::from_str(protocol).expect("JSON");
    let execute = value["messages"]["execute"].take();
    value["messages"] = serde_json::json!({ "execute": execute });
    let text = value.to_string();
    let hash = md5::<16>(&text);
    let mut message = hash.to_vec();
    message.push(2);
    let mut length = text.len() << 1;
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(text.as_bytes());
    message.extend_from_slice(&hash);
    message.extend_from_slice(&[0, 0, 0]);
    let mut frame = [0_u32.to_be_bytes(), 1_u32.to_be_bytes()].concat();
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    stream.write_all(&frame).expect("sent");
    let mut word = || {
        let mut word = [0; 4];
        stream.read_exact(&mut word).expect("reads");
        u32::from_be_bytes(word)
    };
    assert_eq!(word(), 0);
    for _ in 0..word() {
        let mut part = vec![
            0;
            {
                let mut word = [0; 4];
                stream.read_exact(&mut word).expect("reads");
                u32::from_be_bytes(word) as usize
            }
        ];
        stream.read_exact(&mut part).expect("reads");
    }
}

fn md5<const N: usize>(text: &str) -> [u8; N] {
    use md5::{Digest as _, Md5};
    let sum = Md5::digest(text.as_bytes());
    sum[..N].try_into().expect("16 bytes")
}

/// The server in JavaScript.
struct Avsc {
    child: Child,
    addr: SocketAddr,
}

impl Avsc {
    #[expect(clippy::print_stderr, reason = "a benchmark tells why it leaves something out")]
    fn start() -> Option<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let protocol = here.join("../splengine-avro/protocol/SPlectrumEngine.avpr");
        let started = std::process::Command::new("node")
            .arg(here.join("benches/avro_avsc.js"))
            .arg(protocol)
            .env("NODE_PATH", here.join("../interop/avro/node_modules"))
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                eprintln!("no comparison with avsc: node can't be started: {error}");
                return None;
            }
        };
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        match line.trim().parse() {
            Ok(addr) => Some(Self { child, addr }),
            Err(_) => {
                eprintln!("no comparison with avsc: it is not below interop/avro");
                None
            }
        }
    }
}

impl Drop for Avsc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Command {
    command: String,
    args: Vec<String>,
    workdir: Option<String>,
    session_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecutionResult {
    exit_code: i32,
    stdout: String,
    stderr: String,
    duration: i64,
    session_id: String,
}

/// Writes and reads both records, over and over.
fn records() {
    let command = splengine_avro::Command {
        command: "data transform".to_owned(),
        args: vec!["--input=a.csv".to_owned(), "--quiet".to_owned()],
        workdir: Some("data".to_owned()),
        session_id: None,
    };
    for (name, size) in [("small", 40), ("4 KiB", 4096)] {
        let result = splengine_avro::ExecutionResult {
            exit_code: 0,
            stdout: "x".repeat(size),
            stderr: String::new(),
            duration: 12,
            session_id: "spl-bench-0123456789abcdef".to_owned(),
        };
        let theirs_command = Command {
            command: command.command.clone(),
            args: command.args.clone(),
            workdir: command.workdir.clone(),
            session_id: None,
        };
        let theirs_result = ExecutionResult {
            exit_code: 0,
            stdout: result.stdout.clone(),
            stderr: String::new(),
            duration: 12,
            session_id: result.session_id.clone(),
        };
        let schemas =
            [splengine_avro::Command::schema(), splengine_avro::ExecutionResult::schema()]
                .map(|json| Schema::parse_str(json).expect("a schema"));
        let writers = schemas
            .each_ref()
            .map(|schema| GenericDatumWriter::builder(schema).build().expect("one"));
        let readers = schemas.each_ref().map(|schema| {
            GenericDatumReader::builder(schema).reader_schema(schema).build().expect("one")
        });
        let ours = || {
            for _ in 0..RECORDS {
                let bytes = black_box(&command).to_datum();
                black_box(splengine_avro::Command::from_datum(bytes).expect("read"));
                let bytes = black_box(&result).to_datum();
                black_box(splengine_avro::ExecutionResult::from_datum(bytes).expect("read"));
            }
        };
        let theirs = || {
            for _ in 0..RECORDS {
                let bytes =
                    writers[0].write_ser_to_vec(black_box(&theirs_command)).expect("written");
                let value = readers[0].read_value(&mut &bytes[..]).expect("read");
                black_box(apache_avro::from_value::<Command>(&value).expect("read"));
                let bytes =
                    writers[1].write_ser_to_vec(black_box(&theirs_result)).expect("written");
                let value = readers[1].read_value(&mut &bytes[..]).expect("read");
                black_box(apache_avro::from_value::<ExecutionResult>(&value).expect("read"));
            }
        };
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            our_times.push(benches::timed(ours));
            their_times.push(benches::timed(theirs));
        }
        let rate = |times: Vec<Duration>| RECORDS as f64 / Times::new(times).median().as_secs_f64();
        let what = format!("both records written and read a second, {name}");
        report(&what, rate(our_times), rate(their_times), "/s", "at least 3x");
    }
}
