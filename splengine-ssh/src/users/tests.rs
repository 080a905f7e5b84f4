use std::fs;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::HashAlg;
use russh::keys::ssh_key::certificate::Builder;
use splengine_core::Scope;
use splengine_core::auth::{AccountList, Scopes};

use super::testing::{Dir, chmod, key, text};
use super::*;

#[path = "../../../splengine-core/tests/it/skipped.rs"]
mod skipped;

use skipped::{Need, skip};

/// Of `x`, by the reference implementation.
const HASH: &str =
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHkgc2FsdA$bJm38KIwE/uHPXHD7nX6oVbFASF5eTTnG4ckdg+z4GY";
const HERE: Peer = Peer::Tcp(std::net::SocketAddr::new(LOCALHOST, 40_000));
const LOCALHOST: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

async fn offered(users: &Users, user: &str, key: &PrivateKey) -> bool {
    users.offered(user, key.public_key(), &Algorithm::Ed25519, HERE).await
}

async fn by_key(users: &Users, user: &str, key: &PrivateKey) -> Option<Entry> {
    users.by_key(user, key.public_key(), HERE).await
}

fn certificate(authority: &PrivateKey, subject: &PrivateKey, user: &str) -> Certificate {
    let mut builder = Builder::new([7; 16], subject.public_key(), 0, u64::MAX).expect("one");
    builder.valid_principal(user).expect("set");
    builder.sign(authority).expect("signed")
}

#[tokio::test]
async fn a_users_keys_let_the_user_in() {
    let (dir, alice) = (Dir::new(), key());
    dir.write("alice", &format!("nonsense\nno-pty,environment=\"A=b\" {}", text(&alice)));
    dir.write("bob", &text(&key()));
    let users = Users::new().authorized_keys(dir.path());
    assert!(offered(&users, "alice", &alice).await);
    let grant = by_key(&users, "alice", &alice).await.expect("let in");
    assert_eq!(grant.caller.user().as_str(), "alice");
    assert_eq!(grant.caller.scopes(), Scopes::USER);
    assert!(!grant.pty);
    assert_eq!(grant.environment, [("A".to_owned(), "b".to_owned())]);
    let fingerprint = alice.fingerprint(HashAlg::Sha256);
    assert_eq!(grant.how, format!("ssh-ed25519 {fingerprint}"));
    for user in ["bob", "carol", "", "../alice", "alice/", ".", "al\0ice", "-"] {
        assert!(!offered(&users, user, &alice).await, "{user}");
        assert!(by_key(&users, user, &alice).await.is_none(), "{user}");
    }
    assert!(!offered(&users, "alice", &key()).await);
    assert!(by_key(&Users::new(), "alice", &alice).await.is_none(), "nobody is known");
    let sha1 = Algorithm::Rsa { hash: None };
    assert!(!users.offered("alice", alice.public_key(), &sha1, HERE).await);
}

#[tokio::test]
async fn rights_are_those_of_the_accounts() {
    let (dir, [alice, viewer, authority]) = (Dir::new(), [(); 3].map(|()| key()));
    dir.write("alice", &format!("{}\nview-only {}", text(&alice), text(&viewer)));
    let ca = dir.write("ca", &text(&authority));
    let passwords = dir.write("passwords", &format!("alice:{HASH}"));
    let name: UserName = "alice".parse().expect("a name");
    for (rights, watched) in [
        (&[Scope::Execute, Scope::Files][..], &[][..]),
        (&[Scope::Sessions], &[Scope::Watch]),
        (&[Scope::Watch, Scope::Execute], &[Scope::Watch]),
    ] {
        let rights: Scopes = rights.iter().copied().collect();
        let accounts = Accounts::new(AccountList::new().user(name.clone(), rights));
        let users = Users::new().accounts(accounts.clone()).authorized_keys(dir.path());
        let users = users.trusted_ca(&ca).passwords(&passwords);
        let grant = by_key(&users, "alice", &alice).await.expect("let in");
        assert_eq!(grant.caller.scopes(), rights);
        let view = by_key(&users, "alice", &viewer).await.expect("let in");
        assert_eq!(view.caller.scopes(), watched.iter().copied().collect());
        let signed = certificate(&authority, &key(), "alice");
        let signed = users.by_certificate("alice", &signed, HERE).await.expect("let in");
        assert_eq!(signed.caller.scopes(), rights);
        let known = users.by_password("alice", &Secret::new("x"), HERE).await.expect("let in");
        assert_eq!(known.caller.scopes(), rights);
        accounts.replace(AccountList::new().others(Scopes::NONE));
        let all = [grant, view, signed, known];
        assert!(all.iter().all(|grant| grant.caller.is_revoked()));
    }
}

