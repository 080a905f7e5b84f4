//! Packets: bytes to requests, and answers to bytes. Pure.
//!
//! Our own, and no crate's: a name is bytes here, and one that is no UTF-8 must lead to the file
//! that has it, not to one beside it; and what a client writes is not copied on its way.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes};
use splengine_core::files::{DiskSpace, FileInfo, FileKind};

use crate::sftp::status::{Code, Refusal};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Open {
        path: PathBuf,
        flags: u32,
        attributes: Attributes,
    },
    Close {
        handle: Bytes,
    },
    Read {
        handle: Bytes,
        offset: u64,
        length: u32,
    },
    Write {
        handle: Bytes,
        offset: u64,
        data: Bytes,
    },
    Lstat {
        path: PathBuf,
    },
    Fstat {
        handle: Bytes,
    },
    Setstat {
        path: PathBuf,
        attributes: Attributes,
    },
    Fsetstat {
        handle: Bytes,
        attributes: Attributes,
    },
    Opendir {
        path: PathBuf,
    },
    Readdir {
        handle: Bytes,
    },
    Remove {
        path: PathBuf,
    },
    Mkdir {
        path: PathBuf,
        attributes: Attributes,
    },
    Rmdir {
        path: PathBuf,
    },
    Realpath {
        path: PathBuf,
    },
    Stat {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Readlink {
        path: PathBuf,
    },
    Symlink {
        target: PathBuf,
        path: PathBuf,
    },
    PosixRename {
        from: PathBuf,
        to: PathBuf,
    },
    Hardlink {
        from: PathBuf,
        to: PathBuf,
    },
    /// draft-ietf-secsh-filexfer-extensions-00, section 7. A length of 0 is all that follows.
    CopyData {
        from: Bytes,
        offset: u64,
        length: u64,
        to: Bytes,
        at: u64,
    },
    Statvfs {
        path: PathBuf,
    },
    Fstatvfs {
        handle: Bytes,
    },
    Fsync {
        handle: Bytes,
    },
    Limits,
    Lsetstat {
        path: PathBuf,
        attributes: Attributes,
    },
    ExpandPath {
        path: PathBuf,
    },
    /// Of a type, or an extension, that is not known here.
    Unknown,
}

/// What a request says of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) size: Option<u64>,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) permissions: Option<u32>,
    /// Read last and changed last, in seconds since 1970.
    pub(crate) times: Option<(u32, u32)>,
}

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Refused(Refusal),
    Handle(u64),
    Data(Bytes),
    Path(PathBuf),
    Entries(Vec<Entry>),
    Attributes(FileInfo),
    Space(DiskSpace),
    Limits,
}

/// Something in a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    /// As `ls -l` has it.
    pub(crate) long_name: Vec<u8>,
    pub(crate) info: FileInfo,
}

/// A packet that ends before it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

/// What a client's first packet says: its version.
pub(crate) fn read_init(mut packet: Bytes) -> Result<u32, Short> {
    match byte(&mut packet)? {
        INIT => int(&mut packet),
        _ => Err(Short),
    }
}

/// The id of a request, and what it asks for. `Err` where there is not even an id to answer to.
/// What follows the last member is ignored.
pub(crate) fn read_request(mut packet: Bytes) -> Result<(u32, Result<Request, Short>), Short> {
    let kind = byte(&mut packet)?;
    let id = int(&mut packet)?;
    if kind == INIT {
        return Err(Short);
    }
    Ok((id, read_members(kind, &mut packet)))
}

