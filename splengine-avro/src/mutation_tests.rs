//! Messages as clients send them, with bytes changed, taken out and put in: none may panic, and none
//! may make more of itself than it is.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::datum::{Datum, write_sized};
use crate::framing::{Frames, PREFIX, Sasl, WireFormat};
use crate::fuzzing::{on_small_stack, read};
use crate::handshake::Conversation;
use crate::peer_protocols::Clients;
use crate::protocol::{known_messages, ours};
use crate::records::{
    BatchJob, BatchRequest, Command, OutputStream, Reason, RetryOn, RunRequest, SessionRequest,
    StdinFrom, Step,
};

/// xorshift64: the same mutants in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    pub(crate) fn mutate(&mut self, message: &mut Vec<u8>) {
        for _ in 0..=self.roll(4) {
            let at = self.roll(message.len().max(1));
            match self.roll(6) {
                0 if !message.is_empty() => message[at] ^= 1 << self.roll(8),
                1 if !message.is_empty() => message[at] = [0, 1, 2, 0x7f, 0x80, 0xff][self.roll(6)],
                2 => message.truncate(at),
                3 if !message.is_empty() => drop(message.remove(at)),
                4 => message.insert(at, self.roll(256) as u8),
                _ => {
                    let until = (at + self.roll(9)).min(message.len());
                    let piece = message[at.min(until)..until].to_vec();
                    message.splice(at.min(until)..at.min(until), piece);
                }
            }
        }
    }
}

/// What every kind of client sends: a handshake and a call, of each message.
fn seeds() -> Vec<Vec<u8>> {
    let ours = ours();
    let text = || Some("data".to_owned());
    let command = Command {
        command: "echo".to_owned(),
        args: vec!["a".to_owned(), "b".to_owned()],
        workdir: text(),
        session_id: None,
    };
    let mut calls = vec![
        call("execute", &command),
        call(
            "executeBatch",
            &BatchJob {
                commands: vec![command.clone(), command],
                job_id: text(),
                stop_on_error: true,
                parallelism: 2,
                timeout_ms: Some(5),
                workdir: None,
                session_id: None,
                labels: [("a".to_owned(), "b".to_owned())].into(),
            },
        ),
        call(
            "openSession",
            &SessionRequest {
                command: text(),
                args: vec!["x".to_owned()],
                workdir: None,
                env: [("A".to_owned(), "b".to_owned())].into(),
                cols: Some(80),
                rows: None,
                name: text(),
            },
        ),
        call("readSession", &"spl-a".to_owned()),
        b"\x02\x04id\x08\xff\xff\xff\xff\x02\x1cspl-request-id\x02r\0\0".to_vec(),
    ];
    let step = Step {
        command: "make".to_owned(),
        args: Vec::new(),
        workdir: text(),
        env: [("A".to_owned(), "b".to_owned())].into(),
        stdin: Some(Bytes::from_static(b"in")),
        timeout: Some(1000),
        output_limit: None,
        background: crate::records::Background::Keep,
        limits: None,
        id: text(),
        depends_on: Some(vec!["a".to_owned()]),
        run_if: crate::records::RunIf::Always,
        retries: 1,
        retry_delay: 5,
        rerun_on_restart: true,
        idle_timeout: Some(9),
        mask: vec!["A".to_owned()],
        shell: false,
        retry_on: Some(RetryOn { exit_codes: vec![75], reasons: vec![Reason::Lost] }),
        allow_failure: true,
        check: Some(crate::records::StepCheck::Late),
        stdin_from: Some(StdinFrom { step: "a".to_owned(), stream: OutputStream::Stderr }),
        open_stdin: false,
    };
    calls.push(call(
        "run",
        &RunRequest {
            command: "cat".to_owned(),
            args: Vec::new(),
            workdir: None,
            session_id: None,
            env: step.env.clone(),
            stdin: step.stdin.clone(),
            timeout: step.timeout,
            output_limit: Some(9),
            background: crate::records::Background::Kill,
            limits: None,
            idle_timeout: Some(7),
            mask: step.mask.clone(),
            shell: true,
        },
    ));
    calls.push(call(
        "submitBatch",
        &BatchRequest {
            steps: vec![step.clone(), step],
            name: text(),
            parallelism: Some(2),
            fail_fast: crate::records::FailFast::Soon,
            workdir: None,
            session_id: None,
            idempotency_key: None,
            labels: [("a".to_owned(), "b".to_owned())].into(),
            timeout: Some(1000),
        },
    ));
    let mut all = Vec::new();
    for call in &calls {
        let mut message = ours.hash.to_vec();
        message.push(0);
        message.extend_from_slice(&ours.hash);
        message.push(0);
        message.extend_from_slice(call);
        all.push(message);
    }
    // One that brings a protocol of its own.
    let mut message = crate::protocol::hash_of(NARROW).to_vec();
    message.push(2);
    write_sized(NARROW.as_bytes(), &mut message);
    message.extend_from_slice(&ours.hash);
    message.extend_from_slice(b"\x02\0\0\x0eexecute\x08echo\x02\x04hi\0");
    all.push(message);
    all
}

