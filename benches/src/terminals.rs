//! Terminals over WebSocket: ours, and one to measure against. That is ttyd where it is installed,
//! else terminado, Jupyter's.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use splengine_core::auth::StaticTokens;
use splengine_core::session::SessionPolicy;
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_ws::WsServer;

use crate::ws::Socket;

/// A client of a terminal.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    kind: Kind,
    frame: Vec<u8>,
    typed: u64,
    /// What is acknowledged: everything below it.
    drawn: u64,
    acked: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Ttyd,
    Terminado,
}

/// The server to measure against; it ends when this is dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    addr: SocketAddr,
    kind: Kind,
}

/// Our server, in this process, whose sessions run `command`.
///
/// # Panics
///
/// When it can't be started.
pub async fn ours(command: &[&str]) -> (SocketAddr, Engine) {
    let executor = LocalExecutor::new("/tmp").expect("set up");
    let policy = SessionPolicy::new()
        .shell(command.iter().copied())
        .max_sessions(4096)
        .max_sessions_per_caller(4096);
    let engine = Engine::builder(executor).sessions(policy).build().expect("built");
    let everyone = Caller::new("bench").expect("a user name").with_all_scopes();
    let server = WsServer::builder(engine.clone())
        .authenticate(StaticTokens::new().allow_anonymous(everyone))
        .console(false)
        .max_clients(4096)
        .bind("127.0.0.1:0")
        .await
        .expect("bound")
        .max_connections(4096);
    let addr = server.local_addr().tcp().expect("of TCP");
    tokio::spawn(async { server.await });
    (addr, engine)
}

impl Peer {
    /// Starts it with terminals that run `command`; `None` where there is none to be had.
    #[must_use]
    pub fn start(command: &[&str]) -> Option<Self> {
        Self::ttyd(command).or_else(|| Self::terminado(command))
    }

