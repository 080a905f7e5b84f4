//! The server of the old protocol of scp, which OpenSSH's client before 9.0 and many others speak: over
//! the same files as SFTP, without a program of the host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use splengine_core::execute::Stream;
use splengine_core::files::{FileInfo, FileKind, OpenOptions, SetAttributes};
use splengine_core::{Caller, FileError, Files};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::channel_writer::{Disconnected, Exit, Reply};
use crate::glob::{self, ShellWord};
use crate::path_memory::PathMemory;
use crate::spill_buffer::SpillReader;

/// What scp's server is told by its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    is_sink: bool,
    recursive: bool,
    keeps_times: bool,
    wants_directory: bool,
    paths: Vec<ShellWord>,
}

/// Why nothing more can be said to a client.
enum Stop {
    Disconnected,
    /// It broke the protocol.
    Broken(&'static str),
}

impl From<Disconnected> for Stop {
    fn from(_: Disconnected) -> Self {
        Self::Disconnected
    }
}

impl From<std::io::Error> for Stop {
    fn from(_: std::io::Error) -> Self {
        Self::Broken("the client ended too early")
    }
}

impl Options {
    /// Reads the words of a command that begins with scp.
    pub(crate) fn read(words: Vec<ShellWord>) -> Result<Self, String> {
        let mut options = Self {
            is_sink: false,
            recursive: false,
            keeps_times: false,
            wants_directory: false,
            paths: Vec::new(),
        };
        let mut words = words.into_iter().skip(1).peekable();
        let is_option =
            |word: &ShellWord| word.text != "-" && word.text.as_bytes().starts_with(b"-");
        while let Some(word) = words.next_if(is_option) {
            if word.text == "--" {
                break;
            }
            for letter in word.text.to_string_lossy().chars().skip(1) {
                match letter {
                    't' => options.is_sink = true,
                    'r' => options.recursive = true,
                    'p' => options.keeps_times = true,
                    'd' => options.wants_directory = true,
                    'f' | 'v' | 'q' => {}
                    other => return Err(format!("there is no option `-{other}` here")),
                }
            }
        }
        options.paths = words.collect();
        match options.paths.len() {
            0 => Err("it was started without a path".to_owned()),
            1 => Ok(options),
            _ if options.is_sink => Err("it was started with several destinations".to_owned()),
            _ => Ok(options),
        }
    }
}

/// Says in the words of the protocol that it is not served.
pub(crate) async fn refuse(reply: &Reply) -> Result<Exit, Disconnected> {
    const WORDS: &str = "\x02scp: the old protocol of scp is switched off here; leave out -O, or take a \
                         client that copies over SFTP (OpenSSH 9.0 and later)\n";
    reply.send(Stream::Stdout, Bytes::from_static(WORDS.as_bytes())).await?;
    Ok(reply.finish(Exit::Code(1)).await)
}

/// Serves one copy.
pub(crate) async fn run(
    files: &Files,
    caller: &Caller,
    options: Options,
    input: SpillReader,
    reply: &Reply,
    memory: PathMemory,
) -> Result<Exit, Disconnected> {
    let input = BufReader::with_capacity(CHUNK, input);
    let mut copy = Copy { files, caller, input, reply, memory, has_failed: false };
    let done = match options.is_sink {
        true => copy.take(&options).await,
        false => copy.give(&options).await,
    };
    let code = match done {
        Ok(()) => u32::from(copy.has_failed),
        Err(Stop::Disconnected) => return Err(Disconnected),
        Err(Stop::Broken(why)) => {
            reply.send(Stream::Stdout, format!("\x02scp: {why}\n").into()).await?;
            1
        }
    };
    Ok(reply.finish(Exit::Code(code)).await)
}

struct Copy<'a> {
    files: &'a Files,
    caller: &'a Caller,
    input: BufReader<SpillReader>,
    reply: &'a Reply,
    memory: PathMemory,
    has_failed: bool,
}

/// What the client announces: `C` or `D`, permissions, size, name.
struct Announced {
    mode: u32,
    size: u64,
    name: OsString,
}