fn call(name: &str, parameters: &impl Datum) -> Vec<u8> {
    let mut bytes = vec![0];
    write_sized(name.as_bytes(), &mut bytes);
    parameters.write(&mut bytes);
    bytes
}

/// All that is done with a message before anything is done for it.
fn take_in(clients: &Arc<Clients>, framed: &[u8]) {
    if let Some(first) = framed.first_chunk::<PREFIX>() {
        WireFormat::of(first, MAX);
    }
    let _ = Sasl::start(&mut BytesMut::from(framed));
    for mut frames in [Frames::netty(MAX), Frames::classic(MAX)] {
        let mut input = BytesMut::from(framed);
        let mut conversation = Conversation::new(Arc::clone(clients), false);
        while let Ok(Some((_, message))) = frames.next(&mut input) {
            assert!(message.len() <= framed.len());
            let Ok(opened) = conversation.open_here(message) else { break };
            if let Some((client, call)) = opened.call {
                read(&client, call);
            }
        }
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second field") * 4096
}

#[test]
fn mutants_do_no_harm() {
    on_small_stack(mutants_do_no_harm_here);
}

fn mutants_do_no_harm_here() {
    let runs = std::env::var("SPLENGINE_TEST_RUNS").ok().and_then(|runs| runs.parse().ok());
    let runs: usize = runs.unwrap_or(20_000);
    let clients = Arc::new(Clients::new());
    let seeds = seeds();
    assert!(known_messages().len() > 20);
    for seed in &seeds {
        let mut frames = Frames::classic(MAX);
        let mut input = BytesMut::new();
        frames.write(0, seed, &mut input);
        let (_, message) = frames.next(&mut input).expect("whole").expect("one");
        let opened = Conversation::new(Arc::clone(&clients), false).open_here(message);
        assert!(opened.expect("a handshake").call.is_some());
    }
    let mut dice = Dice(0x5eed);
    let mut begun = 0;
    for run in 0..runs {
        let mut message = seeds[dice.roll(seeds.len())].clone();
        if dice.roll(4) > 0 {
            dice.mutate(&mut message);
        }
        let mut framed = BytesMut::new();
        let frames = if dice.roll(2) == 0 { Frames::netty(MAX) } else { Frames::classic(MAX) };
        frames.write(dice.roll(9) as u32, &message, &mut framed);
        let mut framed = framed.to_vec();
        if dice.roll(4) == 0 {
            dice.mutate(&mut framed);
        }
        take_in(&clients, &framed);
        if run == runs / 10 {
            begun = resident();
        }
    }
    let grown = resident().saturating_sub(begun);
    assert!(grown < 64 << 20, "grown by {grown} bytes");
}

const MAX: usize = 1 << 16;
const NARROW: &str = r#"{"protocol":"SPlectrumEngine","namespace":"com.splectrum.rpc","types":[{"name":"Command","type":"record","fields":[{"name":"command","type":"string"},{"name":"args","type":{"type":"array","items":"string"}}]}],"messages":{"execute":{"request":[{"name":"command","type":"Command"}],"response":"null"}}}"#;
