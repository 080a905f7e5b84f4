//! SFTP, version 3 (draft-ietf-secsh-filexfer-02), with the extensions that OpenSSH's clients use.

mod handles;
mod longname;
mod packet;
mod perform;
mod serve;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use serve::serve;
