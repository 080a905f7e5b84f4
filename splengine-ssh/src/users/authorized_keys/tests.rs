use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use russh::keys::ssh_key::certificate::Builder;
use russh::keys::ssh_key::{Mpint, public::RsaPublicKey};

use super::*;
use crate::users::testing::{key, public, text};

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
const IN_DEVICE: &str = "sk-ssh-ed25519@openssh.com \
     AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqtiAAAABHNzaDo=";

/// Of the first line that is none of a comment.
fn one(text: &str) -> Result<Entry, LineError> {
    let (line, text) = lines(text.as_bytes()).next().expect("a line");
    parse(line, text?)
}

fn options(options: &str) -> Result<Options, LineError> {
    one(&format!("{options} {ED25519} of a@b")).map(|entry| entry.options)
}

#[test]
fn a_file_is_read_line_by_line() {
    let (first, second) = (key(), key());
    let file = format!(
        "# ssh-ed25519 nothing\r\n\r\n\t{}\r\n\n  no-pty\t {}   with a comment\nnonsense\n",
        text(&first),
        text(&second)
    );
    let read: Vec<_> = lines(file.as_bytes())
        .map(|(line, text)| text.and_then(|text| parse(line, text)))
        .collect();
    assert_eq!(
        read,
        [
            Ok(Entry { line: 3, key: public(&first), options: Options::default() }),
            Ok(Entry {
                line: 5,
                key: public(&second),
                options: Options { pty: false, ..Options::default() }
            }),
            Err(LineError::UnknownOption(1)),
        ]
    );
}

