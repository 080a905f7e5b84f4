//! What each scope is good for, by whichever server: one table, run through all of them.

mod avro;
mod ssh;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};
use splengine_avro::AvroServer;
use splengine_core::auth::{AccountList, Accounts, Scopes, Secret, TokenHash};
use splengine_core::batch::BatchPolicy;
use splengine_core::files::FilePolicy;
use splengine_core::session::SessionPolicy;
use splengine_core::store::MemoryStore;
use splengine_core::{Caller, Engine, LocalExecutor, Scope, SessionRequest, UserName};
use splengine_http::HttpServer;
use splengine_ssh::{HostKeys, SshServer, Users};
use splengine_ws::WsServer;
use tempfile::TempDir;

use self::ssh::Ssh;
use crate::server::http;

/// What a client may want to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Execute,
    ListExecutions,
    SubmitBatch,
    ListBatches,
    CreateSession,
    /// Whether one's own session is among those that are listed.
    ListSessions,
    ViewSession,
    ControlSession,
    ReadFile,
    WriteFile,
    ListFiles,
    /// By a program of its own that reads files for a client.
    CopyFiles,
}

use Operation::*;

const OPERATIONS: [Operation; 12] = [
    Execute,
    ListExecutions,
    SubmitBatch,
    ListBatches,
    CreateSession,
    ListSessions,
    ViewSession,
    ControlSession,
    ReadFile,
    WriteFile,
    ListFiles,
    CopyFiles,
];

/// The table.
fn is_allowed(operation: Operation, scopes: Scopes) -> bool {
    let has = |scope| scopes.contains(scope);
    match operation {
        Execute | SubmitBatch | ListBatches => has(Scope::Execute),
        ListExecutions => has(Scope::Execute) || has(Scope::Admin),
        CreateSession | ControlSession => has(Scope::Sessions),
        ListSessions | ViewSession => has(Scope::Sessions) || has(Scope::Watch),
        ReadFile | WriteFile | ListFiles => has(Scope::Files),
        CopyFiles => has(Scope::Execute) && has(Scope::Files),
    }
}

/// What a server did with an operation, in the terms of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    /// By the status or code that stands for it.
    Forbidden,
}

/// A user, and a session of theirs.
struct Actor {
    user: UserName,
    scopes: Scopes,
    token: String,
    session: String,
}

