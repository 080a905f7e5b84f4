use crate::engine::Engine;
use crate::net::ConnectionLimits;
use crate::testing::conformance::TestUsers;

/// Settings that a server under test is opened with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSetup {
    /// Engine of the server. It is drained by the suite alone.
    pub engine: Engine,
    /// Authenticator of the server.
    pub users: TestUsers,
    /// Bounds on the server's connections.
    pub connections: ConnectionLimits,
}
