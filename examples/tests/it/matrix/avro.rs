//! Calls of Avro RPC.

use std::net::SocketAddr;

use super::{Actor, Operation, Told};
use crate::conformance::{CODES, avro_call, long, text};

pub(super) fn call(addr: SocketAddr, actor: &Actor, operation: Operation) -> Option<Told> {
    let mut call = Vec::new();
    // Of what may be left out nothing is given.
    let parts: Vec<&[u8]> = match operation {
        Operation::Execute => vec![b"run", b"true"],
        Operation::SubmitBatch => vec![b"submitBatch"],
        Operation::ListBatches => vec![b"listBatches"],
        Operation::CreateSession => vec![b"openSession"],
        Operation::ListSessions => vec![b"listSessions"],
        Operation::ViewSession => vec![b"readSession", actor.session.as_bytes()],
        Operation::ControlSession => vec![b"writeSession", actor.session.as_bytes(), b" "],
        Operation::ReadFile => vec![b"readFile", b"known"],
        Operation::WriteFile => vec![b"writeFile", b"written", b"x"],
        Operation::ListExecutions | Operation::ListFiles | Operation::CopyFiles => return None,
    };
    parts.into_iter().for_each(|part| text(part, &mut call));
    match operation {
        Operation::Execute => call.extend([0; 12]),
        Operation::SubmitBatch => {
            long(1, &mut call);
            text(b"true", &mut call);
            call.extend([0; 22 + 1 + 8]);
        }
        Operation::ListBatches => {
            call.push(0);
            long(10, &mut call);
            call.extend([0; 3]);
        }
        Operation::CreateSession => call.extend([0; 7]),
        Operation::ViewSession => {
            call.extend([0; 2]);
            long(100, &mut call);
            call.push(0);
        }
        Operation::ReadFile => {
            call.push(0);
            long(10, &mut call);
        }
        Operation::WriteFile => call.push(0),
        _ => {}
    }
    let mut metadata = vec![2];
    text(b"spl-authorization", &mut metadata);
    text(format!("Bearer {}", actor.token).as_bytes(), &mut metadata);
    match avro_call(addr, &metadata, &call) {
        Ok(mut answer) => {
            // An array without an item.
            let is_empty = operation == Operation::ListSessions && answer.long() == 0;
            Some(if is_empty { Told::Forbidden } else { Told::Done })
        }
        Err((1, mut error)) => {
            let code = CODES[usize::try_from(error.long()).expect("a symbol")];
            assert_eq!(code, "PERMISSION_DENIED", "{operation:?}: {}", error.text());
            Some(Told::Forbidden)
        }
        Err((_, mut error)) => panic!("{operation:?}: {}", error.text()),
    }
}
