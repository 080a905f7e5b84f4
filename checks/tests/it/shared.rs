//! What servers share stands in core alone.

#[test]
fn no_server_has_a_copy_of_what_servers_share() {
    let servers = crate::SURVEYS.iter().filter(|survey| survey.package != "splengine-core");
    let copies: Vec<&str> = servers.flat_map(|survey| &survey.copies).map(String::as_str).collect();
    assert!(
        copies.is_empty(),
        "Core has these for all servers, in `net`, `auth`, `quota` and `execute`:\n{}",
        copies.join("\n")
    );
}
