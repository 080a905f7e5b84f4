//! Logins in a file, for the next process. Who has the file alone has nothing: an id is there by its
//! hash, and the token sealed with the id, which only the cookie holds.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use sha2::{Digest as _, Sha256};
use splengine_core::auth::Secret;

use crate::login_id::{Hash, LoginId, hex};

/// One login.
pub(crate) struct Row {
    pub(crate) hash: Hash,
    pub(crate) user: String,
    pub(crate) began: SystemTime,
    pub(crate) sealed: Vec<u8>,
}

/// Encrypts a token so that the id alone opens it.
pub(crate) fn seal(id: &LoginId, token: &Secret) -> Option<Vec<u8>> {
    cipher(id).encrypt(&Nonce::default(), token.expose().as_bytes()).ok()
}

pub(crate) fn open(id: &LoginId, sealed: &[u8]) -> Option<Secret> {
    let token = cipher(id).decrypt(&Nonce::default(), sealed).ok()?;
    Some(Secret::new(String::from_utf8(token).ok()?))
}

/// Each id is random and seals one text: the nonce need not differ.
fn cipher(id: &LoginId) -> Aes256Gcm {
    let key = Sha256::new_with_prefix(b"splengine login token\0").chain_update(id.expose());
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(<[u8; 32]>::from(key.finalize())))
}

/// What the file holds. One that can't be read, or has a line that is none, holds nothing: everybody
/// logs in anew, and the log says why.
pub(crate) fn read(path: &Path) -> Vec<Row> {
    let text = || -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
        Ok(text)
    };
    let rows = match text() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => Err(error),
        Ok(text) => parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into()),
    };
    rows.unwrap_or_else(|error| {
        tracing::warn!(%error, file = %path.display(), "logins of before are not known any more");
        Vec::new()
    })
}

/// Replaces the file in one step. Blocks.
pub(crate) fn write(path: &Path, rows: &[Row]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut text = format!("{FIRST_LINE}\n");
    for Row { hash, user, began, sealed } in rows {
        let began = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        text += &format!("{} {user} {began} {}\n", hex(hash), hex(sealed));
    }
    let new = path.with_extension("new");
    // One that a crash has left may have other rights.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn parse(text: &str) -> Option<Vec<Row>> {
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let row = |line: &str| {
        let mut words = line.split(' ');
        let hash = unhex(words.next()?)?.try_into().ok()?;
        let user = words.next()?.to_owned();
        let began = UNIX_EPOCH.checked_add(Duration::from_millis(words.next()?.parse().ok()?))?;
        let sealed = unhex(words.next()?)?;
        words.next().is_none().then_some(Row { hash, user, began, sealed })
    };
    lines.map(row).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    rest.is_empty().then(|| bytes.collect()).flatten()
}

/// With the version of what follows.
const FIRST_LINE: &str = "splengine-logins 1";
/// More than the most logins take up.
const MAX_FILE: u64 = 64 << 20;
