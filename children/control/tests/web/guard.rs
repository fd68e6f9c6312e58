//! What a hostile or broken client sends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::http::{Raw, once};
use super::world::World;
use super::{PASSWORD, logged_in, up};

fn plain(address: SocketAddr, request_line: &str, headers: &str) -> Option<super::http::Reply> {
    once(address, format!("{request_line}\r\nHost: {address}\r\n{headers}\r\n"))
}

fn status(address: SocketAddr, request_line: &str, headers: &str) -> u16 {
    plain(address, request_line, headers).map_or(0, |reply| reply.status)
}

#[test]
fn what_is_too_large_is_refused_and_costs_nothing() {
    let mut world = World::new();
    let address = up(&mut world);
    let pid = world.of("control").pid;
    for (length, expected) in [("1073741824", 413), ("99999999999", 413), ("1048577", 413), ("16385", 413)] {
        let headers = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        assert_eq!(status(address, "POST /api/v1/session HTTP/1.1", &headers), expected, "{length}");
    }
    for length in ["99999999999999999999999", "-1", "1e3", "0x10", "", "5, 6", "+5"] {
        let got = status(address, "POST /api/v1/session HTTP/1.1", &format!("Content-Length: {length}\r\n"));
        assert!(matches!(got, 0 | 400), "{length}: {got}");
    }
    // Without a length, what comes is counted.
    let mut raw = Raw::connect(address);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let head = format!("POST /api/v1/session HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n");
    raw.write(head).expect("connected");
    // It may hang up while this is written.
    let _ = (0..20).try_for_each(|_| raw.write(&chunk));
    if let Some(reply) = raw.reply() {
        assert_eq!(reply.status, 413);
    }
    // Somebody who is known may send a mebibyte, and no more.
    let admin = logged_in(address, "admin");
    let path = "/api/v1/documents/children/idle/validate";
    let text = |bytes: usize| serde_json::json!({"text": format!("# {}", "x".repeat(bytes))});
    assert_eq!(admin.send("POST", path, Some(text(900_000))).status, 200);
    assert_eq!(admin.send("POST", path, Some(text(1_100_000))).status, 413);

    // Heads.
    let mut raw = Raw::connect(address);
    let _ = raw.write(format!("GET / HTTP/1.1\r\nHost: {address}\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20)));
    assert_eq!(raw.reply().map_or(431, |reply| reply.status), 431);
    raw.hangs_up();
    let many: String = (0..1000).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(status(address, "GET / HTTP/1.1", &many), 431);
    let long = format!("GET /{} HTTP/1.1", "x".repeat(100_000));
    assert!(matches!(status(address, &long, ""), 0 | 414 | 431));
    assert_eq!(logged_in(address, "admin").get("/api/v1/status").status, 200);
    assert_eq!(world.of("control").pid, pid, "it is still the same process");
}

#[test]
fn slow_connections_keep_nobody_out() {
    let mut world = World::new();
    let address = up(&mut world);
    let start = Instant::now();
    let half_a_head = |n: usize| {
        let mut raw = Raw::connect(address);
        let _ = raw.write(format!("GET /{n} HTTP/1.1\r\nHost: {address}\r\nX-"));
        raw
    };
    let mut slow: Vec<Raw> = (0..100).map(half_a_head).collect();
    logged_in(address, "admin");
    // More than one address may have: the oldest make room, and a log-in is served all the same.
    slow.extend((100..300).map(half_a_head));
    logged_in(address, "operator");
    let slow_body = |n: usize| {
        let mut raw = Raw::connect(address);
        let _ =
            raw.write(format!("POST /api/v1/session HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100\r\n\r\n{n}"));
        raw
    };
    slow.extend((0..200).map(slow_body));
    let silent: Vec<Raw> = (0..200).map(|_| Raw::connect(address)).collect();
    let admin = logged_in(address, "guest");
    assert_eq!(admin.get("/api/v1/status").status, 200);
    drop(silent);
    // What never goes on is hung up on.
    let mut head = half_a_head(0);
    let waited = head.hangs_up();
    assert!((Duration::from_secs(5)..Duration::from_secs(40)).contains(&waited), "{waited:?}");
    let mut body = slow_body(0);
    assert_eq!(body.reply().map(|reply| reply.status), Some(408));
    for raw in &mut slow {
        raw.hangs_up();
    }
    assert!(start.elapsed() < Duration::from_secs(120));
}

#[test]
fn an_idle_connection_is_kept_and_requests_in_one_piece_are_answered_in_order() {
    let mut world = World::new();
    let address = up(&mut world);
    let mut raw = Raw::connect(address);
    for _ in 0..3 {
        raw.write(format!("GET /api/v1/setup HTTP/1.1\r\nHost: {address}\r\n\r\n")).expect("it is kept");
        assert_eq!(raw.reply().expect("an answer").status, 200);
    }
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let post = format!(
        "POST /api/v1/session HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    raw.write([one("/api/v1/setup"), post, one("/api/v1/nothing"), one("/api/v1/session")].concat())
        .expect("it is kept");
    let statuses: Vec<u16> = (0..4).map(|_| raw.reply().expect("an answer").status).collect();
    assert_eq!(statuses, [200, 422, 404, 200]);
    let mut head = Raw::connect(address);
    head.write(format!("HEAD /api/v1/setup HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
        .expect("connected");
    let all = head.until("\r\n\r\n");
    assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("\r\n\r\n"), "no body: {all}");
}

#[test]
fn framing_is_strict() {
    let mut world = World::new();
    let address = up(&mut world);
    let post = "POST /api/v1/session HTTP/1.1";
    let two = "Content-Length: 2\r\nContent-Length: 3\r\nContent-Type: application/json\r\n";
    assert_eq!(status(address, post, two), 400, "two lengths");

    // A length and chunks: at most one request is seen in it.
    for headers in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"]
    {
        let mut raw = Raw::connect(address);
        let smuggled = format!("GET /api/v1/setup HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let bytes = format!("{post}\r\nHost: {address}\r\n{headers}\r\n0\r\n\r\n{smuggled}");
        raw.write(bytes).expect("connected");
        let first = raw.reply();
        assert!(first.is_none_or(|reply| matches!(reply.status, 400 | 415)), "{headers}");
    }
    for (headers, body) in [
        ("Transfer-Encoding: gzip\r\n", ""),
        ("Transfer-Encoding: chunked, identity\r\n", ""),
        ("Transfer-Encoding: chunked\r\n", "zz\r\n"),
        ("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n"),
        ("Transfer-Encoding: chunked\r\n", "2\r\n{}x"),
        ("Content-Length: 5\r\n", "{}"),
    ] {
        let mut raw = Raw::connect(address);
        raw.write(format!("{post}\r\nHost: {address}\r\nContent-Type: application/json\r\n{headers}\r\n{body}"))
            .expect("connected");
        raw.end_of_requests();
        let got = raw.reply().map_or(0, |reply| reply.status);
        assert!(matches!(got, 0 | 400), "{headers:?} {body:?}: {got}");
    }
    for junk in [
        &b"\0\0\0\0"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\nHost\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
    ] {
        let mut raw = Raw::connect(address);
        raw.write(junk).expect("connected");
        raw.end_of_requests();
        let got = raw.reply().map_or(0, |reply| reply.status);
        assert!(got < 500 && got != 200, "{junk:?}: {got}");
    }
    logged_in(address, "admin");
}

#[test]
fn only_own_names_are_answered() {
    let mut world = World::new();
    let address = up(&mut world);
    let port = address.port();
    let ask =
        |line: &str, headers: &str| once(address, format!("{line}\r\n{headers}\r\n")).map_or(0, |reply| reply.status);
    let get = "GET /api/v1/setup HTTP/1.1";
    for good in [&format!("localhost:{port}"), "localhost", "127.0.0.1", &address.to_string()] {
        assert_eq!(ask(get, &format!("Host: {good}\r\n")), 200, "{good}");
    }
    for bad in
        ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "[::2]", "", "a b", "localhost, evil"]
    {
        let got = ask(get, &format!("Host: {bad}\r\n"));
        assert!(matches!(got, 400 | 421), "{bad}: {got}");
    }
    assert_eq!(ask(get, ""), 400, "none");
    assert_eq!(ask("GET /api/v1/setup HTTP/1.0", ""), 400, "none");
    assert_eq!(ask("GET /api/v1/setup HTTP/1.0", "Host: localhost\r\n"), 200);
    assert_eq!(ask(get, "Host: localhost\r\nHost: localhost\r\n"), 400, "two");
    assert_eq!(ask("GET http://localhost/api/v1/setup HTTP/1.1", "Host: localhost\r\n"), 200, "absolute form");
    assert_eq!(ask("GET http://evil.example/api/v1/setup HTTP/1.1", "Host: localhost\r\n"), 421);
    assert_eq!(ask("GET http://localhost/api/v1/setup HTTP/1.1", "Host: evil.example\r\n"), 421);
    for line in
        ["GET ftp://localhost/ HTTP/1.1", "GET * HTTP/1.1", "GET localhost:80 HTTP/1.1", "GET //evil/%2e%2e HTTP/1.1"]
    {
        let got = ask(line, "Host: localhost\r\n");
        assert!(matches!(got, 303 | 400 | 404 | 405 | 421), "{line}: {got}");
    }
}

#[test]
fn methods_and_paths_that_are_not_there_are_refused() {
    let mut world = World::new();
    let address = up(&mut world);
    for method in ["TRACE", "CONNECT", "OPTIONS", "FOO", "get", "PROPFIND"] {
        let reply = plain(address, &format!("{method} /api/v1/setup HTTP/1.1"), "").expect("an answer");
        assert!(matches!(reply.status, 400 | 405), "{method}: {}", reply.status);
        assert!(reply.status != 405 || reply.header("allow").is_some(), "{method}");
    }
    let reply = plain(address, "PUT /api/v1/setup HTTP/1.1", "Content-Length: 0\r\n").expect("an answer");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, POST")));
    for path in [
        "/static/../Cargo.toml",
        "/static/%2e%2e/Cargo.toml",
        "/static/..%2fCargo.toml",
        "/static/....//Cargo.toml",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/\\..\\x",
        "/static/",
        "/static/.",
        "/static/%00",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/logs/..%2f..%2fetc%2fpasswd",
        "/api/v1/logs/%2e%2e/download",
        "/api/v1/faults/../latest",
    ] {
        let got = status(address, &format!("GET {path} HTTP/1.1"), "");
        assert!(matches!(got, 303 | 400 | 401 | 404), "{path}: {got}");
    }
    let admin = logged_in(address, "admin");
    for path in
        ["/api/v1/logs/..%2f..%2fetc%2fpasswd", "/api/v1/logs/%2e%2e/download", "/api/v1/documents/config/..%2fusers"]
    {
        let got = admin.get(path).status;
        assert!(matches!(got, 404 | 422), "{path}: {got}");
    }
    assert_eq!(admin.get("/api/v1/children/%ff").status, 400);
    assert_eq!(admin.get("/api/v1/events?child=%ff").status, 400);
}

#[test]
fn every_answer_has_the_headers_that_protect() {
    let mut world = World::new();
    let address = up(&mut world);
    let answers = [
        plain(address, "GET /api/v1/setup HTTP/1.1", ""),
        plain(address, "GET /api/v1/nothing HTTP/1.1", ""),
        plain(address, "GET /nothing HTTP/1.1", "Accept: text/html\r\n"),
        plain(address, "GET /static/nothing HTTP/1.1", ""),
        plain(address, "TRACE / HTTP/1.1", ""),
        plain(address, "POST /api/v1/session HTTP/1.1", "Content-Length: 9999999\r\n"),
        once(address, "GET / HTTP/1.1\r\nHost: evil.example\r\nAccept: text/html\r\n\r\n"),
        Some(logged_in(address, "admin").get("/api/v1/status")),
    ];
    for answer in answers {
        let answer = answer.expect("an answer");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert!(answer.header("referrer-policy").is_some() && answer.header("permissions-policy").is_some());
        assert!(answer.header("server").is_none() && answer.header("access-control-allow-origin").is_none());
        assert!(answer.header("x-multus-stream").is_none());
    }
}

#[test]
fn internal_headers_from_outside_do_not_count() {
    let mut world = World::new();
    let address = up(&mut world);
    let body = format!(r#"{{"name":"admin","password":"{PASSWORD}"}}"#);
    let headers = format!(
        "X-Multus-Peer: 9.9.9.9\r\nX-Multus-Secure: 1\r\nX-Multus-Stream: 0\r\nX-Forwarded-For: 9.9.9.9\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let reply = once(address, format!("POST /api/v1/session HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n{body}"));
    assert_eq!(reply.expect("an answer").status, 200);
    assert_eq!(world.wait_log("control", "admin logged in from "), "127.0.0.1");
}

#[test]
fn many_open_streams_leave_room_for_requests() {
    let mut world = World::new();
    let address = up(&mut world);
    let admin = logged_in(address, "admin");
    let mut streams: Vec<Raw> = (0..100).map(|_| admin.stream("/api/v1/stream")).collect();
    for stream in &mut streams {
        stream.until("event: status");
    }
    for _ in 0..20 {
        assert_eq!(admin.get("/api/v1/status").status, 200);
    }
    logged_in(address, "guest");
    // Logged out, they end.
    assert_eq!(admin.send("DELETE", "/api/v1/session", None).status, 204);
    for mut stream in streams {
        assert!(stream.hangs_up() < Duration::from_secs(30));
    }
}
