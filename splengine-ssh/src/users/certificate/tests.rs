use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::certificate::Builder;

use super::super::authorized_keys::{lines, parse};
use super::*;
use crate::users::testing::{key, public, text};

const NOW: u64 = 1_000_000;

/// A certificate for `alice`, as it should be.
fn good(subject: &PrivateKey) -> Builder {
    let mut builder = Builder::new([7; 16], subject.public_key(), NOW - 10, NOW + 10).expect("one");
    builder.serial(5).expect("set once").key_id("id\n").expect("set once");
    builder.valid_principal("bob").expect("set").valid_principal("alice").expect("set");
    builder.extension("permit-pty", "").expect("set once");
    builder
}

struct Case {
    authority: PrivateKey,
    /// What the authority's key follows in a line of the user's.
    line: Option<&'static str>,
    now: u64,
    from: &'static str,
}

impl Case {
    fn new() -> Self {
        Self { authority: key(), line: None, now: NOW, from: "10.0.0.1" }
    }

    fn sign(&self, change: impl FnOnce(&mut Builder)) -> Certificate {
        let mut builder = good(&key());
        change(&mut builder);
        builder.sign(&self.authority).expect("signed")
    }

    fn judge(&self, certificate: &Certificate) -> Result<Options, Refusal> {
        let authority = public(&self.authority);
        let line = self.line.map(|line| format!("{line} {}", text(&self.authority)));
        let entries: Vec<_> = lines(line.unwrap_or_default().as_bytes())
            .map(|(line, text)| parse(line, text.expect("short")).expect("an entry"))
            .collect();
        judge(
            certificate,
            &Circumstances {
                user: &"alice".parse().expect("a name"),
                from: Some(self.from.parse().expect("an address")),
                now: UNIX_EPOCH + Duration::from_secs(self.now),
                authorities: if self.line.is_some() {
                    &[]
                } else {
                    std::slice::from_ref(&authority)
                },
                entries: &entries,
                has_authorities: true,
                has_entries: true,
            },
        )
    }

    fn refusal(&self, change: impl FnOnce(&mut Builder)) -> Refusal {
        self.judge(&self.sign(change)).expect_err("refused")
    }
}

#[test]
fn a_good_one_lets_in() {
    let case = Case::new();
    let certificate = case.sign(|_| ());
    let terms = case.judge(&certificate).expect("let in");
    let until = UNIX_EPOCH + Duration::from_secs(NOW + 10);
    let expected = Options { expires: Some(until), forwarding: false, ..Options::default() };
    assert_eq!(terms, expected);
    let forwarding = case.sign(|builder| {
        builder.extension("permit-port-forwarding", "").expect("an extension");
    });
    assert!(case.judge(&forwarding).expect("let in").forwarding);
    let described = describe(&certificate);
    assert!(described.starts_with("certificate \"id\\n\" (serial 5) of ssh-ed25519 SHA256:"));
}

#[test]
fn whoever_did_not_sign_is_not_believed() {
    let case = Case::new();
    let other = good(&key()).sign(&key()).expect("signed");
    assert_eq!(case.judge(&other), Err(Refusal::Authority));
    // Signed by one authority, said to be by another.
    let signed = case.sign(|_| ());
    let mut forged = signed.to_bytes().expect("bytes");
    let at = forged.windows(8).position(|bytes| bytes == b"\x00\x00\x00\x05alic");
    forged[at.expect("the name") + 4] = b'e';
    let forged = Certificate::from_bytes(&forged).expect("well-formed");
    assert_eq!(case.judge(&forged), Err(Refusal::Validity));
}

#[test]
fn time_and_names_and_kind_count() {
    let mut case = Case::new();
    let certificate = case.sign(|_| ());
    for (now, expected) in [(NOW - 11, false), (NOW - 10, true), (NOW + 9, true), (NOW + 10, false)]
    {
        case.now = now;
        assert_eq!(case.judge(&certificate).is_ok(), expected, "{now}");
    }
    case.now = NOW;
    assert_eq!(case.refusal(|b| drop(b.cert_type(CertType::Host))), Refusal::HostCertificate);
    assert_eq!(case.refusal(|b| drop(b.all_principals_valid())), Refusal::Principal);
    let bob = |b: &mut Builder| {
        b.all_principals_valid().expect("reset").valid_principal("bob").expect("set");
    };
    assert_eq!(case.refusal(bob), Refusal::Principal);
    let subject = key();
    let for_ever = Builder::new([7; 16], subject.public_key(), 0, u64::MAX).map(|mut builder| {
        builder.valid_principal("alice").expect("set");
        builder.sign(&case.authority).expect("signed")
    });
    let terms = case.judge(&for_ever.expect("one")).expect("let in");
    assert_eq!((terms.expires, terms.pty), (None, false));
}