impl Copy<'_> {
    async fn ack(&self) -> Result<(), Stop> {
        Ok(self.reply.send(Stream::Stdout, Bytes::from_static(b"\0")).await?)
    }

    /// Tells of one file that can't be copied; the others are.
    async fn fail(&mut self, path: &Path, why: &str) -> Result<(), Stop> {
        self.has_failed = true;
        let words = format!("\x01scp: {}: {why}\n", path.display());
        Ok(self.reply.send(Stream::Stdout, words.into()).await?)
    }

    /// The next line, without its end; `None` at the end.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        let mut line = Vec::new();
        let mut limited = (&mut self.input).take(MAX_LINE_BYTES);
        limited.read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(Stop::Broken("a line has no end, or is longer than 8 KiB"));
        }
        Ok(Some(line))
    }

    /// Takes what the client sends.
    async fn take(&mut self, options: &Options) -> Result<(), Stop> {
        let target = PathBuf::from(&options.paths[0].text);
        let is_directory = match self.files.from_host(&target) {
            Ok(at) => self
                .files
                .stat(self.caller, &at)
                .await
                .is_ok_and(|info| info.kind == FileKind::Directory),
            Err(_) => false,
        };
        if options.wants_directory && !is_directory {
            self.fail(&target, "is not a directory").await?;
            return Ok(());
        }
        self.ack().await?;
        // The directories that were entered, each with the times that it gets when it is left.
        let mut entered: Vec<(PathBuf, Option<SetAttributes>)> = Vec::new();
        let mut times: Option<SetAttributes> = None;
        while let Some(line) = self.line().await? {
            let place = |name: &OsStr| match entered.last() {
                Some((directory, _)) => directory.join(name),
                None if is_directory => target.join(name),
                None => target.clone(),
            };
            match line.first() {
                Some(b'T') => {
                    times =
                        Some(parse_times(&line).ok_or(Stop::Broken("the times are malformed"))?);
                    self.ack().await?;
                }
                Some(b'C') => {
                    let announced = parse(&line).ok_or(Stop::Broken("a file is malformed"))?;
                    let path = place(&announced.name);
                    self.take_file(&path, &announced, times.take(), options).await?;
                }
                Some(b'D') if options.recursive => {
                    let announced = parse(&line).ok_or(Stop::Broken("a directory is malformed"))?;
                    let path = place(&announced.name);
                    if entered.len() >= MAX_DEPTH {
                        return Err(Stop::Broken("the directories are too deep"));
                    }
                    match self.enter(&path, announced.mode).await {
                        Ok(()) => {
                            entered.push((path, times.take()));
                            self.ack().await?;
                        }
                        // What is in it could not be told from what is beside it.
                        Err(why) => {
                            self.fail(&path, &why).await?;
                            return Err(Stop::Broken("a directory can't be made"));
                        }
                    }
                }
                Some(b'E') => {
                    let (path, changes) =
                        entered.pop().ok_or(Stop::Broken("no directory is left to leave"))?;
                    if let Some(changes) = changes {
                        drop(self.set(&path, changes).await);
                    }
                    self.ack().await?;
                }
                Some(1) => self.has_failed = true,
                Some(2) => {
                    self.has_failed = true;
                    return Ok(());
                }
                _ => return Err(Stop::Broken("a line is none of the protocol's")),
            }
        }
        Ok(())
    }

    async fn enter(&self, path: &Path, mode: u32) -> Result<(), String> {
        let words = |error: FileError| error.to_string();
        let at = self.files.from_host(path).map_err(words)?;
        match self.files.make_directory(self.caller, &at, Some(mode | 0o700)).await {
            Err(FileError::Exists { .. }) => {
                let info = self.files.stat(self.caller, &at).await.map_err(words)?;
                (info.kind == FileKind::Directory)
                    .then_some(())
                    .ok_or_else(|| "is not a directory".to_owned())
            }
            made => made.map_err(words),
        }
    }

    async fn set(&self, path: &Path, changes: SetAttributes) -> Result<(), FileError> {
        let at = self.files.from_host(path)?;
        self.files.set(self.caller, &at, changes).await
    }

    async fn take_file(
        &mut self,
        path: &Path,
        announced: &Announced,
        times: Option<SetAttributes>,
        options: &Options,
    ) -> Result<(), Stop> {
        let opening = OpenOptions::new().write().create().truncate().mode(announced.mode);
        let opened = match self.files.from_host(path) {
            Ok(at) => self.files.open(self.caller, &at, opening).await,
            Err(error) => Err(error),
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) => return self.fail(path, &error.to_string()).await,
        };
        self.ack().await?;
        let mut problem = None;
        let mut offset = 0;
        while offset < announced.size {
            let most = usize::try_from(announced.size - offset).unwrap_or(CHUNK).min(CHUNK);
            let mut data = vec![0; most];
            let read = self.input.read(&mut data).await?;
            if read == 0 {
                return Err(Stop::Broken("a file ended too early"));
            }
            data.truncate(read);
            // What comes is read to its end, whatever becomes of it.
            if problem.is_none() {
                let written = file.write_at(offset, data.into()).await;
                problem = written.err().map(|error| error.to_string());
            }
            offset += read as u64;
        }
        if problem.is_none() {
            let mut changes = times;
            if options.keeps_times {
                changes = Some(changes.unwrap_or_default().mode(announced.mode));
            }
            if let Some(changes) = changes {
                problem = file.set(changes).await.err().map(|error| error.to_string());
            }
        }
        // So that it can be run as soon as its client is told that it exists.
        file.close().await;
        // Whether the client could read all of it. libssh2 ends without a word.
        if !matches!(self.input.read_u8().await, Ok(0) | Err(_)) {
            self.line().await?;
            self.has_failed = true;
        }
        match problem {
            Some(why) => self.fail(path, &why).await,
            None => self.ack().await,
        }
    }

    /// Waits for the client to say that it goes on; `false` where it can't take one file.
    async fn is_acknowledged(&mut self) -> Result<bool, Stop> {
        match self.input.read_u8().await? {
            0 => Ok(true),
            1 => {
                self.has_failed = true;
                self.line().await?;
                Ok(false)
            }
            _ => Err(Stop::Broken("an answer is none of the protocol's")),
        }
    }

    /// Sends what the client asks for.
    async fn give(&mut self, options: &Options) -> Result<(), Stop> {
        if !self.is_acknowledged().await? {
            return Ok(());
        }
        for word in &options.paths {
            let paths: Vec<PathBuf> = match &word.pattern {
                Some(pattern) => {
                    let (files, memory) = (self.files, &mut self.memory);
                    match glob::expand(files, self.caller, pattern, memory).await {
                        Ok(paths) => paths,
                        Err(why) => {
                            self.memory.shrink(0);
                            self.fail(Path::new(pattern), &why).await?;
                            continue;
                        }
                    }
                }
                None => vec![PathBuf::from(&word.text)],
            };
            for path in paths {
                self.give_one(&path, options).await?;
            }
            self.memory.shrink(0);
        }
        Ok(())
    }

    async fn give_one(&mut self, path: &Path, options: &Options) -> Result<(), Stop> {
        struct Level {
            path: PathBuf,
            names: std::vec::IntoIter<OsString>,
            /// What was held before.
            held: usize,
        }
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some(path.to_owned());
        loop {
            let path = match next.take() {
                Some(path) => path,
                None => match levels.last_mut() {
                    None => return Ok(()),
                    Some(Level { path, names, held }) => match names.next() {
                        Some(name) => path.join(name),
                        None => {
                            self.memory.shrink(*held);
                            levels.pop();
                            self.reply.send(Stream::Stdout, Bytes::from_static(b"E\n")).await?;
                            self.is_acknowledged().await?;
                            continue;
                        }
                    },
                },
            };
            let looked = match self.files.from_host(&path) {
                Ok(at) => self.files.stat(self.caller, &at).await.map(|info| (at, info)),
                Err(error) => Err(error),
            };
            let (at, info) = match looked {
                Ok(looked) => looked,
                Err(error) => {
                    self.fail(&path, &error.to_string()).await?;
                    continue;
                }
            };
            match info.kind {
                FileKind::File => self.give_file(&path, &at, options).await?,
                FileKind::Directory if !options.recursive => {
                    self.fail(&path, "is a directory; give -r to copy it").await?;
                }
                FileKind::Directory if levels.len() >= MAX_DEPTH => {
                    self.fail(&path, "is too deep").await?;
                }
                FileKind::Directory => {
                    let held = self.memory.held();
                    match self.names(&at).await {
                        Ok(names) if self.announce('D', &path, &info, 0, options).await? => {
                            levels.push(Level { path, names: names.into_iter(), held });
                        }
                        Ok(_) => self.memory.shrink(held),
                        Err(why) => {
                            self.memory.shrink(held);
                            self.fail(&path, &why).await?;
                        }
                    }
                }
                _ => self.fail(&path, "is neither a file nor a directory").await?,
            }
        }
    }

    /// The names in a directory, or why it can't be copied.
    async fn names(&mut self, at: &Path) -> Result<Vec<OsString>, String> {
        let words = |error: FileError| error.to_string();
        let listing = self.files.list(self.caller, at).await.map_err(words)?;
        let mut names = Vec::new();
        loop {
            let entries = listing.next().await.map_err(words)?;
            if entries.is_empty() {
                return Ok(names);
            }
            for entry in entries {
                self.memory.take(entry.name.len()).map_err(|_| {
                    "has more names than there is memory for; try again in a second".to_owned()
                })?;
                names.push(entry.name);
            }
        }
    }

    /// Tells what comes next. Says whether the client takes it.
    async fn announce(
        &mut self,
        kind: char,
        path: &Path,
        info: &FileInfo,
        size: u64,
        options: &Options,
    ) -> Result<bool, Stop> {
        let name = name_of(path);
        if name.contains(&b'\n') {
            self.fail(path, "has a name that the protocol can't tell").await?;
            return Ok(false);
        }
        if options.keeps_times {
            let seconds = |time: SystemTime| {
                time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
            };
            let times = format!("T{} 0 {} 0\n", seconds(info.modified), seconds(info.accessed));
            self.reply.send(Stream::Stdout, times.into()).await?;
            if !self.is_acknowledged().await? {
                return Ok(false);
            }
        }
        let line = format!("{kind}{:04o} {size} ", info.mode & 0o7777);
        let line = [line.as_bytes(), name, b"\n"].concat();
        self.reply.send(Stream::Stdout, line.into()).await?;
        self.is_acknowledged().await
    }

    async fn give_file(&mut self, path: &Path, at: &Path, options: &Options) -> Result<(), Stop> {
        let opened = async {
            let file = self.files.open(self.caller, at, OpenOptions::new().read()).await?;
            let info = file.info().await?;
            Ok::<_, FileError>((file, info))
        };
        let (file, info) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return self.fail(path, &error.to_string()).await,
        };
        if !self.announce('C', path, &info, info.size, options).await? {
            return Ok(());
        }
        let mut offset = 0;
        let mut problem = None;
        while offset < info.size {
            let most = usize::try_from(info.size - offset).unwrap_or(CHUNK).min(CHUNK);
            let read = match problem {
                None => match file.read_at(offset, most).await {
                    Ok(data) if data.is_empty() => Err("has become shorter".to_owned()),
                    read => read.map_err(|error| error.to_string()),
                },
                // So much was announced.
                Some(_) => Ok(Bytes::from(vec![0; most])),
            };
            let data = match read {
                Ok(data) => data,
                Err(why) => {
                    problem = Some(why);
                    continue;
                }
            };
            offset += data.len() as u64;
            self.reply.send(Stream::Stdout, data).await?;
        }
        match problem {
            Some(why) => self.fail(path, &why).await?,
            None => self.ack().await?,
        }
        self.is_acknowledged().await.map(drop)
    }
}

