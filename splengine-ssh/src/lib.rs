//! The SSH door of splengine: commands, persistent terminals and files for every SSH client.

mod sftp;