#[test]
fn critical_options_are_kept_or_refuse() {
    let mut case = Case::new();
    let option = |name: &'static str, value: &'static str| {
        move |b: &mut Builder| drop(b.critical_option(name, value))
    };
    let forced = case.sign(option("force-command", "uptime"));
    assert_eq!(case.judge(&forced).expect("let in").command.as_deref(), Some("uptime"));
    let near = case.sign(option("source-address", "10.0.0.0/8,::1"));
    assert!(case.judge(&near).is_ok());
    for bad in ["", "*", "10.0.0.1/8"] {
        assert_eq!(case.refusal(option("source-address", bad)), Refusal::CriticalOption, "{bad}");
    }
    for unknown in ["verify-required", "x@example.com"] {
        assert_eq!(case.refusal(option(unknown, "")), Refusal::CriticalOption, "{unknown}");
    }
    case.from = "192.0.2.1";
    assert_eq!(case.judge(&near), Err(Refusal::CertificateFrom));
}

#[test]
fn a_line_of_the_users_own_may_allow_less() {
    let mut case = Case::new();
    let certificate = case.sign(|_| ());
    case.line = Some("pty");
    assert_eq!(case.judge(&certificate), Err(Refusal::Authority), "no authority");
    case.line = Some("cert-authority,restrict,view-only,environment=\"A=b\"");
    let terms = case.judge(&certificate).expect("let in");
    assert!(!terms.pty && terms.view_only && terms.environment.len() == 1);
    let mut bare = Builder::new([7; 16], key().public_key(), 0, u64::MAX).expect("one");
    bare.valid_principal("alice").expect("set");
    let bare = bare.sign(&case.authority).expect("signed");
    case.line = Some("cert-authority,pty");
    assert!(!case.judge(&bare).expect("let in").pty, "the certificate allows none");
    case.line = Some("cert-authority,expiry-time=\"19700112134641\"");
    let first = UNIX_EPOCH + Duration::from_secs(NOW + 1);
    assert_eq!(case.judge(&certificate).expect("let in").expires, Some(first));
    case.line = Some("cert-authority,expiry-time=\"19700112134640\"");
    assert_eq!(case.judge(&certificate), Err(Refusal::Expired(1)));
    case.line = Some("cert-authority,from=\"!10.0.0.1,*\"");
    assert_eq!(case.judge(&certificate), Err(Refusal::From(1)));
    case.line = Some("cert-authority,principals=\"carol,bob\"");
    assert!(case.judge(&certificate).is_ok(), "by another name");
    case.line = Some("cert-authority,principals=\"carol\"");
    assert_eq!(case.judge(&certificate), Err(Refusal::Principal));
    case.line = Some("cert-authority");
    assert_eq!(case.refusal(|b| drop(b.all_principals_valid())), Refusal::Principal);
    case.line = Some("cert-authority,command=\"a\"");
    assert_eq!(case.judge(&certificate).expect("let in").command.as_deref(), Some("a"));
    let force = |command: &'static str| {
        move |b: &mut Builder| drop(b.critical_option("force-command", command))
    };
    assert!(case.judge(&case.sign(force("a"))).is_ok());
    assert_eq!(case.refusal(force("b")), Refusal::Commands(1));
}

#[test]
fn weak_signatures_and_untouched_devices_are_refused() {
    let case = Case::new();
    // Only the name of the algorithm is looked at before the signature is.
    let mut bytes = case.sign(|_| ()).to_bytes().expect("bytes");
    bytes.truncate(bytes.len() - (4 + 4 + 11 + 4 + 64));
    bytes.extend_from_slice(b"\x00\x00\x00\x0f\x00\x00\x00\x07ssh-rsa\x00\x00\x00\x00");
    let sha1 = Certificate::from_bytes(&bytes).expect("well-formed");
    assert_eq!(case.judge(&sha1), Err(Refusal::Sha1));

    let ed25519 = *key().public_key().key_data().ed25519().expect("ed25519");
    let in_device = KeyData::from(russh::keys::ssh_key::public::SkEd25519::new(ed25519, "ssh:"));
    let sign = |extensions: &[&str]| {
        let mut builder = Builder::new([7; 16], in_device.clone(), 0, u64::MAX).expect("one");
        builder.valid_principal("alice").expect("set");
        for extension in extensions {
            builder.extension(*extension, "").expect("set once");
        }
        builder.sign(&case.authority).expect("signed")
    };
    assert_eq!(case.judge(&sign(&[])), Err(Refusal::Touch));
    assert!(case.judge(&sign(&["no-touch-required"])).is_ok());
}
