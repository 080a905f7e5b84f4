//! A WebSocket client (RFC 6455) that does no more than it must, the same for every server.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Socket {
    /// Opens `path` of the server at `addr`.
    ///
    /// # Errors
    ///
    /// When the server does not agree.
    pub fn open(addr: SocketAddr, path: &str, protocol: Option<&str>) -> io::Result<Self> {
        let mut writer = TcpStream::connect(addr)?;
        writer.set_nodelay(true)?;
        let protocol =
            protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        write!(
            writer,
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Origin: http://{addr}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        )?;
        let mut reader = BufReader::with_capacity(256 << 10, writer.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if !line.contains(" 101 ") {
            return Err(io::Error::other(line));
        }
        while line.trim() != "" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        Ok(Self { reader, writer })
    }

    /// Sends one frame: 1 is text, 2 binary.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn send(&mut self, opcode: u8, data: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 | opcode];
        match data.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // A mask of zeros masks nothing, and is one all the same.
        frame.extend([0; 4]);
        frame.extend_from_slice(data);
        self.writer.write_all(&frame)
    }

    /// The next frame: its opcode, with its data in `data`.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn read(&mut self, data: &mut Vec<u8>) -> io::Result<u8> {
        loop {
            let mut head = [0; 2];
            self.reader.read_exact(&mut head)?;
            let length = match head[1] & 0x7f {
                126 => {
                    let mut more = [0; 2];
                    self.reader.read_exact(&mut more)?;
                    usize::from(u16::from_be_bytes(more))
                }
                127 => {
                    let mut more = [0; 8];
                    self.reader.read_exact(&mut more)?;
                    usize::try_from(u64::from_be_bytes(more)).map_err(io::Error::other)?
                }
                short => usize::from(short),
            };
            data.resize(length, 0);
            self.reader.read_exact(data)?;
            match head[0] & 0xf {
                9 => {
                    let pong = std::mem::take(data);
                    self.send(10, &pong)?;
                }
                10 => {}
                opcode => return Ok(opcode),
            }
        }
    }
}