fn read_members(kind: u8, from: &mut Bytes) -> Result<Request, Short> {
    Ok(match kind {
        3 => {
            let (path, flags) = (path(from)?, int(from)?);
            Request::Open { path, flags, attributes: attributes(from)? }
        }
        4 => Request::Close { handle: string(from)? },
        5 => Request::Read { handle: string(from)?, offset: long(from)?, length: int(from)? },
        6 => Request::Write { handle: string(from)?, offset: long(from)?, data: string(from)? },
        7 => Request::Lstat { path: path(from)? },
        8 => Request::Fstat { handle: string(from)? },
        9 => Request::Setstat { path: path(from)?, attributes: attributes(from)? },
        10 => Request::Fsetstat { handle: string(from)?, attributes: attributes(from)? },
        11 => Request::Opendir { path: path(from)? },
        12 => Request::Readdir { handle: string(from)? },
        13 => Request::Remove { path: path(from)? },
        14 => Request::Mkdir { path: path(from)?, attributes: attributes(from)? },
        15 => Request::Rmdir { path: path(from)? },
        16 => Request::Realpath { path: path(from)? },
        17 => Request::Stat { path: path(from)? },
        18 => Request::Rename { from: path(from)?, to: path(from)? },
        19 => Request::Readlink { path: path(from)? },
        // The draft has the link first; OpenSSH sends the target first, and all others follow it.
        20 => Request::Symlink { target: path(from)?, path: path(from)? },
        200 => match &string(from)?[..] {
            b"posix-rename@openssh.com" => {
                Request::PosixRename { from: path(from)?, to: path(from)? }
            }
            b"statvfs@openssh.com" => Request::Statvfs { path: path(from)? },
            b"fstatvfs@openssh.com" => Request::Fstatvfs { handle: string(from)? },
            b"fsync@openssh.com" => Request::Fsync { handle: string(from)? },
            b"limits@openssh.com" => Request::Limits,
            b"lsetstat@openssh.com" => {
                Request::Lsetstat { path: path(from)?, attributes: attributes(from)? }
            }
            b"expand-path@openssh.com" => Request::ExpandPath { path: path(from)? },
            b"hardlink@openssh.com" => Request::Hardlink { from: path(from)?, to: path(from)? },
            b"copy-data" => Request::CopyData {
                from: string(from)?,
                offset: long(from)?,
                length: long(from)?,
                to: string(from)?,
                at: long(from)?,
            },
            _ => Request::Unknown,
        },
        _ => Request::Unknown,
    })
}

/// The packet that answers a client's first.
pub(crate) fn version() -> Vec<u8> {
    framed(|to| {
        to.put_u8(2);
        to.put_u32(3);
        for (name, version) in EXTENSIONS {
            put_string(name.as_bytes(), to);
            put_string(version.as_bytes(), to);
        }
    })
}

impl Answer {
    /// As a packet.
    pub(crate) fn to_packet(&self, id: u32) -> Vec<u8> {
        framed(|to| {
            let mut begin = |kind| {
                to.put_u8(kind);
                to.put_u32(id);
            };
            match self {
                Self::Done => {
                    begin(101);
                    put_status(Code::Ok, "", to);
                }
                Self::Refused(refusal) => {
                    begin(101);
                    put_status(refusal.code, &refusal.message, to);
                }
                Self::Handle(number) => {
                    begin(102);
                    put_string(&number.to_be_bytes(), to);
                }
                Self::Data(data) => {
                    begin(103);
                    put_string(data, to);
                }
                Self::Path(path) => {
                    begin(104);
                    to.put_u32(1);
                    put_string(path.as_os_str().as_bytes(), to);
                    put_string(path.as_os_str().as_bytes(), to);
                    to.put_u32(0);
                }
                Self::Entries(entries) => {
                    begin(104);
                    to.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
                    for entry in entries {
                        put_string(entry.name.as_bytes(), to);
                        put_string(&entry.long_name, to);
                        put_attributes(&entry.info, to);
                    }
                }
                Self::Attributes(info) => {
                    begin(105);
                    put_attributes(info, to);
                }
                Self::Space(space) => {
                    begin(201);
                    put_space(space, to);
                }
                Self::Limits => {
                    begin(201);
                    for limit in [MAX_PACKET, MAX_DATA, MAX_DATA, MAX_HANDLES] {
                        to.put_u64(limit as u64);
                    }
                }
            }
        })
    }
}

