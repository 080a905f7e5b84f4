use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;

use serde_json::{Value, json};
use splengine_core::files::FilePolicy;
use splengine_http::HttpServerBuilder;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{Connection, Response};
use crate::support::{TOKEN, TestServer, server_with, until};

struct Bench {
    server: TestServer,
    root: TempDir,
}

async fn bench() -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(root.path().join("data/deep")).expect("made");
    fs::create_dir_all(root.path().join("runtime/batches")).expect("made");
    fs::write(root.path().join("data/a"), "0123456789").expect("written");
    fs::write(root.path().join("runtime/secret"), "secret").expect("written");
    let policy = FilePolicy::new().root(root.path()).hide("runtime").max_file_size(1 << 20);
    let server = server_with(|engine| engine.files(policy), |http| http).await;
    Bench { server, root }
}

impl Bench {
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        let mut connection = self.server.connect().await;
        let head = format!(
            "{method} /api/v1/files{path} HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n{headers}\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        connection.send(&[head.as_bytes(), body].concat()).await;
        connection.response().await
    }

    async fn get(&self, path: &str) -> Response {
        self.ask("GET", path, "", b"").await
    }

    async fn put(&self, path: &str, headers: &str, body: &[u8]) -> Response {
        self.ask("PUT", path, headers, body).await
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn content(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).expect("a file")
    }

    async fn tag(&self, path: &str) -> String {
        self.get(path).await.header("etag").expect("a tag").to_owned()
    }

    async fn watch(&self, path: &str) -> Connection {
        let mut connection = self.server.connect().await;
        let head =
            format!("GET /api/v1/files{path}?watch=true HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n\r\n");
        connection.send(head.as_bytes()).await;
        let (status, headers) = connection.head().await;
        assert_eq!(status, 200);
        assert!(headers.contains(&("content-type".into(), "text/event-stream".into())));
        assert_eq!(connection.chunk().await.as_deref(), Some(&b":\n\n"[..]));
        connection
    }
}

/// What the next event says.
async fn event(connection: &mut Connection) -> Option<Value> {
    let find = |text: &str| {
        let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
        let mut data: Value = serde_json::from_str(data).expect("JSON");
        let name = format!("event: {}", data["type"].as_str().expect("a name"));
        assert!(text.starts_with(&name), "{text}");
        assert_eq!(
            data.as_object_mut().and_then(|data| data.remove("event")),
            Some(data["type"].clone())
        );
        Some(data)
    };
    connection.find_chunk(find).await
}

#[tokio::test]
async fn a_file_is_written_read_and_removed() {
    let bench = bench().await;
    let content: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
    let made = bench.put("/data/b%20b", "", &content).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("location"), Some("/api/v1/files/data/b%20b"));
    let info = made.json();
    assert_eq!(
        (&info["path"], &info["kind"], &info["size"]),
        (&json!("/data/b b"), &json!("file"), &json!(700_000))
    );
    assert_eq!(made.header("etag"), info["etag"].as_str());
    let read = bench.get("/data/b%20b").await;
    assert_eq!((read.status, read.body == content), (200, true));
    assert_eq!(read.header("content-type"), Some("application/octet-stream"));
    assert_eq!(read.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(read.header("content-disposition"), Some("attachment"));
    assert!(
        read.header("content-security-policy").is_some_and(|policy| policy.contains("sandbox"))
    );
    assert_eq!(
        (read.header("etag"), read.header("accept-ranges")),
        (made.header("etag"), Some("bytes"))
    );
    fs::set_permissions(bench.at("data/b b"), fs::Permissions::from_mode(0o640)).expect("set");
    let replaced = bench.put("/data/b%20b", "", b"").await;
    assert_eq!((replaced.status, replaced.header("location")), (200, None));
    assert_eq!((&replaced.json()["size"], &replaced.json()["mode"]), (&json!(0), &json!("0640")));
    assert_eq!(bench.get("/data/b%20b").await.body, b"");
    assert_eq!(bench.ask("DELETE", "/data/b%20b", "", b"").await.status, 204);
    bench.get("/data/b%20b").await.problem(404);
    bench.ask("DELETE", "/data/b%20b", "", b"").await.problem(404);
}

