//! An authenticator of one's own: tokens that a single sign-on service signs, and that expire.
//!
//!     SIGNING_KEY=a-long-and-random-key cargo run --example custom-auth
//!
//! A token is `USER.EXPIRY.SIGNATURE`: the expiry in seconds since 1970, the signature an
//! HMAC-SHA256 over what stands before it, in hexadecimal. The server prints its address, and a
//! token for an hour, so that there is something to try.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use splengine_core::auth::{AuthError, Authenticator, CredentialSource, Credentials};
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::HttpServer;

struct SignedTokens(Hmac<Sha256>);

impl Authenticator for SignedTokens {
    async fn authenticate(
        &self,
        credentials: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        let Credentials::Bearer(token) = credentials else { return Err(AuthError::Missing) };
        self.caller(token.expose(), SystemTime::now()).ok_or(AuthError::Invalid)
    }
}

impl SignedTokens {
    fn new(key: &str) -> Self {
        Self(Hmac::new_from_slice(key.as_bytes()).expect("a key of any length"))
    }

    fn caller(&self, token: &str, now: SystemTime) -> Option<Caller> {
        let (signed, signature) = token.rsplit_once('.')?;
        // Compares in constant time.
        let mac = self.0.clone().chain_update(signed);
        mac.verify_slice(&unhex(signature)?).ok()?;
        let (user, expiry) = signed.rsplit_once('.')?;
        let expiry = UNIX_EPOCH + Duration::from_secs(expiry.parse().ok()?);
        (now < expiry).then_some(Caller::new(user).ok()?.with_all_scopes())
    }

    fn sign(&self, user: &str, expiry: SystemTime) -> String {
        let seconds = expiry.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let signed = format!("{user}.{seconds}");
        let signature = self.0.clone().chain_update(&signed).finalize().into_bytes();
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{signed}.{hex}")
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    Some(
        digits?
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect(),
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tokens = SignedTokens::new(&std::env::var("SIGNING_KEY")?);
    let token = tokens.sign("alice", SystemTime::now() + Duration::from_hours(1));
    let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    let server =
        HttpServer::builder(engine.clone()).authenticate(tokens).bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{} {token}", server.local_addr())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    server
        .run_until(async {
            terminate.recv().await;
            engine.drain(Duration::from_secs(30)).await;
        })
        .await;
    Ok(())
}