#[tokio::test]
async fn a_key_that_is_taken_out_counts_no_longer() {
    let (dir, alice) = (Dir::new(), key());
    let path = dir.write("alice", &text(&alice));
    let users = Users::new().authorized_keys(dir.path());
    assert!(by_key(&users, "alice", &alice).await.is_some());
    dir.write("alice", &format!("# {}", text(&alice)));
    assert!(by_key(&users, "alice", &alice).await.is_none());
    dir.write("alice", &text(&alice));
    assert!(by_key(&users, "alice", &alice).await.is_some());
    fs::remove_file(&path).expect("removed");
    assert!(by_key(&users, "alice", &alice).await.is_none());
}

#[tokio::test]
async fn files_that_others_can_write_count_for_nothing() {
    let (dir, alice) = (Dir::new(), key());
    let path = dir.write("alice", &text(&alice));
    let users = Users::new().authorized_keys(dir.path());
    for mode in [0o664, 0o646] {
        chmod(&path, mode);
        assert!(by_key(&users, "alice", &alice).await.is_none(), "{mode:o}");
    }
    chmod(&path, 0o600);
    assert!(by_key(&users, "alice", &alice).await.is_some());
    for mode in [0o1777, 0o777] {
        chmod(dir.path(), mode);
        assert!(by_key(&users, "alice", &alice).await.is_none(), "{mode:o}");
    }
    let error = Users::new().authorized_keys(dir.path()).check().expect_err("writable").to_string();
    assert!(error.contains("(mode 0777): take that away with `chmod go-w`"), "{error}");
    chmod(dir.path(), 0o755);
    fs::write(&path, vec![b'\n'; (1 << 20) + 1]).expect("written");
    assert!(by_key(&users, "alice", &alice).await.is_none());
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    assert!(by_key(&users, "alice", &alice).await.is_none());
    let error = Users::new().authorized_keys(dir.path().join("no")).check().expect_err("not there");
    assert!(matches!(error, UsersError::Unreadable { .. }));
    let error = Users::new().trusted_ca(dir.path()).check().expect_err("a directory");
    assert!(matches!(error, UsersError::NotAFile { .. }));
    chmod(dir.path(), 0o1777);
    assert!(
        Users::new().trusted_ca(dir.write("f", "")).check().is_ok(),
        "nobody else can replace it"
    );
    assert!(Users::new().authorized_keys(dir.path()).check().is_err(), "but make others");
    let error = Users::new().authorized_keys(dir.write("f", "")).check().expect_err("a file");
    assert!(matches!(error, UsersError::NotADirectory { .. }));
}