#[tokio::test]
async fn a_part_of_a_file_is_read() {
    let bench = bench().await;
    for (range, status, content, place) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=0-1,4-5", 200, "0123456789", ""),
    ] {
        let part = bench.ask("GET", "/data/a", &format!("Range: {range}\r\n"), b"").await;
        assert_eq!((part.status, part.text()), (status, content), "{range}");
        assert_eq!(part.header("content-range").unwrap_or_default(), place);
    }
    let none = bench.ask("GET", "/data/a", "Range: bytes=10-\r\n", b"").await;
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */10")));
    // A part of what it was is no part of what it is.
    let tag = bench.tag("/data/a").await;
    let of = |tag: &str| format!("Range: bytes=2-4\r\nIf-Range: {tag}\r\n");
    assert_eq!(bench.ask("GET", "/data/a", &of(&tag), b"").await.text(), "234");
    assert_eq!(bench.ask("GET", "/data/a", &of("\"other\""), b"").await.text(), "0123456789");
    // A date is no more exact than a second.
    let dated = bench.get("/data/a").await.header("last-modified").expect("a date").to_owned();
    assert_eq!(bench.ask("GET", "/data/a", &of(&dated), b"").await.text(), "0123456789");
    let mut connection = bench.server.connect().await;
    let head = format!(
        "HEAD /api/v1/files/data/a HTTP/1.1\r\nHost: test\r\nRange: bytes=0-3\r\n{TOKEN}\r\n\r\n"
    );
    connection.send(head.as_bytes()).await;
    let (status, headers) = connection.head().await;
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-length".into(), "10".into())), "{headers:?}");
}

#[tokio::test]
async fn conditions_are_heeded() {
    let bench = bench().await;
    let first = bench.tag("/data/a").await;
    let matches = |tag: &str| format!("If-Match: {tag}\r\n");
    let none = |tag: &str| format!("If-None-Match: {tag}\r\n");
    let same = bench.ask("GET", "/data/a", &none(&format!("\"x\", {first}")), b"").await;
    assert_eq!((same.status, same.header("etag"), same.body.len()), (304, Some(&*first), 0));
    assert_eq!(bench.ask("GET", "/data/a", &none("\"x\""), b"").await.status, 200);
    assert_eq!(bench.ask("GET", "/data/a", &matches(&first), b"").await.status, 200);
    bench.ask("GET", "/data/a", &matches("\"x\""), b"").await.problem(412);
    let dated = bench.get("/data/a").await.header("last-modified").expect("a date").to_owned();
    let since = format!("If-Modified-Since: {dated}\r\n");
    assert_eq!(bench.ask("GET", "/data/a", &since, b"").await.status, 304);

    bench.put("/data/a", &none("*"), b"lost").await.problem(412);
    bench.put("/data/a", &matches("\"x\""), b"lost").await.problem(412);
    bench.put("/data/new", &matches("*"), b"lost").await.problem(412);
    assert_eq!(bench.put("/data/a", &matches(&first), b"second").await.status, 200);
    bench.put("/data/a", &matches(&first), b"lost").await.problem(412);
    bench.ask("DELETE", "/data/a", &matches(&first), b"").await.problem(412);
    assert_eq!(bench.content("data/a"), "second");
    assert_eq!(bench.put("/data/new", &none("*"), b"new").await.status, 201);
    let second = bench.tag("/data/a").await;
    bench.ask("POST", "/data/a?move=/data/moved", &matches(&first), b"").await.problem(412);
    assert_eq!(bench.ask("DELETE", "/data/a", &matches(&second), b"").await.status, 204);
    let names: Vec<_> = fs::read_dir(bench.at("data")).expect("read").flatten().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for wrong in [first.trim_matches('"'), "no tag", "\"", "W/", ""] {
        for name in ["if-match", "if-none-match"] {
            let told = bench.put("/data/new", &format!("{name}: {wrong}\r\n"), b"lost").await;
            assert!(told.problem(400).contains(name));
        }
    }
    // What is no date is ignored, and so is a date where there are tags.
    for ignored in ["If-Modified-Since: 0\r\n", "If-Unmodified-Since: once\r\n"] {
        assert_eq!(bench.ask("GET", "/data/new", ignored, b"").await.text(), "new");
        assert_eq!(bench.put("/data/new", ignored, b"new").await.status, 200);
    }
    assert_eq!(bench.content("data/new"), "new");
}

