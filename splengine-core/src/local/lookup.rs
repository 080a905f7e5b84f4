//! Lookup of a program's file.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, statat};

use crate::error::Field;
use crate::execute::ExecuteError;

/// The path to give to execve(2) for `program`: one with a `/` counts from the working directory,
/// any other is looked up on `path`, as execvp(3) does.
pub(crate) fn find(
    program: &OsStr,
    path: Option<&OsStr>,
    workdir: &impl AsFd,
) -> Result<CString, ExecuteError> {
    let shown = || shown(&program.to_string_lossy());
    let unusable = |problem| ExecuteError::ProgramUnusable { program: shown(), problem };
    let mut refusal = ExecuteError::ProgramNotFound(shown());
    let mut left = MAX_PATH_ENTRIES;
    for candidate in candidates(program, path) {
        left = left.checked_sub(1).ok_or_else(too_many_entries)?;
        let Some(candidate) = candidate else { continue };
        match usable(&candidate, workdir.as_fd()) {
            Ok(()) => {
                return CString::new(candidate.into_os_string().as_bytes())
                    .map_err(|_| unusable("its name holds a NUL byte"));
            }
            Err(Some(problem)) => refusal = unusable(problem),
            Err(None) => {}
        }
    }
    Err(refusal)
}

/// Where the program may be; nothing for an entry of PATH that is not looked at.
fn candidates<'a>(
    program: &'a OsStr,
    path: Option<&'a OsStr>,
) -> impl Iterator<Item = Option<PathBuf>> + 'a {
    let is_path = program.as_bytes().contains(&b'/');
    let itself = is_path.then(|| Some(PathBuf::from(program)));
    let dirs = path.filter(|_| !is_path).map(std::env::split_paths).into_iter().flatten();
    // A relative entry of PATH would let anyone who can write to the working directory choose the
    // program.
    let found = dirs.map(move |dir| dir.is_absolute().then(|| dir.join(program)));
    itself.into_iter().chain(found)
}

fn too_many_entries() -> ExecuteError {
    let problem = format!(
        "has a `PATH` whose first {MAX_PATH_ENTRIES} entries don't have the program; no more are looked at"
    );
    ExecuteError::Impossible { field: Field::Env, problem }
}

/// Maximum number of entries of `PATH` in which a program is looked for.
const MAX_PATH_ENTRIES: usize = 1024;

/// `Err(None)`: there is no such file; `Err(Some)`: there is, but it can't be run.
fn usable(candidate: &Path, workdir: BorrowedFd<'_>) -> Result<(), Option<&'static str>> {
    let dir = if candidate.is_absolute() { CWD } else { workdir };
    match accessat(dir, candidate, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => {}
        Err(error) => {
            let kind = io::Error::from(error).kind();
            let there = kind == io::ErrorKind::PermissionDenied;
            return Err(there.then_some("it is not executable"));
        }
    }
    let stat = statat(dir, candidate, AtFlags::empty()).map_err(|_| None)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(Some("it is not a file")),
    }
}

/// As much of a name as an error may repeat.
pub(crate) fn shown(program: &str) -> String {
    program.chars().take(200).collect()
}