#[tokio::test]
async fn files_of_somebody_else_count_for_nothing() {
    let (dir, alice) = (Dir::new(), key());
    let path = dir.write("alice", &text(&alice));
    let users = Users::new().authorized_keys(dir.path());
    if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
        return skip(Need::Root, "only root can give a file away");
    }
    assert!(by_key(&users, "alice", &alice).await.is_none());
    let error = Users::new().trusted_ca(&path).check().expect_err("another's").to_string();
    assert!(error.contains("belongs to the user with id 12345"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_lets_in() {
    let (dir, authority, alice) = (Dir::new(), key(), key());
    let users = Users::new().trusted_ca(dir.write("ca", &text(&authority)));
    let signed = certificate(&authority, &alice, "alice");
    assert!(offered(&users, "alice", &alice).await, "it may be a certificate's");
    assert!(by_key(&users, "alice", &alice).await.is_none(), "but not alone");
    let grant = users.by_certificate("alice", &signed, HERE).await.expect("let in");
    assert!(!grant.pty && grant.how.starts_with("certificate \"\" (serial 0) of ssh-ed25519"));
    assert!(users.by_certificate("bob", &signed, HERE).await.is_none());
    let other = certificate(&key(), &alice, "alice");
    assert!(users.by_certificate("alice", &other, HERE).await.is_none());
    assert!(Users::new().trusted_ca(dir.write("ca", "x")).check().is_err());
    assert!(users.by_certificate("alice", &signed, HERE).await.is_none(), "no longer trusted");
    assert!(!offered(&users, "alice", &alice).await);

    let line = format!("cert-authority,no-pty {}", text(&authority));
    let keys = Dir::new();
    keys.write("alice", &line);
    let users = users.authorized_keys(keys.path());
    assert!(offered(&users, "alice", &key()).await && !offered(&users, "bob", &key()).await);
    assert!(users.by_certificate("alice", &signed, HERE).await.is_some());
    assert!(by_key(&users, "alice", &authority).await.is_none(), "an authority is no user");
}

#[tokio::test]
async fn revoked_keys_and_authorities_let_nobody_in() {
    let (dir, keys, alice, authority) = (Dir::new(), Dir::new(), key(), key());
    keys.write("alice", &text(&alice));
    let revoked = dir.write("revoked", "");
    let users = Users::new()
        .authorized_keys(keys.path())
        .trusted_ca(dir.write("ca", &text(&authority)))
        .revoked_keys(&revoked);
    let signed = certificate(&authority, &key(), "alice");
    assert!(by_key(&users, "alice", &alice).await.is_some());
    assert!(users.by_certificate("alice", &signed, HERE).await.is_some());
    dir.write("revoked", &text(&alice));
    assert!(by_key(&users, "alice", &alice).await.is_none());
    assert!(!offered(&users, "alice", &alice).await);
    assert!(users.by_certificate("alice", &signed, HERE).await.is_some());
    let by_itself = certificate(&authority, &alice, "alice");
    assert!(users.by_certificate("alice", &by_itself, HERE).await.is_none());
    dir.write("revoked", &authority.fingerprint(HashAlg::Sha256).to_string());
    assert!(users.by_certificate("alice", &signed, HERE).await.is_none());
    assert!(by_key(&users, "alice", &alice).await.is_some());
    // Who is on a list that is not understood is not known.
    dir.write("revoked", "nonsense");
    assert!(by_key(&users, "alice", &alice).await.is_none());
    fs::remove_file(&revoked).expect("removed");
    assert!(by_key(&users, "alice", &alice).await.is_none());
}

#[tokio::test]
async fn passwords_are_off_until_switched_on() {
    let users = Users::new();
    assert!(!users.has_passwords());
    assert!(users.by_password("alice", &Secret::new("x"), HERE).await.is_none());
    let dir = Dir::new();
    let digest = HASH.rsplit('$').next().expect("a part");
    let short = dir.write("p", &format!("alice:{}", HASH.replace(digest, "AAAAAAAAAAAAAAAA")));
    let error = users.clone().passwords(short).check().expect_err("too short").to_string();
    assert!(
        error.contains("/p`, line 1: its hash is beyond") && !error.contains("AAAA"),
        "{error}"
    );
    let file = dir.write("p", &format!("alice:{HASH}"));
    let users = users.passwords(file);
    assert!(users.has_passwords());
    let grant = users.by_password("alice", &Secret::new("x"), HERE).await.expect("let in");
    assert!(grant.pty && grant.how == "password" && grant.caller.user().as_str() == "alice");
    assert!(users.by_password("alice", &Secret::new("y"), HERE).await.is_none());
    assert!(users.by_password("bob", &Secret::new("x"), HERE).await.is_none());
    assert!(!format!("{users:?} {:?}", *grant).contains("salt"));
}

#[tokio::test]
async fn who_has_a_certificate_stays_while_a_file_cant_be_read() {
    let (dir, authority) = (Dir::new(), key());
    let (ca, lines) = (dir.write("ca", &text(&authority)), dir.write("alice", ""));
    let users = Users::new().trusted_ca(&ca);
    let users = users.authorized_keys(dir.path());
    let signed = certificate(&authority, &key(), "alice");
    let entry = users.by_certificate("alice", &signed, HERE).await.expect("let in");
    chmod(&ca, 0o666);
    assert!(users.would_let_in(&entry).await);
    assert!(users.by_certificate("alice", &signed, HERE).await.is_none(), "nobody new");
    chmod(&ca, 0o600);
    dir.write("ca", &text(&key()));
    assert!(!users.would_let_in(&entry).await);
    chmod(&lines, 0o666);
    assert!(users.would_let_in(&entry).await, "a line of the user's own may name the authority");
    chmod(&lines, 0o600);
    assert!(!users.would_let_in(&entry).await);
}

#[tokio::test]
async fn lines_of_the_users_own_narrow_a_trusted_authority() {
    let (dir, authority) = (Dir::new(), key());
    let ca = dir.write("ca", &text(&authority));
    let narrow = format!("cert-authority,restrict,command=\"echo forced\" {}", text(&authority));
    let lines = dir.write("alice", &narrow);
    let users = Users::new().trusted_ca(&ca).authorized_keys(dir.path());
    let signed = certificate(&authority, &key(), "alice");
    let let_in = async || users.by_certificate("alice", &signed, HERE).await;
    let entry = let_in().await.expect("let in");
    assert_eq!(entry.forced_command.as_deref(), Some("echo forced"));
    // Where they can't be known, or refuse, the authority alone does not let in on wider terms.
    chmod(&lines, 0o666);
    assert!(let_in().await.is_none());
    chmod(&lines, 0o600);
    for other in ["unknown-option,", "from=\"192.0.2.1\","] {
        dir.write("alice", &format!("{other}{narrow}"));
        assert!(let_in().await.is_none(), "{other}");
    }
    dir.write("alice", &text(&key()));
    assert_eq!(let_in().await.expect("no line with this authority").forced_command, None);
}