#[tokio::test]
async fn of_many_that_change_what_they_have_read_one_does() {
    let bench = bench().await;
    let tag = bench.tag("/data/a").await;
    let headers = format!("If-Match: {tag}\r\n");
    let bodies: Vec<String> = (0..8).map(|number| format!("by {number}")).collect();
    let asked = bodies.iter().map(|body| bench.put("/data/a", &headers, body.as_bytes()));
    let answers = futures_util::future::join_all(asked).await;
    let won: Vec<_> =
        answers.iter().zip(&bodies).filter(|(answer, _)| answer.status == 200).collect();
    assert_eq!(won.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 412));
    assert_eq!(&bench.content("data/a"), won[0].1);
}

#[tokio::test]
async fn directories_are_made_listed_and_removed() {
    let bench = bench().await;
    let listing = bench.get("/").await.json();
    assert_eq!(listing["path"], "/");
    let names = |listing: &Value| -> Vec<String> {
        let entries = listing["entries"].as_array().expect("a list").iter();
        entries.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&listing), ["data"], "nothing hidden");
    let moved = bench.get("/data").await;
    assert_eq!((moved.status, moved.header("location")), (308, Some("/api/v1/files/data/")));
    let moved = bench.get("/data?limit=1&x=%20").await;
    assert_eq!(moved.header("location"), Some("/api/v1/files/data/?limit=1&x=%20"));
    assert_eq!(bench.get("?limit=1").await.header("location"), Some("/api/v1/files/?limit=1"));
    bench.get("/data/a?limit=1").await.problem(400);
    let data = bench.get("/data/").await.json();
    assert_eq!(names(&data), ["a", "deep"]);
    assert_eq!(data["entries"][1]["href"], "deep/");
    assert_eq!(data["entries"][0]["etag"].as_str(), Some(&*bench.tag("/data/a").await));
    assert_eq!(data["nextCursor"], Value::Null);

    let made = bench.put("/data/new/", "", b"").await;
    assert_eq!((made.status, &made.json()["kind"]), (201, &json!("directory")));
    assert_eq!(bench.put("/data/new/", "", b"").await.status, 200, "it is there");
    bench.put("/data/new/", "If-None-Match: *\r\n", b"").await.problem(412);
    bench.put("/data/new/", "", b"content").await.problem(400);
    bench.put("/data/a/", "", b"").await.problem(409);
    let told = bench.put("/none/b", "", b"x").await.problem(409);
    assert!(told.contains("none/b") && told.contains("PUT"), "{told}");
    bench.put("/none/b/", "", b"").await.problem(409);
    bench.put("/data/new", "", b"x").await.problem(409);
    bench.get("/data/a/").await.problem(409);

    fs::write(bench.at("data/new/x:y ü"), "").expect("written");
    let inside = bench.get("/data/new/").await.json();
    assert_eq!(inside["entries"][0]["href"], "x%3Ay%20%C3%BC");
    bench.ask("DELETE", "/data/new/", "", b"").await.problem(409);
    bench.ask("DELETE", "/data/new", "", b"").await.problem(409);
    assert_eq!(bench.ask("DELETE", "/data/new/x%3Ay%20%C3%BC", "", b"").await.status, 204);
    assert_eq!(bench.ask("DELETE", "/data/new/", "", b"").await.status, 204);
    bench.get("/data/new/").await.problem(404);

    for number in 0..5 {
        fs::write(bench.at(&format!("data/deep/{number} %")), "").expect("written");
    }
    let (mut read, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = bench.get(&format!("/data/deep/{query}")).await.json();
        assert!(names(&page).len() <= 2);
        read.extend(names(&page));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        let cursor: String = form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(read, ["0 %", "1 %", "2 %", "3 %", "4 %"]);
    for query in ["?cursor=%20", "?limit=0", "?limit=10001", "?limit=x", "?what=1", "?watch=maybe"]
    {
        bench.get(&format!("/data/{query}")).await.problem(400);
    }
}

