//! The service itself.

use crate::context::CallContext;
use crate::error::Failure;
use crate::records::EngineInfo;

pub(crate) async fn describe(ask: &CallContext<'_>) -> Result<EngineInfo, Failure> {
    let mut interfaces = ask.options.interfaces.clone();
    interfaces.entry("avro-rpc".to_owned()).or_insert_with(|| "/avro".to_owned());
    Ok(EngineInfo {
        service: "splengine".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        r#type: "execution-engine".to_owned(),
        interfaces,
        capabilities: ask.engine.capabilities(),
    })
}

pub(crate) async fn keep_alive(ask: &CallContext<'_>, session: String) -> Result<(), Failure> {
    // One-way: an error can't be answered, but over HTTP, where the answer is the same.
    if let Err(error) = ask.engine.sessions().keep_alive(&ask.caller, &session) {
        tracing::debug!(%error, "nothing to be kept alive");
    }
    Ok(())
}
