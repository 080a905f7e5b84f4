use std::fs;

use splengine_core::Engine;
use splengine_core::engine::EngineBuilder;
use splengine_core::files::FilePolicy;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::client::{Actor, Client, TestServer};

async fn open() -> (TempDir, TestServer, Client<TcpStream>) {
    open_with(|engine| engine).await
}

async fn open_with(
    configure: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> (TempDir, TestServer, Client<TcpStream>) {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("runtime")).expect("made");
    fs::write(root.path().join("runtime/secret"), "secret").expect("written");
    let policy = FilePolicy::new().root(root.path()).hide("runtime");
    let engine = Engine::builder(Actor).files(policy);
    let engine = configure(engine).build().expect("built");
    let server = TestServer::open_to(engine, |server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    (root, server, client)
}

fn long(number: i64) -> Vec<u8> {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&long(bytes.len() as i64)[..], bytes].concat()
}

/// The answer to a call: a value, or the error that the message declares.
async fn call(
    client: &mut Client<TcpStream>,
    name: &str,
    parameters: &[Vec<u8>],
) -> Result<Vec<u8>, String> {
    let call = [&[0][..], &sized(name.as_bytes()), &parameters.concat()].concat();
    client.send(1, &call).await;
    let (_, answer) = client.answer().await;
    match answer.strip_prefix(&[0, 0]) {
        Some(value) => Ok(value.to_vec()),
        None => Err(String::from_utf8_lossy(&answer).into_owned()),
    }
}

fn write(path: &str, data: &[u8], offset: Option<i64>) -> [Vec<u8>; 3] {
    let offset = offset.map_or(vec![0], |offset| [vec![2], long(offset)].concat());
    [sized(path.as_bytes()), sized(data), offset]
}

fn read(path: &str, offset: i64, length: i64) -> [Vec<u8>; 3] {
    [sized(path.as_bytes()), long(offset), long(length)]
}

#[tokio::test]
async fn a_file_is_written_and_read_in_parts() {
    let (root, _server, mut client) = open().await;
    let content: Vec<u8> = (0..1_500_000_u32).map(|number| (number / 3) as u8).collect();
    let (whole, rest) = content.split_at(1_000_000);
    call(&mut client, "writeFile", &write("/a", b"old and longer", None)).await.expect("written");
    call(&mut client, "writeFile", &write("/a", whole, None)).await.expect("written");
    let status = call(&mut client, "writeFile", &write("a", rest, Some(1_000_000))).await;
    // It is a file, and as long.
    assert_eq!(status.expect("written")[..5], [&[2][..], &long(1_500_000)].concat());
    assert!(fs::read(root.path().join("a")).expect("written") == content);

    let chunk = call(&mut client, "readFile", &read("a", 3, i64::from(i32::MAX))).await;
    let most = 1 << 20;
    let wanted = [sized(&content[3..3 + most]), long(3), long(1_500_000), vec![0]];
    assert!(chunk.expect("read") == wanted.concat(), "no more than 1 MiB at once");
    let chunk = call(&mut client, "readFile", &read("a", 1_499_990, 100)).await.expect("read");
    let wanted = [sized(&content[1_499_990..]), long(1_499_990), long(1_500_000), vec![1]].concat();
    assert_eq!(chunk, wanted);
    let beyond = call(&mut client, "readFile", &read("a", i64::MAX, 1)).await.expect("read");
    assert_eq!(beyond[0], 0);

    let status = call(&mut client, "statFile", &[sized(b"/")]).await.expect("known");
    assert_eq!(status[0], 4, "a directory");
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_more() {
    let (root, _server, mut client) = open_with(|engine| engine.disk_floor(u64::MAX)).await;
    let error = call(&mut client, "writeFile", &write("/a", b"new", None)).await.expect_err("full");
    assert!(error.contains("nearly full"), "{error}");
    assert!(!root.path().join("a").exists());
}

#[tokio::test]
async fn a_refusal_is_of_the_declared_type() {
    let (_root, _server, mut client) = open().await;
    for (name, parameters, problem) in [
        ("statFile", vec![sized(b"none")], "`none` does not exist"),
        ("statFile", vec![sized(b"../x")], "`../x` is outside root"),
        ("readFile", read("runtime/secret", 0, 1).to_vec(), "does not exist"),
        ("readFile", read("/", 0, 1).to_vec(), "is a directory"),
        ("readFile", read("/", -1, 1).to_vec(), "`offset` must be at least 0"),
        ("readFile", read("/", 0, -1).to_vec(), "`length` must be at least 0"),
        ("writeFile", write("runtime/new", b"x", None).to_vec(), "does not exist"),
        ("writeFile", write("a", b"x", Some(-1)).to_vec(), "`offset` must be at least 0"),
    ] {
        let error = call(&mut client, name, &parameters).await.expect_err(name);
        assert!(error.contains(problem), "{name}: {error}");
    }
}

#[tokio::test]
async fn without_files_there_are_none() {
    let server = TestServer::open(|server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    let error = call(&mut client, "statFile", &[sized(b"/")]).await.expect_err("refused");
    assert!(error.contains("serves no files"), "{error}");
}
