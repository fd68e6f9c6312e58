//! Who gets in, and what a request needs to count.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::http::{Browser, Raw, Reply};
use super::world::World;
use super::{ANY_PORT, IDLE, PASSWORD, address, logged_in, up, user};

#[test]
fn the_first_administrator_is_made_with_the_code_in_the_log() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.start();
    let browser = Browser::new(address(&world));
    let code = world.wait_log("control", "the code for the first set-up is ");
    assert_eq!(browser.get("/api/v1/setup").json(), json!({"needed": true}));
    let set_up = |code: &str, password: &str| {
        browser.send("POST", "/api/v1/setup", Some(json!({"code": code, "name": "admin", "password": password})))
    };
    assert_eq!(set_up("AAAA-AAAA", PASSWORD).status, 403);
    let reply = set_up(&code, "short");
    assert_eq!((reply.status, reply.json()["errors"][0]["field"].as_str()), (422, Some("password")));
    assert_eq!(set_up(&code, PASSWORD).status, 204);
    assert_eq!(set_up(&code, PASSWORD).status, 409, "once");
    assert_eq!(browser.get("/api/v1/setup").json(), json!({"needed": false}));
    logged_in(browser.address, "admin");
    let log = world.log("control");
    assert!(!log.contains(PASSWORD) && !log.contains("argon2"), "{log}");
}

#[test]
fn a_session_counts_until_it_is_closed_and_changes_nothing_without_its_token() {
    let mut world = World::new();
    let address = up(&mut world);
    let stranger = Browser::new(address);
    assert_eq!(stranger.get("/api/v1/status").status, 401);
    assert_eq!(stranger.send("POST", "/api/v1/children/idle/restart", None).status, 401);

    let mut admin = Browser::new(address);
    let reply = admin.log_in("admin", PASSWORD);
    let cookie = reply.header("set-cookie").expect("a cookie");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    let who = admin.get("/api/v1/session").json();
    assert_eq!(
        (who["name"].as_str(), who["level"].as_u64(), who["by"].as_str()),
        (Some("admin"), Some(10), Some("session"))
    );

    // The token.
    let restart = |browser: &Browser| browser.send("POST", "/api/v1/children/idle/restart", None).status;
    assert_eq!(restart(&admin), 204);
    let without = Browser { csrf: String::new(), ..admin.clone() };
    assert_eq!((restart(&without), without.get("/api/v1/status").status), (403, 200));
    let foreign = Browser { csrf: logged_in(address, "admin").csrf, ..admin.clone() };
    assert_eq!(restart(&foreign), 403);

    // Where it comes from.
    let from = |header: &str, value: &str| {
        let headers = vec![(header.to_owned(), value.to_owned())];
        restart(&Browser { headers, ..admin.clone() })
    };
    assert_eq!(from("Origin", &format!("http://{address}")), 204);
    assert_eq!(from("Referer", &format!("http://{address}/children/idle")), 204);
    assert_eq!(from("Sec-Fetch-Site", "same-origin"), 204);
    for (header, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", &format!("http://{address}.evil.example")),
        ("Origin", &format!("ftp://{address}")),
        ("Referer", "http://evil.example/x"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        assert_eq!(from(header, value), 403, "{header}: {value}");
    }

    // Forged, planted, and replayed.
    for cookie in ["multus=", "multus=x", "multus=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "other=x"] {
        let forged = Browser { cookie: cookie.to_owned(), ..admin.clone() };
        assert_eq!(forged.get("/api/v1/status").status, 401, "{cookie}");
    }
    let planted = Browser { cookie: format!("multus=x; {}", admin.cookie), ..admin.clone() };
    assert_eq!(planted.get("/api/v1/status").status, 401);
    assert_eq!(admin.send("DELETE", "/api/v1/session", None).status, 204);
    assert_eq!((admin.get("/api/v1/status").status, restart(&admin)), (401, 401), "cookie and token of before");
    let again = logged_in(address, "admin");
    assert_eq!(restart(&Browser { csrf: admin.csrf, ..again.clone() }), 403, "the token of before");
    assert_eq!(restart(&again), 204);
}

#[test]
fn failures_are_told_alike_and_slowed_down() {
    let mut world = World::new();
    let address = up(&mut world);
    let mut browser = Browser::new(address);
    let wrong = browser.log_in("admin", "wrong password");
    let unknown = browser.log_in("nobody-knows-me", PASSWORD);
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.body, unknown.body);
    // Each wait is twice as long as the one before: sooner or later the machine is faster.
    let mut tries = 0;
    let last: Reply = world.wait("a wait", || {
        tries += 1;
        Some(browser.log_in("admin", "wrong password")).filter(|reply| reply.status != 401)
    });
    assert_eq!(last.status, 429, "{last:?}");
    assert!(tries > 3, "the first five cost nothing: {tries}");
    assert!(last.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 1)));
    let log = world.log("control");
    assert!(!log.contains("wrong password\"") && !log.contains("nobody-knows-me"), "{log}");
    assert!(log.contains("wrong password for admin from 127.0.0.1"));
}