#[tokio::test]
async fn names_are_bytes() {
    let bench = bench().await;
    assert_eq!(bench.put("/data/%ff", "", b"bytes").await.status, 201);
    let listing = bench.get("/data/").await.json();
    let entries = listing["entries"].as_array().expect("a list");
    let entry = entries.iter().find(|entry| entry["href"] == "%FF").expect("is there");
    assert_eq!(entry["name"], "\u{fffd}");
    assert_eq!(bench.get("/data/%FF").await.text(), "bytes");
    let moved = bench.ask("POST", "/data/%ff?move=data/%fe+%2B", "", b"").await;
    assert_eq!(moved.header("location"), Some("/api/v1/files/data/%FE%20%2B"));
    assert_eq!(bench.get("/data/%FE%20%2B").await.text(), "bytes");
}

#[tokio::test]
async fn files_are_moved_and_copied() {
    let bench = bench().await;
    let post = |path: &'static str| bench.ask("POST", path, "", b"");
    let copied = post("/data/a?copy=/data/b").await;
    assert_eq!((copied.status, copied.header("location")), (201, Some("/api/v1/files/data/b")));
    assert_eq!(copied.json()["path"], "/data/b");
    let moved = post("/data/b?move=data/deep/c").await;
    assert_eq!((moved.status, moved.header("location")), (201, Some("/api/v1/files/data/deep/c")));
    assert!(!bench.at("data/b").exists());
    assert_eq!(bench.content("data/deep/c"), "0123456789");
    fs::write(bench.at("data/a"), "other").expect("written");
    for how in ["copy", "move"] {
        let path = format!("/data/a?{how}=/data/deep/c");
        bench.ask("POST", &path, "", b"").await.problem(409);
    }
    assert_eq!(bench.content("data/deep/c"), "0123456789");
    assert_eq!(post("/data/a?copy=/data/deep/c&overwrite=true").await.status, 200);
    assert_eq!(bench.content("data/deep/c"), "other");
    assert_eq!(post("/data/a?move=/data/deep/c&overwrite=true").await.status, 200);
    assert!(!bench.at("data/a").exists());
    assert_eq!(post("/data/deep/?move=/moved").await.status, 201);
    assert_eq!(bench.content("moved/c"), "other");
    let told = post("/moved/c?move=/none/c").await.problem(409);
    assert!(told.contains("`none/c`"), "{told}");
    for wrong in ["/moved/c", "/moved/c?move=", "/moved/c?move=x&copy=y", "/moved/c?copy=x&copy=y"]
    {
        post(wrong).await.problem(400);
    }
    post("/moved/?copy=/other").await.problem(409);
    post("/none?move=/other").await.problem(404);
    std::os::unix::fs::symlink("nothing", bench.at("dangling")).expect("linked");
    let told = post("/dangling?copy=/other").await.problem(404);
    assert!(told.contains("`dangling`"), "{told}");
    post("/moved/c?move=/other/").await.problem(409);
    assert!(bench.at("moved/c").exists());
}