/// The bits of a file's type, as `st_mode` has them; none for what is never opened.
pub(crate) fn type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => 0o100_000,
        FileKind::Directory => 0o040_000,
        FileKind::Link => 0o120_000,
        _ => 0,
    }
}

/// Its length, and then what `write` writes.
fn framed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = vec![0; 4];
    write(&mut packet);
    let length = u32::try_from(packet.len() - 4).unwrap_or(u32::MAX);
    packet[..4].copy_from_slice(&length.to_be_bytes());
    packet
}

fn put_string(string: &[u8], to: &mut Vec<u8>) {
    to.put_u32(u32::try_from(string.len()).unwrap_or(u32::MAX));
    to.put_slice(string);
}

fn put_status(code: Code, message: &str, to: &mut Vec<u8>) {
    to.put_u32(code as u32);
    put_string(message.as_bytes(), to);
    put_string(b"en", to);
}

fn put_attributes(info: &FileInfo, to: &mut Vec<u8>) {
    to.put_u32(SIZE | OWNER | PERMISSIONS | TIMES);
    to.put_u64(info.size);
    to.put_u32(info.uid);
    to.put_u32(info.gid);
    to.put_u32(type_bits(info.kind) | info.mode);
    to.put_u32(seconds(info.accessed));
    to.put_u32(seconds(info.modified));
}

fn put_space(space: &DiskSpace, to: &mut Vec<u8>) {
    for number in [
        space.block_size,
        space.block_size,
        space.blocks,
        space.free,
        space.available,
        space.files,
        space.files_free,
        space.files_available,
        space.id,
        u64::from(space.is_read_only),
        space.max_name,
    ] {
        to.put_u64(number);
    }
}

/// What the protocol can say of a time: nothing before 1970.
fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// The time that the protocol means.
pub(crate) fn time(seconds: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.into())
}

fn byte(from: &mut Bytes) -> Result<u8, Short> {
    from.try_get_u8().map_err(|_| Short)
}

fn int(from: &mut Bytes) -> Result<u32, Short> {
    from.try_get_u32().map_err(|_| Short)
}

fn long(from: &mut Bytes) -> Result<u64, Short> {
    from.try_get_u64().map_err(|_| Short)
}

/// A part of the packet itself, which holds as much as a length claims or is refused.
fn string(from: &mut Bytes) -> Result<Bytes, Short> {
    let length = usize::try_from(int(from)?).map_err(|_| Short)?;
    if length > from.len() {
        return Err(Short);
    }
    Ok(from.split_to(length))
}

fn path(from: &mut Bytes) -> Result<PathBuf, Short> {
    Ok(OsString::from_vec(string(from)?.to_vec()).into())
}

fn attributes(from: &mut Bytes) -> Result<Attributes, Short> {
    let flags = int(from)?;
    let mut attributes = Attributes::default();
    if flags & SIZE != 0 {
        attributes.size = Some(long(from)?);
    }
    if flags & OWNER != 0 {
        attributes.owner = Some((int(from)?, int(from)?));
    }
    if flags & PERMISSIONS != 0 {
        attributes.permissions = Some(int(from)?);
    }
    if flags & TIMES != 0 {
        attributes.times = Some((int(from)?, int(from)?));
    }
    if flags & EXTENDED != 0 {
        for _ in 0..int(from)? {
            string(from)?;
            string(from)?;
        }
    }
    Ok(attributes)
}

/// The longest packet of a client, in bytes: what OpenSSH allows, and memory for a write's header.
pub(crate) const MAX_PACKET: usize = 256 * 1024 + 1024;
/// The most that one read gives, and one write should carry, in bytes.
pub(crate) const MAX_DATA: usize = 255 * 1024;
/// How many files and directories one client has open at once.
pub(crate) const MAX_HANDLES: usize = 1024;