#[test]
fn rights_are_those_of_the_user() {
    let mut world = World::new();
    let address = up(&mut world);
    let restart = |name| logged_in(address, name).send("POST", "/api/v1/children/idle/restart", None).status;
    let disable = |name| logged_in(address, name).send("POST", "/api/v1/children/idle/disable", None).status;
    let users = |name| logged_in(address, name).get("/api/v1/users").status;
    assert_eq!(["admin", "operator", "guest", "viewer"].map(restart), [204, 204, 403, 403]);
    assert_eq!(["operator", "guest", "viewer", "admin"].map(disable), [403, 403, 403, 204]);
    assert_eq!(["admin", "operator", "viewer"].map(users), [200, 403, 200]);
    let viewer = logged_in(address, "viewer");
    let new = json!({"name": "x", "level": 100, "password": "another password"});
    assert_eq!(viewer.send("POST", "/api/v1/users", Some(new.clone())).status, 403, "read only");
    let password = json!({"old": PASSWORD, "new": "another password"});
    assert_eq!(viewer.send("POST", "/api/v1/session/password", Some(password)).status, 204, "one's own");
    assert_eq!(viewer.send("DELETE", "/api/v1/session", None).status, 204);

    let admin = logged_in(address, "admin");
    assert_eq!(admin.send("POST", "/api/v1/users", Some(new.clone())).status, 200);
    assert_eq!(admin.send("POST", "/api/v1/users", Some(new)).status, 409);
    let mut x = Browser::new(address);
    assert_eq!(x.log_in("x", "another password").status, 200);
    assert_eq!(admin.send("PATCH", "/api/v1/users/x", Some(json!({"level": 30}))).json()["level"], 30);
    assert_eq!(x.get("/api/v1/session").json()["level"], 30, "at once");
    assert_eq!(admin.send("DELETE", "/api/v1/users/x", None).status, 204);
    assert_eq!(x.get("/api/v1/status").status, 401);
}

#[test]
fn a_token_needs_no_cookie_and_no_token_against_forgery() {
    let mut world = World::new();
    let address = up(&mut world);
    let operator = world.token("scada", 30);
    let program = Browser::with_token(address, &operator);
    assert_eq!(program.get("/api/v1/status").status, 200);
    assert_eq!(program.send("POST", "/api/v1/children/idle/restart", None).status, 204);
    assert_eq!(program.send("POST", "/api/v1/reload", None).status, 403);
    assert_eq!(program.get("/api/v1/session").json()["by"], "token");
    assert_eq!(Browser::with_token(address, "x").get("/api/v1/session").status, 401);
    // A bad token is not made good by a good cookie.
    let both = Browser { headers: Browser::with_token(address, "x").headers, ..logged_in(address, "admin") };
    assert_eq!(both.get("/api/v1/status").status, 401);

    let admin = logged_in(address, "admin");
    let made = admin.send("POST", "/api/v1/tokens", Some(json!({"name": "meter", "level": 100})));
    let meter = made.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(Browser::with_token(address, &meter).get("/api/v1/status").status, 200);
    assert_eq!(admin.get("/api/v1/tokens").json()["tokens"].as_array().map(Vec::len), Some(2));
    assert_eq!(admin.send("DELETE", "/api/v1/tokens/meter", None).status, 204);
    assert_eq!(Browser::with_token(address, &meter).get("/api/v1/status").status, 401);
    // One whose time is over.
    let late = world.token("late", 30);
    assert_eq!(Browser::with_token(address, &late).get("/api/v1/status").status, 200);
    world.expire("late");
    let reply = Browser::with_token(address, &late).get("/api/v1/status");
    assert!(reply.status == 401 && reply.json()["detail"].to_string().contains("expired"), "{reply:?}");
    assert_eq!(Browser::with_token(address, &late).send("POST", "/api/v1/children/idle/stop", None).status, 401);
    let all = admin.get("/api/v1/tokens").json()["tokens"].clone();
    let late = all.as_array().and_then(|all| all.iter().find(|token| token["name"] == "late"));
    assert_eq!(late.map(|token| &token["expired"]), Some(&json!(true)), "{all}");
    assert!(!world.log("control").contains(&meter));
}

#[test]
fn the_command_line_makes_users_that_count_at_once() {
    let mut world = World::new();
    let address = up(&mut world);
    let admin = logged_in(address, "admin");
    let passwd = |arguments: &[&str], password: &str| {
        let mut command = world.command("multusctl");
        let mut child = command
            .arg("passwd")
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        // It may not want one.
        let _ = child.stdin.take().expect("a pipe").write_all(format!("{password}\n").as_bytes());
        child.wait_with_output().expect("it ends")
    };
    assert!(passwd(&["eve", "--level", "30", "--stdin"], "evening shift").status.success());
    let mut eve = Browser::new(address);
    assert_eq!(eve.log_in("eve", "evening shift").status, 200);
    assert!(passwd(&["eve", "--stdin"], "morning shift").status.success());
    assert_eq!(eve.get("/api/v1/status").status, 401, "another password ends the sessions");
    assert_eq!(eve.log_in("eve", "morning shift").json()["level"], 30, "the level stays");
    assert_eq!(admin.get("/api/v1/status").status, 200);
    for (arguments, password) in
        [(&["eve", "--stdin"][..], "short"), (&["a b", "--stdin"], "long enough, really"), (&["x", "--stdin"], "")]
    {
        assert_eq!(passwd(arguments, password).status.code(), Some(1), "{arguments:?}");
    }
    assert_eq!(passwd(&["eve", "--level", "101", "--stdin"], "x").status.code(), Some(2));
    assert!(passwd(&["eve", "--remove"], "").status.success());
    assert_eq!(eve.get("/api/v1/status").status, 401);
    assert_eq!(passwd(&["eve", "--remove"], "").status.code(), Some(1));
}