#[test]
fn options_mean_what_sshd_makes_of_them() {
    let all = options(
        r#"restrict,PTY,command="echo \"a\", b \ c",environment="A=1",environment="B=x=y",environment="A=2",expiry-time="20300101",expiry-time="202912312359Z",expiry-time="203101010000",no-port-forwarding,permitopen="a:1",view-only"#,
    );
    let all = all.expect("all of them");
    assert!(all.pty && all.view_only && !all.is_authority);
    assert_eq!(all.command.as_deref(), Some(r#"echo "a", b \ c"#));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(all.environment, [pair("A", "1"), pair("B", "x=y")]);
    assert_eq!(all.expires, Some(UNIX_EPOCH + Duration::from_secs(1_893_455_940)));
    assert!(!options("pty,restrict").expect("one").pty);
    assert_eq!(options(r#"command="""#).expect("one").command.as_deref(), Some(""));
    let authority = options(r#"cert-authority,principals="a,b""#).expect("one");
    assert!(authority.is_authority);
    assert_eq!(authority.principals, Some(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn what_is_wrong_with_a_line_is_told() {
    for (bad, expected) in [
        ("no-such", LineError::UnknownOption(1)),
        ("pty,", LineError::UnknownOption(2)),
        ("pty,command", LineError::UnknownOption(2)),
        (r#"pty="x""#, LineError::UnknownOption(1)),
        (r#"no-such="x""#, LineError::UnknownOption(1)),
        ("command=x", LineError::Quotes("command")),
        (r#"command="x"#, LineError::Quotes("command")),
        (r#"command="x\""#, LineError::Quotes("command")),
        (r#"command="x"y"#, LineError::Separator(1)),
        (r#"pty,command="x""#, LineError::Twice("")),
        (r#"command="x",command="y""#, LineError::Twice("command")),
        (r#"from="*",from="*""#, LineError::Twice("from")),
        (r#"from="host.example""#, LineError::From),
        (r#"principals="""#, LineError::Principals),
        (r#"expiry-time="20300230""#, LineError::Time),
        (r#"expiry-time="2030010112""#, LineError::Time),
        (r#"expiry-time="ü000010""#, LineError::Time),
        (r#"expiry-time="""#, LineError::Time),
        (r#"environment="A""#, LineError::Environment),
        (r#"environment="=x""#, LineError::Environment),
        (r#"environment="A B=x""#, LineError::Environment),
        ("verify-required", LineError::Verify),
    ] {
        if expected == LineError::Twice("") {
            assert!(options(bad).is_ok(), "{bad}");
        } else {
            assert_eq!(options(bad), Err(expected), "{bad}");
        }
    }
    assert_eq!(one("pty"), Err(KeyError::Missing.into()));
    assert_eq!(one("pty pty ssh-ed25519 AAAA"), Err(KeyError::Missing.into()));
    assert_eq!(one("ssh-ed25519"), Err(KeyError::Malformed.into()));
    assert_eq!(one(&ED25519.replace("AAAAC3", "AAAAC4")), Err(KeyError::Malformed.into()));
    let certificate = ED25519.replace("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com");
    assert_eq!(one(&certificate), Err(KeyError::Certificate.into()));
    // One that goes by the name of its key.
    let mut signed = Builder::new([7; 16], key().public_key(), 0, 1).expect("one");
    signed.valid_principal("alice").expect("set");
    let signed = signed.sign(&key()).and_then(|signed| signed.to_openssh()).expect("a text");
    assert_eq!(
        one(&signed.replace("-cert-v01@openssh.com", "")),
        Err(KeyError::Certificate.into())
    );
    assert_eq!(one(&format!("{ED25519} \0")), Err(LineError::Nul));
    assert_eq!(
        one(&format!("{ED25519} {}", "a".repeat(9000))),
        Err(LineError::TooLong { max_bytes: MAX_LINE_BYTES })
    );
    // Nothing of what a line holds may be told.
    let secret = one(r#"environment="TOKEN=hunter2",no-such="hunter2" ssh-ed25519 hunter2"#);
    assert!(!format!("{0} {0:?}", secret.expect_err("unknown")).contains("hunter2"));
}

#[test]
fn a_comment_may_be_in_any_encoding() {
    let file =
        [ED25519.as_bytes(), b" J\xf6rg\n", b"command=\"\xf6\" ", ED25519.as_bytes()].concat();
    let read: Vec<_> =
        lines(&file).map(|(line, text)| parse(line, text.expect("short")).is_ok()).collect();
    assert_eq!(read, [true, false]);
}

#[test]
fn weak_keys_are_not_taken() {
    let rsa = |bits: usize| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= bits.div_ceil(8) * 8 - bits;
        let number = |bytes: &[u8]| Mpint::from_positive_bytes(bytes);
        let key = RsaPublicKey::new(number(&[1, 0, 1]), number(&modulus)).expect("a key");
        key::check(&key.into())
    };
    assert_eq!(rsa(2047), Err(KeyError::RsaSize(2047)));
    assert_eq!((rsa(2048), rsa(8192)), (Ok(()), Ok(())));
    assert_eq!(rsa(8193), Err(KeyError::RsaSize(8193)));
    let dsa = "ssh-dss AAAAB3NzaC1kc3MAAAABAQAAAAEDAAAAAQUAAAABBw==";
    assert!(one(dsa).is_err_and(|error| matches!(error, LineError::Key(_))));
    assert_eq!(one(IN_DEVICE), Err(LineError::Touch));
    assert!(one(&format!("no-touch-required {IN_DEVICE}")).is_ok());
    assert!(one(&format!("cert-authority {IN_DEVICE}")).is_ok());
}

#[test]
fn an_entry_admits_where_and_while_it_says() {
    let entry = one(&format!(r#"from="10.0.0.0/8",expiry-time="19700102" {ED25519}"#));
    let entry = entry.expect("an entry");
    let [inside, outside] = [10, 11].map(|first| Some([first, 0, 0, 1].into()));
    let day = UNIX_EPOCH + Duration::from_hours(24);
    let before = day - Duration::from_secs(1);
    assert_eq!(entry.admit(inside, before), Ok(()));
    assert_eq!(entry.admit(outside, before), Err(Refusal::From(1)));
    assert_eq!(entry.admit(None, before), Err(Refusal::From(1)), "over a UNIX socket");
    assert_eq!(entry.admit(inside, day), Err(Refusal::Expired(1)));
}

/// As a person would, by the rule that sshd(8) gives.
fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\\\""))
}

proptest! {
    #[test]
    fn quoting_is_undone(
        // A value can't end with a backslash: that would be the quote's.
        command in "([^\0\n]*[^\0\n\\\\])?", value in "([ -~]*[ -\\[\\]-~])?", pty in any::<bool>(),
    ) {
        let restrict = if pty { "pty" } else { "restrict" };
        let environment = quote(&format!("NAME={value}"));
        let read = options(&format!("{restrict},command={},environment={environment}", quote(&command)));
        let read = read.expect("well-formed");
        prop_assert_eq!(read.command, Some(command));
        prop_assert_eq!(read.environment, [("NAME".to_owned(), value)]);
        prop_assert_eq!(read.pty, pty);
    }

    #[test]
    fn nothing_panics(
        junk in prop::collection::vec(any::<u8>(), 0..200),
        words in prop::collection::vec("(restrict|command|from|expiry-time|=|,| |\"|\\\\|\n|!|ssh-ed25519|2030|ü)", 0..20),
    ) {
        for file in [junk, words.concat().into_bytes()] {
            for (line, text) in lines(&file) {
                let _ = text.map(|text| (parse(line, text), parse_plain(text)));
            }
        }
    }
}
