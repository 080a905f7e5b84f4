//! Paths of files in URLs. They are bytes, not text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::problem::Problem;

/// Below it every path is one of a file.
pub(crate) const FILES: &str = "/api/v1/files/";

/// A file or a directory below root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath {
    /// Without a slash at its beginning: so no name that root has itself is taken off it.
    path: PathBuf,
    /// It ends in a slash.
    pub(crate) is_directory: bool,
}

impl FilePath {
    fn new(below: Vec<u8>) -> Self {
        let start = below.iter().take_while(|byte| **byte == b'/').count();
        let below = below[start..].to_vec();
        let is_directory = below.is_empty() || below.ends_with(b"/");
        Self { path: OsString::from_vec(below).into(), is_directory }
    }

    /// What the path of a URL names.
    pub(crate) fn of_url(path: &str) -> Self {
        Self::new(percent_decode_str(path.strip_prefix(FILES).unwrap_or_default()).collect())
    }

    /// What the parameter of a query names, in which bytes stand that a form's text would have lost.
    pub(crate) fn of_parameter(query: Option<&str>, name: &str) -> Result<Option<Self>, Problem> {
        let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let decode =
            |text: &str| -> Vec<u8> { percent_decode_str(&text.replace('+', " ")).collect() };
        let found = pairs.into_iter().find(|(key, _)| decode(key) == name.as_bytes());
        let Some((_, value)) = found else { return Ok(None) };
        if value.is_empty() {
            return Err(Problem::malformed(format!("`{name}` must be a path below root")));
        }
        Ok(Some(Self::new(decode(value))))
    }

    /// As the engine takes it.
    pub(crate) fn below_root(&self) -> &Path {
        if self.path.as_os_str().is_empty() { Path::new(".") } else { &self.path }
    }

    /// For a person.
    pub(crate) fn text(&self) -> String {
        format!("/{}", self.path.to_string_lossy())
    }

    pub(crate) fn url(&self) -> String {
        format!("{FILES}{}", percent_encode(self.path.as_os_str().as_bytes(), IN_PATH))
    }
}

/// A name as it stands in a URL.
pub(crate) fn encoded(name: &OsStr) -> String {
    percent_encode(name.as_bytes(), IN_NAME).to_string()
}

/// A name as a text without meaning, which says after it the next page begins.
pub(crate) fn cursor(name: &OsStr) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(name.as_bytes())
}

pub(crate) fn name_of_cursor(cursor: &str) -> Result<OsString, Problem> {
    let name = BASE64_URL_SAFE_NO_PAD.decode(cursor).map(OsString::from_vec);
    name.map_err(|_| Problem::malformed("`cursor` must be what the page before gave"))
}

/// What RFC 3986 calls unreserved.
const IN_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IN_PATH: &AsciiSet = &IN_NAME.remove(b'/');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_path_comes_back(bytes in prop::collection::vec(1_u8.., 0..40)) {
            let path = FilePath::new(bytes.clone());
            prop_assert_eq!(FilePath::of_url(&path.url()), path.clone());
            let query = format!("x=y&move={}", percent_encode(&bytes, IN_NAME));
            if !bytes.is_empty() {
                prop_assert_eq!(FilePath::of_parameter(Some(&query), "move").expect("a path"), Some(path));
            }
            let name = OsString::from_vec(bytes);
            prop_assert_eq!(name_of_cursor(&cursor(&name)).expect("a cursor"), name);
        }
    }

    #[test]
    fn a_parameter_is_bytes() {
        let find = |query| FilePath::of_parameter(Some(query), "move").expect("a path");
        let expected = FilePath::new(b"a b/c\xff".into());
        assert_eq!(find("copy=x&%6Dove=/a+b%2Fc%ff"), Some(expected));
        assert_eq!(find("copy=x"), None);
        assert!(FilePath::of_parameter(Some("move="), "move").is_err());
    }
}