const INIT: u8 = 1;
const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;
const EXTENSIONS: [(&str, &str); 9] = [
    ("hardlink@openssh.com", "1"),
    ("copy-data", "1"),
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut to = Vec::new();
        put_string(bytes, &mut to);
        to
    }

    fn request(kind: u8, members: &[Vec<u8>]) -> Bytes {
        [&[kind, 0, 0, 0, 7][..], &members.concat()].concat().into()
    }

    #[test]
    fn members_are_read_in_their_order() {
        let path = |text: &str| PathBuf::from(text);
        let (a, b) = (member(b"a"), member(b"b"));
        let attributes = [
            &(SIZE | OWNER | PERMISSIONS | TIMES | EXTENDED).to_be_bytes()[..],
            &5_u64.to_be_bytes(),
            &[1_u32, 2, 0o644, 3, 4, 1].map(u32::to_be_bytes).concat(),
            &member(b"name"),
            &member(b"value"),
        ];
        let read = Attributes {
            size: Some(5),
            owner: Some((1, 2)),
            permissions: Some(0o644),
            times: Some((3, 4)),
        };
        let rename = member(b"posix-rename@openssh.com");
        for (kind, members, expected) in [
            (18, vec![a.clone(), b.clone()], Request::Rename { from: path("a"), to: path("b") }),
            (
                20,
                vec![a.clone(), b.clone()],
                Request::Symlink { target: path("a"), path: path("b") },
            ),
            (
                200,
                vec![rename, a.clone(), b.clone()],
                Request::PosixRename { from: path("a"), to: path("b") },
            ),
            (
                200,
                vec![member(b"hardlink@openssh.com"), a.clone(), b.clone()],
                Request::Hardlink { from: path("a"), to: path("b") },
            ),
            (200, vec![member(b"unheard-of"), a.clone()], Request::Unknown),
            (99, vec![], Request::Unknown),
            (
                9,
                vec![a.clone(), attributes.concat(), vec![0; 9]],
                Request::Setstat { path: path("a"), attributes: read },
            ),
            (
                5,
                vec![a, 8_u64.to_be_bytes().to_vec(), 9_u32.to_be_bytes().to_vec()],
                Request::Read { handle: Bytes::from_static(b"a"), offset: 8, length: 9 },
            ),
        ] {
            assert_eq!(read_request(request(kind, &members)), Ok((7, Ok(expected))));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_init(bytes.clone().into());
            let _ = read_request(bytes.into());
        }

        #[test]
        fn whatever_is_cut_short_is_refused(
            kind in 3_u8..=20,
            name in proptest::collection::vec(any::<u8>(), 0..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let members = match kind {
                18 | 20 => [member(&name), member(&name)].concat(),
                6 => [member(&name), vec![0; 8], member(&name)].concat(),
                _ => [member(&name), vec![0; 12]].concat(),
            };
            let whole = request(kind, &[members]);
            let Ok((7, Ok(read))) = read_request(whole.clone()) else {
                panic!("a whole request is read");
            };
            let part = whole.slice(..cut.index(whole.len()));
            match read_request(part) {
                Err(Short) | Ok((7, Err(Short))) => {}
                Ok((id, again)) => prop_assert_eq!((id, again), (7, Ok(read))),
            }
        }

        #[test]
        fn names_are_any_bytes(name in proptest::collection::vec(any::<u8>(), 0..300)) {
            let read = read_request(request(17, &[member(&name)]));
            let Ok((7, Ok(Request::Stat { path }))) = read else { panic!("{read:?}") };
            prop_assert_eq!(path.as_os_str().as_bytes(), &name[..]);
            let answer = Answer::Path(path).to_packet(7);
            let length = u32::try_from(answer.len() - 4).expect("short").to_be_bytes();
            prop_assert_eq!(&answer[..4], &length[..]);
            let mut rest = Bytes::from(answer).split_off(13);
            prop_assert_eq!(string(&mut rest), Ok(Bytes::from(name)));
        }
    }
}