#[tokio::test]
async fn what_may_not_be_reached_is_not() {
    let bench = bench().await;
    std::os::unix::fs::symlink("/etc", bench.at("data/out")).expect("linked");
    for path in ["/runtime/secret", "/runtime/", "/data/none", "/data/out/passwd"] {
        let answer = bench.get(path).await;
        assert!([404, 422].contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.text().contains("root:"));
    }
    for path in ["/../secret", "/data/%2e%2e/%2e%2e/etc/passwd", "/data/a%00b"] {
        let answer = bench.get(path).await;
        assert!([400, 404, 422].contains(&answer.status), "{path}: {}", answer.status);
    }
    bench.put("/runtime/batches/x", "", b"x").await.problem(404 + 5);
    assert!(!bench.at("runtime/batches/x").exists());
    bench.ask("POST", "/data/a?copy=/runtime/x", "", b"").await;
    bench.ask("POST", "/data/?move=/runtime/x", "", b"").await;
    assert!(!bench.at("runtime/x").exists());

    let bob = "Authorization: Bearer bob-may-do-nothing\r\n";
    for (method, path) in [
        ("GET", "data/a"),
        ("GET", ""),
        ("PUT", "x"),
        ("PUT", "x/"),
        ("DELETE", "data/a"),
        ("POST", "data/a?move=b"),
        ("GET", "?watch=true"),
    ] {
        let mut connection = bench.server.connect().await;
        let head = |credentials: &str| {
            format!(
                "{method} /api/v1/files/{path} HTTP/1.1\r\nHost: test\r\n{credentials}Content-Length: 0\r\n\r\n"
            )
        };
        connection.send(head(bob).as_bytes()).await;
        connection.response().await.problem(403);
        connection.send(head("").as_bytes()).await;
        connection.response().await.problem(401);
    }
    assert_eq!(bench.content("data/a"), "0123456789");
}

#[tokio::test]
async fn a_file_is_written_whole_or_not_at_all() {
    let bench = bench().await;
    let large = bench.put("/data/a", "", &vec![b'x'; (1 << 20) + 1]).await.problem(413);
    assert!(large.contains("1048576"), "{large}");
    bench.put("/data/a", "Content-Range: bytes 0-1/10\r\n", b"xx").await.problem(400);
    for encoding in ["br", "gzip\r\nContent-Encoding: gzip"] {
        bench
            .put("/data/a", &format!("Content-Encoding: {encoding}\r\n"), b"xx")
            .await
            .problem(415);
    }
    // One that breaks off.
    let mut connection = bench.server.connect().await;
    let head = format!(
        "PUT /api/v1/files/data/a HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\nContent-Length: 100\r\n\r\nhalf"
    );
    connection.send(head.as_bytes()).await;
    drop(connection);
    let alone = || {
        let names = fs::read_dir(bench.at("data")).expect("read").flatten();
        names.filter(|entry| entry.file_name() != "deep").count() == 1
    };
    crate::support::eventually("nothing is left of it", alone).await;
    assert_eq!(bench.content("data/a"), "0123456789");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let root = tempfile::tempdir().expect("a directory");
    let policy = FilePolicy::new().root(root.path());
    let patience = std::time::Duration::from_millis(50);
    let configure = |http: HttpServerBuilder<_>| http.body_timeout(patience);
    let server = server_with(|engine| engine.files(policy), configure).await;
    let mut connection = server.connect().await;
    let head = format!(
        "PUT /api/v1/files/a HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\nContent-Length: 100\r\n\r\nhalf"
    );
    connection.send(head.as_bytes()).await;
    connection.response().await.problem(408);
    assert_eq!(fs::read_dir(root.path()).expect("read").count(), 0);
}