struct Servers {
    http: SocketAddr,
    ws: SocketAddr,
    avro: SocketAddr,
    ssh: Ssh,
    _root: TempDir,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scope_is_good_for_the_same_on_all_servers() {
    let single = Scope::ALL.iter().map(|scope| Scopes::NONE.with(*scope));
    let sets: Vec<Scopes> = [Scopes::NONE, Scopes::ALL].into_iter().chain(single).collect();
    let (servers, actors) = open(&sets).await;
    let mut asked = 0;
    for actor in &actors {
        for operation in OPERATIONS {
            let expected = match is_allowed(operation, actor.scopes) {
                true => Told::Done,
                false => Told::Forbidden,
            };
            let mut check = |server: &str, told: Option<Told>| {
                let Some(told) = told else { return };
                assert_eq!(told, expected, "{server}: {operation:?} with {:?}", actor.scopes);
                asked += 1;
            };
            tokio::task::block_in_place(|| {
                check("HTTP", over_http(servers.http, actor, operation));
                check("HTTP of the WebSocket server", over_http(servers.ws, actor, operation));
                check("WebSocket", over_ws(servers.ws, actor, operation));
                check("Avro RPC", avro::call(servers.avro, actor, operation));
            });
            check("SSH", servers.ssh.does(actor, operation).await);
        }
    }
    // So that nothing was left out unseen.
    assert_eq!(asked, sets.len() * (11 + 11 + 3 + 9 + 8));
}

async fn open(sets: &[Scopes]) -> (Servers, Vec<Actor>) {
    let root = tempfile::tempdir().expect("a directory");
    let path = |name: &str| root.path().join(name);
    for name in ["below", "keys", "outputs"] {
        fs::create_dir(path(name)).expect("made");
    }
    fs::write(path("below/known"), "known").expect("written");
    let batches = BatchPolicy::new(MemoryStore::new(), path("outputs"));
    let engine = Engine::builder(LocalExecutor::new(path("below")).expect("set up"))
        .sessions(SessionPolicy::new().shell(["/bin/sh"]))
        .files(FilePolicy::new())
        .batches(batches)
        .build()
        .expect("built");

    let (mut list, mut actors) = (AccountList::new(), Vec::new());
    for (number, &scopes) in sets.iter().enumerate() {
        let user: UserName = format!("user-{number}").parse().expect("a name");
        let token = format!("the-token-of-user-{number}");
        let hash = TokenHash::of(&Secret::new(token.as_str())).expect("well-formed");
        list.token(hash, user.clone(), Scopes::ALL).expect("taken");
        list = list.user(user.clone(), scopes);
        let owner = Caller::from(user.clone()).with_all_scopes();
        let session = engine.sessions().create(&owner, SessionRequest::new()).await.expect("made");
        actors.push(Actor { user, scopes, token, session: session.id.to_string() });
    }
    let accounts = Accounts::new(list);

    let server = HttpServer::builder(engine.clone()).authenticate(accounts.clone());
    let api = server.into_service();
    let server = HttpServer::builder(engine.clone()).authenticate(accounts.clone());
    let server = server.bind("127.0.0.1:0").await.expect("bound");
    let http = server.local_addr().tcp().expect("of TCP");
    tokio::spawn(async { server.await });
    let server = WsServer::builder(engine.clone()).authenticate(accounts.clone()).api(api);
    let server = server.bind("127.0.0.1:0").await.expect("bound");
    let ws = server.local_addr().tcp().expect("of TCP");
    tokio::spawn(async { server.await });
    let server = AvroServer::builder(engine.clone()).authenticate(accounts.clone());
    let server = server.bind("127.0.0.1:0").await.expect("bound");
    let avro = server.local_addr().tcp().expect("of TCP");
    tokio::spawn(async { server.await });
    let host = HostKeys::open_or_create(path("host_key")).expect("made");
    let users = Users::new().accounts(accounts).authorized_keys(path("keys"));
    let server = SshServer::builder(engine).users(users);
    let server = server.bind("127.0.0.1:0", &host).await.expect("bound");
    let ssh = Ssh::new(server.local_addr().tcp().expect("of TCP"), &path("keys"), &actors);
    tokio::spawn(async { server.await });
    (Servers { http, ws, avro, ssh, _root: root }, actors)
}

fn over_http(addr: SocketAddr, actor: &Actor, operation: Operation) -> Option<Told> {
    let session = format!("/api/v1/sessions/{}", actor.session);
    let command = json!({"command": "true"});
    let (request, body, done) = match operation {
        Execute => ("POST /api/v1/execute".to_owned(), command.to_string(), 200),
        ListExecutions => ("GET /api/v1/executions".to_owned(), String::new(), 200),
        SubmitBatch => {
            ("POST /api/v1/batches".to_owned(), json!({"steps": [command]}).to_string(), 202)
        }
        ListBatches => ("GET /api/v1/batches".to_owned(), String::new(), 200),
        CreateSession => ("POST /api/v1/sessions".to_owned(), "{}".to_owned(), 201),
        ListSessions => ("GET /api/v1/sessions".to_owned(), String::new(), 200),
        ViewSession => (format!("GET {session}/screen"), String::new(), 200),
        ControlSession => (format!("POST {session}/input"), " ".to_owned(), 204),
        ReadFile => ("GET /api/v1/files/known".to_owned(), String::new(), 200),
        WriteFile => {
            (format!("PUT /api/v1/files/{}-{}", actor.user, addr.port()), "x".to_owned(), 201)
        }
        ListFiles => ("GET /api/v1/files/".to_owned(), String::new(), 200),
        CopyFiles => return None,
    };
    let (token, length) = (&actor.token, body.len());
    let whole = format!(
        "{request} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let (status, answer) = http(&addr.to_string(), &whole).expect("an answer");
    match status {
        // Nothing that one may see is nothing to be refused.
        200 if operation == ListSessions && !answer.contains(&actor.session) => {
            Some(Told::Forbidden)
        }
        403 => Some(Told::Forbidden),
        status if status == done => Some(Told::Done),
        status => panic!("{operation:?}: {status} {answer}"),
    }
}

/// By the first frame of the plain protocol, or the code that the socket is closed with.
fn over_ws(addr: SocketAddr, actor: &Actor, operation: Operation) -> Option<Told> {
    let query = match operation {
        CreateSession => String::new(),
        ViewSession => format!("?session={}&access=view", actor.session),
        ControlSession => format!("?session={}", actor.session),
        _ => return None,
    };
    let frame = first_frame(addr, &query, &actor.token);
    match (frame["type"].as_str(), frame["access"].as_str()) {
        // Who may only look gets no more, whatever they ask for.
        (Some("session"), Some("view")) if operation == ControlSession => Some(Told::Forbidden),
        (Some("session"), _) => Some(Told::Done),
        (Some("error"), _) => Some(Told::Forbidden),
        _ => panic!("{operation:?}: {frame}"),
    }
}

/// The text of the first frame that says `session` or `error`, of a server whose frames are short.
fn first_frame(addr: SocketAddr, query: &str, token: &str) -> Value {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("set");
    write!(
        stream,
        "GET /terminal{query} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .expect("sent");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    assert!(line.contains(" 101 "), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).expect("a header");
    }
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head).expect("a frame");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                reader.read_exact(&mut length).expect("a length");
                usize::from(u16::from_be_bytes(length))
            }
            length => usize::from(length),
        };
        let mut data = vec![0; length];
        reader.read_exact(&mut data).expect("a frame");
        // A text.
        if head[0] == 0x81 {
            let frame: Value = serde_json::from_slice(&data).expect("JSON");
            if matches!(frame["type"].as_str(), Some("session" | "error")) {
                return frame;
            }
        }
    }
}

/// What a user's key is in.
fn key_file(keys: &Path, actor: &Actor) -> std::path::PathBuf {
    keys.join(actor.user.as_str())
}