#[test]
fn beyond_this_machine_it_listens_only_once_there_is_a_user() {
    let mut world = World::new();
    world.control("[web]\nlisten = [\"0.0.0.0:0\"]\n[grpc]\nlisten = \"\"\nsocket = false\n");
    world.start();
    let inner = world.wait_log("control", "pages and API on http://127.0.0.1:");
    assert!(!inner.is_empty() && world.log("control").contains("there is no user: 0.0.0.0:0 would let anybody in"));
    assert!(!world.log("control").contains("http://0.0.0.0:"));
    user(&world, "admin", 10, false);
    world.wait_log("control", "pages and API on http://0.0.0.0:");
    world.wait_log("control", "is plain HTTP: passwords can be read on the way");
}

#[test]
fn over_tls_the_cookie_is_bound_to_it() {
    let mut world = World::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate can be made");
    let (certificate, key) = (world.path("certificate.pem"), world.path("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("own file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("own file");
    user(&world, "admin", 10, false);
    world.child("idle", IDLE);
    world.control(&format!("{ANY_PORT}[web.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n"));
    world.start();
    let address: std::net::SocketAddr =
        world.wait_log("control", "pages and API on https://").parse().expect("an address");

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("usual versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let ask = |request: &str| {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&config), name).expect("a good configuration");
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address).expect("it listens"));
        stream.write_all(request.as_bytes()).expect("connected");
        let mut answer = Vec::new();
        // Some servers hang up without a good-bye; what came counts.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("text")
    };
    let body = json!({"name": "admin", "password": PASSWORD}).to_string();
    let answer = ask(&format!(
        "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nOrigin: https://localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.starts_with("__Host-multus=") && cookie.ends_with("; Secure"), "{cookie}");
    assert!(answer.contains("strict-transport-security: max-age="), "{answer}");
    let cookie = cookie.split(';').next().expect("a cookie");
    let get =
        format!("GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {cookie}\r\n\r\n");
    assert!(ask(&get).starts_with("HTTP/1.1 200"));
    let foreign = get
        .replace("GET /api/v1/status", "DELETE /api/v1/session")
        .replace("Connection", "Origin: http://localhost\r\nConnection");
    assert!(ask(&foreign).starts_with("HTTP/1.1 403"), "plain HTTP is another origin");
    // A broken certificate changes nothing; a renewed one needs no restart.
    std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\n").expect("own file");
    world.wait_log("control", "the certificate that was read before stays in force");
    assert!(ask(&get).starts_with("HTTP/1.1 200"));
    let renewed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate can be made");
    std::fs::write(&certificate, renewed.cert.pem()).expect("own file");
    std::fs::write(&key, renewed.signing_key.serialize_pem()).expect("own file");
    world.wait_log("control", "web.tls: the certificate was renewed");
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(&config), name).expect("a good configuration");
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).expect("it listens"));
    let error = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| stream.flush()).expect_err("not known here");
    assert!(error.to_string().contains("certificate"), "{error}");
    // Neither plain text nor silence in place of TLS holds anything up.
    let mut plain = super::http::Raw::connect(address);
    let _ = plain.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(plain.reply().is_none());
}

#[test]
fn streams_end_soon_after_the_right_to_look() {
    let mut world = World::new();
    let address = up(&mut world);
    user(&world, "goes", 100, false);
    user(&world, "lower", 10, false);
    let token = world.token("scada", 100);
    let (goes, lower) = (logged_in(address, "goes"), logged_in(address, "lower"));
    let bearer = |path: &str| {
        let mut raw = Raw::connect(address);
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        raw.write(head).expect("connected");
        raw
    };
    let log = "/api/v1/logs/control/stream?lines=5";
    let mut of_user = [goes.stream("/api/v1/stream"), goes.stream(log)];
    let mut of_token = [bearer("/api/v1/stream"), bearer(log)];
    let mut stays = lower.stream("/api/v1/stream");
    for stream in of_user.iter_mut().chain(&mut of_token).chain([&mut stays]) {
        stream.until("200 OK");
    }
    world.ctl(&["passwd", "goes", "--remove"]);
    world.ctl(&["token", "remove", "scada"]);
    let removed = std::time::Instant::now();
    for stream in of_user.iter_mut().chain(&mut of_token) {
        stream.until("event: end");
        stream.hangs_up();
    }
    eprintln!("streams of a removed user and of a removed token ended after {:?}", removed.elapsed());
    stays.until("event: status");
}
