//! Paths of files in URLs. They are bytes, not text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::problem::Problem;

/// Below it every path is one of a file.
pub(crate) const FILES: &str = "/api/v1/files/";

/// The file that the path of a URL names.
pub(crate) fn file_of(path: &str) -> PathBuf {
    let below = path.strip_prefix(FILES).unwrap_or_default();
    let mut bytes = b"/".to_vec();
    bytes.extend(percent_decode_str(below));
    OsString::from_vec(bytes).into()
}

/// The path of a URL that names a file.
pub(crate) fn url_of(file: &Path) -> String {
    let bytes = file.as_os_str().as_bytes();
    let below = bytes.strip_prefix(b"/").unwrap_or(bytes);
    format!("{FILES}{}", percent_encode(below, IN_PATH))
}

/// A name as it stands in a URL.
pub(crate) fn encoded(name: &OsStr) -> String {
    percent_encode(name.as_bytes(), IN_NAME).to_string()
}

pub(crate) fn decoded(text: &str) -> OsString {
    OsString::from_vec(percent_decode_str(text).collect())
}

/// The parameter of a query, as bytes: a form's text would have lost those that are no UTF-8.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Result<Option<PathBuf>, Problem> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.into_iter().find(|(key, _)| *key == name) else { return Ok(None) };
    if value.is_empty() {
        return Err(Problem::malformed(format!("`{name}` must be a path below root")));
    }
    Ok(Some(decoded(&value.replace('+', " ")).into()))
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
            let mut whole = b"/".to_vec();
            whole.extend(bytes);
            let file = PathBuf::from(OsString::from_vec(whole));
            prop_assert_eq!(file_of(&url_of(&file)).into_os_string(), file.into_os_string());
        }
    }

    #[test]
    fn a_parameter_is_bytes() {
        let find = |query| parameter(Some(query), "move").expect("a path");
        assert_eq!(
            find("copy=x&move=a+b%2Fc%ff"),
            Some(PathBuf::from(OsString::from_vec(b"a b/c\xff".into())))
        );
        assert_eq!(find("copy=x"), None);
        assert!(parameter(Some("move="), "move").is_err());
    }
}