#[tokio::test]
async fn times_that_are_no_dates_are_told_as_well_as_can_be() {
    let bench = bench().await;
    let file = fs::File::options().write(true).open(bench.at("data/a")).expect("opens");
    for seconds in [-5_000_000_000_i64, 300_000_000_000] {
        let distance = std::time::Duration::from_secs(seconds.unsigned_abs());
        let time = match seconds < 0 {
            true => std::time::UNIX_EPOCH - distance,
            false => std::time::UNIX_EPOCH + distance,
        };
        // Not every file system has such times.
        if file.set_modified(time).is_err() {
            continue;
        }
        assert_eq!(bench.get("/data/a").await.text(), "0123456789");
        let dated = bench.get("/data/a").await.header("last-modified").expect("a date").to_owned();
        let dated = httpdate::parse_http_date(&dated).expect("a date");
        assert!(dated <= std::time::SystemTime::now(), "{dated:?}");
        let since = "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT\r\n";
        assert!([200, 304].contains(&bench.ask("GET", "/data/a", since, b"").await.status));
        assert_eq!(bench.get("/data/").await.status, 200);
    }
}

#[tokio::test]
async fn changes_are_watched() {
    let mut bench = bench().await;
    let mut watch = bench.watch("/data/").await;
    assert_eq!(bench.put("/data/b%20", "", b"new").await.status, 201);
    let created = event(&mut watch).await.expect("an event");
    assert_eq!(created, json!({"type": "created", "name": "b ", "href": "b%20"}));
    assert_eq!(bench.ask("POST", "/data/b%20?move=/data/c", "", b"").await.status, 201);
    let renamed =
        json!({"type": "renamed", "name": "c", "href": "c", "from": "b ", "fromHref": "b%20"});
    loop {
        let event = event(&mut watch).await.expect("an event");
        if event["type"] != "modified" {
            assert_eq!(event, renamed);
            break;
        }
    }
    assert_eq!(bench.ask("DELETE", "/data/c", "", b"").await.status, 204);
    let removed = event(&mut watch).await.expect("an event");
    assert_eq!(removed, json!({"type": "removed", "name": "c", "href": "c"}));

    let mut deep = bench.watch("/data/deep/").await;
    assert_eq!(bench.ask("DELETE", "/data/deep/", "", b"").await.status, 204);
    assert_eq!(event(&mut deep).await, Some(json!({"type": "gone"})));
    assert_eq!(event(&mut deep).await, None);
    let removed = event(&mut watch).await.expect("an event");
    assert_eq!(removed, json!({"type": "removed", "name": "deep", "href": "deep"}));
    bench.ask("GET", "/data/a?watch=true", "", b"").await.problem(400);
    bench.get("/none/?watch=true").await.problem(404);

    // A server that ends does not wait for who only watches.
    bench.server.engine.drain(std::time::Duration::ZERO).await;
    bench.server.stop.take().expect("runs").send(()).expect("runs");
    assert_eq!(event(&mut watch).await, None);
    (&mut bench.server.ended).await.expect("no panic");
}

#[tokio::test]
async fn without_files_there_are_none() {
    let server = crate::support::server().await;
    let told = server.ask("GET", "/api/v1/files/", None).await.problem(422);
    assert!(told.contains("serves no files"), "{told}");
}

/// What root is called on the host is no part of a path.
#[tokio::test]
async fn a_path_that_reads_as_roots_own_is_below_it_all_the_same() {
    let bench = bench().await;
    let own = bench.root.path().to_str().expect("text").to_owned();
    let inner = bench.at(own.trim_start_matches('/'));
    fs::create_dir_all(&inner).expect("made");
    fs::write(inner.join("f"), "inner").expect("written");
    fs::write(bench.at("f"), "outer").expect("written");
    assert_eq!(bench.get(&format!("{own}/f")).await.text(), "inner");
    assert_eq!(bench.get(&format!("/{own}//f")).await.text(), "inner");
    let listing = bench.get(&format!("{own}/")).await.json();
    assert_eq!(listing["entries"].as_array().map(Vec::len), Some(1));
    let moved = bench.ask("POST", &format!("{own}/f?move={own}/g"), "", b"").await;
    assert_eq!(moved.header("location"), Some(&*format!("/api/v1/files{own}/g")));
    assert_eq!(bench.ask("DELETE", &format!("{own}/g"), "", b"").await.status, 204);
    assert!(!inner.join("g").exists());
    assert_eq!(bench.content("f"), "outer");
}

