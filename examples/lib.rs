//! Compiles the examples of the workspace's README and of each crate's. The examples themselves are programs.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../splengine-core/README.md")]
struct CoreReadme;

#[cfg(doctest)]
#[doc = include_str!("../splengine-http/README.md")]
struct HttpReadme;

#[cfg(doctest)]
#[doc = include_str!("../splengine-ws/README.md")]
struct WsReadme;

#[cfg(doctest)]
#[doc = include_str!("../splengine-avro/README.md")]
struct AvroReadme;

#[cfg(doctest)]
#[doc = include_str!("../splengine-ssh/README.md")]
struct SshReadme;