    fn ttyd(command: &[&str]) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let child = Command::new("ttyd")
            .args(["-i", "127.0.0.1", "-p", &port.to_string(), "-W", "-d", "0"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut peer = Self { child, addr, kind: Kind::Ttyd };
        for _ in 0..200 {
            if std::net::TcpStream::connect(addr).is_ok() {
                return Some(peer);
            }
            if peer.child.try_wait().ok()?.is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn terminado(command: &[&str]) -> Option<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("terminado");
        let venv = std::env::temp_dir().join("splengine-bench-terminado");
        let python = venv.join("bin/python");
        if !python.exists() {
            let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status().ok()?;
            let installed = Command::new(venv.join("bin/pip"))
                .args(["install", "-q", "--disable-pip-version-check", "--require-hashes", "-r"])
                .arg(here.join("requirements.txt"))
                .status()
                .ok()?;
            if !made.success() || !installed.success() {
                return None;
            }
        }
        let mut child = Command::new(python)
            .arg(here.join("serve.py"))
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        let addr = SocketAddr::from(([127, 0, 0, 1], line.trim().parse().ok()?));
        Some(Self { child, addr, kind: Kind::Terminado })
    }

    /// What it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        if self.kind == Kind::Ttyd { "ttyd" } else { "terminado" }
    }

    /// The number of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Opens a terminal.
    ///
    /// # Errors
    ///
    /// When the server does not agree.
    pub fn open(&self) -> io::Result<Client> {
        let mut client = match self.kind {
            Kind::Ttyd => Client::new(Socket::open(self.addr, "/ws", Some("tty"))?, self.kind),
            _ => Client::new(Socket::open(self.addr, "/websocket", None)?, self.kind),
        };
        if self.kind == Kind::Ttyd {
            client.socket.send(2, br#"{"AuthToken":"","columns":80,"rows":24}"#)?;
        }
        Ok(client)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    fn new(socket: Socket, kind: Kind) -> Self {
        Self { socket, kind, frame: Vec::new(), typed: 0, drawn: 0, acked: 0 }
    }

    /// Opens a terminal of ours: a new session, or one that there is, to look on.
    ///
    /// # Errors
    ///
    /// When the server does not agree.
    pub fn ours(addr: SocketAddr, session: Option<&str>) -> io::Result<Self> {
        let socket = Socket::open(addr, "/terminal", Some("spl.term.v1"))?;
        let mut client = Self::new(socket, Kind::Ours);
        let first = match session {
            None => r#"{"type":"new_session"}"#.to_owned(),
            Some(id) => format!(r#"{{"type":"attach","sessionId":"{id}","access":"view"}}"#),
        };
        client.socket.send(1, first.as_bytes())?;
        Ok(client)
    }

    /// Types `text`.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn send(&mut self, text: &str) -> io::Result<()> {
        match self.kind {
            Kind::Ours => {
                let mut frame = vec![0x11];
                frame.extend(self.typed.to_be_bytes());
                frame.extend_from_slice(text.as_bytes());
                self.typed += text.len() as u64;
                self.socket.send(2, &frame)
            }
            Kind::Ttyd => self.socket.send(2, format!("0{text}").as_bytes()),
            Kind::Terminado => {
                let text = text.replace('\n', "\\n");
                self.socket.send(1, format!(r#"["stdin","{text}"]"#).as_bytes())
            }
        }
    }

    /// Waits for what the program prints next, and acknowledges it.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn read(&mut self) -> io::Result<&[u8]> {
        loop {
            let opcode = self.socket.read(&mut self.frame)?;
            if opcode == 8 {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match (self.kind, self.frame.first()) {
                (Kind::Ours, Some(1)) if opcode == 2 => {
                    let offset = self.frame[1..9].try_into().map(u64::from_be_bytes);
                    self.drawn = offset.unwrap_or(0) + self.frame.len() as u64 - 9;
                    // As a browser does: not at every frame.
                    if self.drawn - self.acked >= 32 << 10 {
                        self.acked = self.drawn;
                        let mut ack = vec![0x12];
                        ack.extend(self.drawn.to_be_bytes());
                        self.socket.send(2, &ack)?;
                    }
                    return Ok(&self.frame[9..]);
                }
                (Kind::Ours, Some(2)) if opcode == 2 => {
                    let mut ack = vec![0x12];
                    ack.extend_from_slice(&self.frame[1..9]);
                    self.socket.send(2, &ack)?;
                    return Ok(&self.frame[13..]);
                }
                (Kind::Ttyd, Some(b'0')) => return Ok(&self.frame[1..]),
                (Kind::Terminado, _) if self.frame.starts_with(br#"["stdout""#) => {
                    return Ok(&self.frame);
                }
                _ => {}
            }
        }
    }

    /// Reads until the end of what was printed is `end`; gives how many bytes came.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn read_to(&mut self, end: &[u8]) -> io::Result<u64> {
        let mut tail: Vec<u8> = Vec::new();
        let mut bytes = 0;
        loop {
            let data = self.read()?;
            bytes += data.len() as u64;
            let from = data.len().saturating_sub(end.len() + 16);
            tail.extend_from_slice(&data[from..]);
            let over = tail.len().saturating_sub(2 * end.len() + 32);
            tail.drain(..over);
            if tail.windows(end.len()).any(|window| window == end) {
                return Ok(bytes);
            }
        }
    }

    /// The id in the first frame of a session of ours.
    ///
    /// # Errors
    ///
    /// When the connection is gone, or another frame comes first.
    pub fn session_id(&mut self) -> io::Result<String> {
        self.socket.read(&mut self.frame)?;
        let text = String::from_utf8_lossy(&self.frame).into_owned();
        let id = text.split("\"sessionId\":\"").nth(1).and_then(|rest| rest.split('"').next());
        id.map(str::to_owned).ok_or_else(|| io::Error::other(text.clone()))
    }
}

/// The memory of a process, without what it shares, in bytes.
#[must_use]
pub fn memory_of(process: u32) -> u64 {
    let mut text = String::new();
    let path = format!("/proc/{process}/smaps_rollup");
    if let Ok(mut file) = std::fs::File::open(path) {
        let _ = file.read_to_string(&mut text);
    }
    let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = pss.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
