//! Directories that hold files only, and their end; files that are overwritten before theirs.

use std::fs::File;
use std::io::{self, Write as _};

use cap_std::fs::Dir;

/// Removes the directory `name` and the files in it. One that holds a directory stays, without its
/// files: ours hold none, and somebody else's may be nested so deep that what follows it down ends
/// the process.
///
/// # Errors
///
/// What the kernel says; `DirectoryNotEmpty` for one that holds a directory.
pub(crate) fn remove(parent: &Dir, name: &str) -> io::Result<()> {
    if !parent.symlink_metadata(name)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let dir = parent.open_dir(name)?;
    for entry in dir.entries()? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            entry.remove_file()?;
        }
    }
    parent.remove_dir(name)
}

/// Overwrites a file, opened to be written at its beginning, with zeros.
pub(crate) fn wipe(mut file: &File) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    let zeros = [0; 4096];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..length])?;
        left -= length as u64;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cap_std::ambient_authority;

    use super::*;

    #[test]
    fn files_go_and_directories_stay() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("flat")).expect("made");
        fs::create_dir_all(at("deep/inner")).expect("made");
        for path in ["flat/a", "flat/b", "deep/a", "deep/inner/a"] {
            fs::write(at(path), path).expect("written");
        }
        std::os::unix::fs::symlink(at("deep"), at("link")).expect("linked");
        let dir = Dir::open_ambient_dir(root.path(), ambient_authority()).expect("opened");
        remove(&dir, "flat").expect("removed");
        assert!(!at("flat").exists());
        let kept = remove(&dir, "deep").expect_err("it holds a directory");
        assert_eq!(kept.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert!(at("deep/inner/a").exists() && !at("deep/a").exists());
        let link = remove(&dir, "link").expect_err("a link is none");
        assert_eq!(link.kind(), io::ErrorKind::NotADirectory);
        assert_eq!(remove(&dir, "none").expect_err("none").kind(), io::ErrorKind::NotFound);
    }
}
