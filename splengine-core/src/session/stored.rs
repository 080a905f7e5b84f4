//! Reading of stored sessions: piece by piece, so that a long file takes no memory.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};

use bytes::Bytes;
use cap_std::fs::Dir;
use sha2::{Digest as _, Sha256};

use crate::session::SessionError;
use crate::session::bounds::ReadTurn;
use crate::session::record::{FORMAT, Header, Record, VERSION};
use crate::session::recording::next_line;
use crate::text::hex;

/// What is read of a saved session, or of one that was lost, and the turn to read it.
#[derive(Debug)]
pub(crate) struct StoredSession {
    pub(crate) record: Record,
    pub(crate) screen: StoredScreen,
    pub(crate) turn: ReadTurn,
}

/// The bytes that draw a screen, in the file that they were written to behind a record. Whoever reads
/// them to their end learns whether the file is what was written.
#[derive(Debug)]
pub(crate) struct StoredScreen {
    reader: BufReader<File>,
    begin: u64,
    length: u64,
    left: u64,
    /// Of the record.
    begun: Sha256,
    hash: Sha256,
    sha256: String,
}

impl StoredScreen {
    /// Opens a file and reads its record, which is not checked against the checksum yet.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoSaved`], [`SessionError::Damaged`], [`SessionError::Newer`], and those of the
    /// disk.
    pub(crate) fn open(dir: &Dir, name: &str) -> Result<(Record, Self), SessionError> {
        let damaged = SessionError::Damaged;
        let file = match dir.open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SessionError::NoSaved(name.to_owned()));
            }
            opened => opened.map_err(SessionError::of_io)?.into_std(),
        };
        let whole = file.metadata().map_err(SessionError::of_io)?.len();
        if whole > MAX_FILE_BYTES {
            return Err(damaged("it is too large"));
        }
        let mut reader = BufReader::with_capacity(PIECE_BYTES, file);
        let mut line = |most, missing, is_long| match next_line(&mut reader, most) {
            Ok(line) => line.ok_or(damaged(missing)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged(is_long)),
            Err(error) => Err(SessionError::of_io(error)),
        };
        let unreadable = "its header can't be read";
        let head = line(MAX_HEADER_BYTES, "it has no header", unreadable)?;
        let header: Header = serde_json::from_slice(&head).map_err(|_| damaged(unreadable))?;
        if header.format != FORMAT {
            return Err(damaged("it is no saved session"));
        }
        if header.version > VERSION {
            return Err(SessionError::Newer { found: header.version, known: VERSION });
        }
        let body = head.len() as u64 + 1;
        if header.length.checked_add(body) != Some(whole) {
            return Err(damaged("its length is wrong"));
        }
        let unreadable = "its record can't be read";
        let text = line(MAX_RECORD_BYTES, "it has no record", unreadable)?;
        let begin = body + text.len() as u64 + 1;
        let length = whole.checked_sub(begin).ok_or(damaged("it has no record"))?;
        let record = serde_json::from_slice(&text).map_err(|_| damaged(unreadable))?;
        let begun = Sha256::new().chain_update(&text).chain_update(b"\n");
        let (hash, sha256, left) = (begun.clone(), header.sha256, length);
        Ok((record, Self { reader, begin, length, left, begun, hash, sha256 }))
    }

    /// How many bytes draw the screen.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The next 64 KiB at most; none at the end.
    ///
    /// # Errors
    ///
    /// [`SessionError::Damaged`], at the end at the latest, and those of the disk.
    pub(crate) fn next_piece(&mut self) -> Result<Bytes, SessionError> {
        if self.left == 0 {
            let is_whole = hex(&self.hash.clone().finalize()) == self.sha256;
            let error = SessionError::Damaged("its checksum is wrong");
            return if is_whole { Ok(Bytes::new()) } else { Err(error) };
        }
        let piece = self.reader.fill_buf().map_err(SessionError::of_io)?;
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let piece = Bytes::copy_from_slice(&piece[..piece.len().min(most)]);
        if piece.is_empty() {
            return Err(SessionError::Damaged("its length is wrong"));
        }
        self.reader.consume(piece.len());
        self.hash.update(&piece);
        self.left -= piece.len() as u64;
        Ok(piece)
    }

    /// Goes back to where the screen begins.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn rewind(&mut self) -> Result<(), SessionError> {
        self.reader.seek(SeekFrom::Start(self.begin)).map_err(SessionError::of_io)?;
        self.left = self.length;
        self.hash = self.begun.clone();
        Ok(())
    }

    /// Reads to the end, and keeps nothing.
    ///
    /// # Errors
    ///
    /// As [`next_piece`](Self::next_piece).
    pub(crate) fn check(mut self) -> Result<(), SessionError> {
        while !self.next_piece()?.is_empty() {}
        Ok(())
    }

    /// Reads all of it, which takes its [length](Self::length) of memory.
    ///
    /// # Errors
    ///
    /// As [`next_piece`](Self::next_piece).
    pub(crate) fn into_bytes(mut self) -> Result<Vec<u8>, SessionError> {
        let mut all = Vec::with_capacity(usize::try_from(self.left).unwrap_or_default());
        loop {
            let piece = self.next_piece()?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&piece);
        }
    }
}

/// No screen that we write is larger.
const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_HEADER_BYTES: usize = 4 << 10;
/// Maximum length of a record: of what the kernel takes as arguments and variables, each byte of it
/// written as `\uXXXX`.
const MAX_RECORD_BYTES: usize = 16 << 20;
const PIECE_BYTES: usize = 64 << 10;