#[tokio::test]
async fn a_file_that_is_written_anew_while_it_is_read_does_not_look_whole() {
    let bench = bench().await;
    // More than what lies between a server and a client.
    const SIZE: u64 = 64 << 20;
    for (what, is_whole) in [("written", false), ("cut", false), ("added", true)] {
        let file = fs::File::create(bench.at("large")).expect("made");
        file.set_len(SIZE).expect("as long");
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        file.set_modified(long_ago).expect("set");
        let mut client = tokio::net::TcpStream::connect(bench.server.addr).await.expect("connects");
        let head = format!(
            "GET /api/v1/files/large HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\nConnection: close\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.expect("sent");
        let mut first = [0; 12];
        client.read_exact(&mut first).await.expect("answered");
        assert_eq!(&first, b"HTTP/1.1 200");
        match what {
            "written" => file.write_all_at(b"x", 0).expect("written"),
            "cut" => file.set_len(5).expect("cut"),
            _ => file.write_all_at(b"x", SIZE).expect("written"),
        }
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        let body = rest.windows(4).position(|end| end == b"\r\n\r\n").expect("a body") + 4;
        let got = (rest.len() - body) as u64;
        assert_eq!(got == SIZE, is_whole, "{what}: {got}");
    }
}

/// A proxy tells of a client that has left in the middle by a reset without an error.
#[tokio::test]
async fn a_stream_that_is_reset_is_no_end_of_a_file() {
    let root = tempfile::tempdir().expect("a directory");
    fs::write(root.path().join("a"), "old").expect("written");
    // With one place, whoever has it has let the other go.
    let policy = FilePolicy::new().root(root.path()).max_open(1);
    let server = server_with(|engine| engine.files(policy), |http| http).await;
    for (announced, sent) in [(None, 1000), (Some(200_000), 100_000), (None, 0)] {
        let stream = tokio::net::TcpStream::connect(server.addr).await.expect("connects");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut client = client.ready().await.expect("ready");
        let mut request = http::Request::put(format!("http://{}/api/v1/files/a", server.addr))
            .header("authorization", TOKEN.trim_start_matches("Authorization: "));
        if let Some(length) = announced {
            request = request.header("content-length", length);
        }
        let (answer, mut body) =
            client.send_request(request.body(()).expect("built"), false).expect("sent");
        body.send_data(vec![b'x'; sent].into(), false).expect("sent");
        let is_taken = async || {
            // Of all that writes, with a condition that is never true.
            let head = format!(
                "PUT /api/v1/files/a HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\nIf-Match: \"none\"\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            let mut connection = server.connect().await;
            connection.send(head.as_bytes()).await;
            let status = connection.response().await.status;
            assert!(matches!(status, 412 | 503), "{status}");
            status == 503
        };
        until("it is written", is_taken).await;
        body.send_reset(h2::Reason::NO_ERROR);
        until("it is given up", async || !is_taken().await).await;
        assert_eq!(server.ask("GET", "/api/v1/files/a", None).await.text(), "old");
        drop(answer);
    }
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_more() {
    let root = tempfile::tempdir().expect("a directory");
    fs::write(root.path().join("a"), "content").expect("written");
    let policy = FilePolicy::new().root(root.path());
    let server = server_with(|engine| engine.files(policy).disk_floor(u64::MAX), |http| http).await;
    let bench = Bench { server, root };
    let refused = bench.put("/new", "", b"new").await.problem(507);
    assert!(refused.contains("nearly full"), "{refused}");
    assert_eq!(bench.get("/a").await.status, 200);
    assert_eq!(bench.ask("DELETE", "/a", "", b"").await.status, 204);
}
