//! What clients may choose from in the key exchange.

use russh::{cipher, kex, mac};
use splengine_ssh::{Algorithms, SshServerBuilder, Users};

use crate::support::TestServer;

/// A client's algorithms, one of each.
fn preferring(kex: kex::Name, cipher: cipher::Name, mac: mac::Name) -> russh::client::Config {
    let preferred = russh::Preferred {
        kex: vec![kex].into(),
        cipher: vec![cipher].into(),
        mac: vec![mac].into(),
        ..russh::Preferred::default()
    };
    russh::client::Config { preferred, ..russh::client::Config::default() }
}

#[tokio::test]
async fn algorithms_are_those_of_the_set() {
    let strict = (kex::CURVE25519, cipher::AES_256_CTR, mac::HMAC_SHA256_ETM);
    let usual = (kex::CURVE25519, cipher::AES_256_CTR, mac::HMAC_SHA256);
    let short = (kex::CURVE25519, cipher::AES_128_GCM, mac::HMAC_SHA256);
    let old = (kex::ECDH_SHA2_NISTP256, cipher::AES_128_CTR, mac::HMAC_SHA512);
    let ancient = (kex::DH_G14_SHA1, cipher::AES_256_CTR, mac::HMAC_SHA256);
    let costly = (kex::DH_G14_SHA256, cipher::AES_256_CTR, mac::HMAC_SHA256);
    type Set = fn(SshServerBuilder<Users>) -> SshServerBuilder<Users>;
    let sets: [(Set, [bool; 6]); 3] = [
        (
            |server| server.algorithms(Algorithms::strict()),
            [true, false, false, false, false, false],
        ),
        (|server| server, [true, true, true, false, false, false]),
        (
            |server| server.algorithms(Algorithms::compatible()),
            [true, true, true, true, false, false],
        ),
    ];
    for (set, expected) in sets {
        let server = TestServer::serving(set).await;
        for ((kex, cipher, mac), is_let_in) in
            [strict, usual, short, old, ancient, costly].into_iter().zip(expected)
        {
            let config = preferring(kex, cipher, mac);
            let client = crate::support::Client::begin(config, server.socket().await).await;
            let name: &str = kex.as_ref();
            assert_eq!(client.is_ok(), is_let_in, "{name}");
            if let Ok(mut client) = client {
                assert!(client.shows("alice", &server.key).await);
                assert_eq!(client.run("echo here").await.told().0, "here\n");
            }
        }
    }
}