/// The last name of a path; of root and the like what it is called by its own directory.
fn name_of(path: &Path) -> &[u8] {
    path.file_name().map_or(b".", OsStr::as_bytes)
}

fn parse(line: &[u8]) -> Option<Announced> {
    let mut parts = line[1..].splitn(3, |byte| *byte == b' ');
    let mut number = || str::from_utf8(parts.next()?).ok();
    let mode = u32::from_str_radix(number()?, 8).ok()? & 0o7777;
    let size = number()?.parse().ok()?;
    let name = parts.next()?;
    let is_name =
        !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| b"/\0".contains(byte));
    is_name.then(|| Announced { mode, size, name: OsString::from_vec(name.to_vec()) })
}

fn parse_times(line: &[u8]) -> Option<SetAttributes> {
    let mut parts = str::from_utf8(&line[1..]).ok()?.split(' ');
    let mut time = || {
        let seconds = Duration::from_secs(parts.next()?.parse().ok()?);
        let micros = Duration::from_micros(parts.next()?.parse().ok()?);
        UNIX_EPOCH.checked_add(seconds)?.checked_add(micros)
    };
    let (modified, accessed) = (time()?, time()?);
    Some(SetAttributes::new().modified(modified).accessed(accessed))
}

/// In bytes, of data that is passed on at a time.
const CHUNK: usize = 64 << 10;
/// Of a line of the protocol.
const MAX_LINE_BYTES: u64 = 8 << 10;
/// Of directories in each other.
const MAX_DEPTH: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        let file = parse(b"C0644 12 a \xff").expect("a file");
        assert_eq!((file.mode, file.size, file.name.as_bytes()), (0o644, 12, &b"a \xff"[..]));
        for wrong in
            ["C0644 12 ..", "C0644 12 a/b", "C0644 12 ", "C0644 -1 a", "C9 1 a", "C", "D0755 0 ."]
        {
            assert!(parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(parse_times(b"T1 0 2 0").is_some() && parse_times(b"T1 0 2").is_none());
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[CDTE].{0,20}") {
            let _ = (parse(line.as_bytes()), parse_times(line.as_bytes()));
        }
    }
}
