//! Whatever a person or a child can write is shown as text, wherever it is shown.

use serde_json::json;

use super::http::Browser;
use super::world::World;
use super::{ANY_PORT, address, logged_in, user};

/// What must never become a part of a page.
const EVIL: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{7*7}}";
/// How much of it is looked for, as text.
const SHOWN: &str = "&lt;script&gt;alert(1)";

/// Says it in its log and as its status, and fails with it.
const CHILD: &str = r#"
import os, socket, sys, time
evil = sys.argv[1]
if "fail" in open(os.environ["MULTUS_CONFIG"]).read():
    print("ERROR", evil, flush=True)
    sys.exit(3)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
print("INFO", evil, flush=True)
s.send(("READY=1\nSTATUS=" + evil).encode())
time.sleep(100000)
"#;

fn text(browser: &Browser, path: &str) -> (u16, String) {
    let reply = browser.bytes("GET", path, &[("Accept", "text/html")], b"");
    (reply.status, String::from_utf8(reply.body).expect("pages are UTF-8"))
}

fn is_harmless(page: &str) -> bool {
    let lower = page.to_lowercase();
    // Our own script has an address, and we have no images.
    !lower.contains("<script>") && !lower.contains("<img")
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn script_in_every_text_field_is_shown_as_text() {
    let mut world = World::new();
    let quoted = toml_string(EVIL);
    std::fs::write(world.dirs().config.join("multusd.toml"), format!("site = {quoted}\n")).expect("own file");
    let program = world.path("child.py");
    std::fs::write(&program, CHILD).expect("own file");
    let child = format!(
        "description = {quoted}\ncommand = [\"python3\", {program:?}, {quoted}]\n[heartbeat]\nmethod = \"notify\"\n\
         deadline = \"none\"\n[restart]\ndelays = [\"0s\", \"1h\"]\n"
    );
    world.child("mouth", &child);
    world.parameters("mouth", "");
    // A name that no line may have: what is said of it holds the name.
    std::fs::write(world.dirs().config.join("hardware.toml"), format!("[lines]\n{quoted} = {{ kind = \"x\" }}\n"))
        .expect("own file");
    user(&world, "admin", 0, false);
    world.control(&format!("{ANY_PORT}[configuration]\nsettle = \"0s\"\n"));
    world.start();
    let admin = logged_in(address(&world), "admin");
    world.wait_state("mouth", "running");

    // Versions with comments and texts.
    let document = "/api/v1/documents/children/mouth";
    let version = admin.get(document).json()["version"].as_u64().expect("a version");
    let save = json!({"text": format!("{child}# {EVIL}\n"), "version": version, "comment": EVIL});
    let saved = admin.send("PUT", document, Some(save));
    assert_eq!(saved.status, 200, "{saved:?}");
    world.wait("it is applied", || {
        let changes = admin.get("/api/v1/changes").json();
        changes["changes"].as_array()?.iter().find(|change| change["state"] == "healthy").cloned()
    });
    // A fault with its report.
    world.parameters("mouth", "fail = true\n");
    world.tell(&multus_contract::api::command::Request::Restart { name: "mouth".into() });
    world.wait_state("mouth", "backoff");
    let report = world.wait("a report", || {
        let faults = admin.get("/api/v1/faults?child=mouth").json();
        faults["faults"].as_array()?.first()?["id"].as_str().map(str::to_owned)
    });

    let evil = encoded(EVIL);
    let shown = [
        "/".to_owned(),
        "/children/mouth".into(),
        format!("/faults/mouth/{report}"),
        "/logs/mouth".into(),
        "/configuration/children/mouth".into(),
        "/configuration/children/mouth?view=text".into(),
        "/configuration/children/mouth?view=versions".into(),
        "/configuration/daemon/multusd".into(),
        "/system".into(),
        "/account".into(),
        "/users".into(),
        "/tokens".into(),
        "/io".into(),
        "/io/history".into(),
        "/configuration".into(),
        "/log-in".into(),
    ];
    for path in &shown {
        let (_, page) = text(&admin, path);
        assert!(is_harmless(&page), "{path}: {page}");
        // The site is in the frame of each.
        if path != "/log-in" {
            assert!(page.contains(SHOWN), "{path} shows the site: {page}");
        }
    }
    let count = |path: &str| text(&admin, path).1.matches(SHOWN).count();
    let empty = count("/account");
    for path in ["/", "/children/mouth", "/logs/mouth", "/configuration/children/mouth?view=versions"] {
        assert!(count(path) > empty, "{path} shows more than the site");
    }
    let path = format!("/faults/mouth/{report}");
    world.wait("the last lines of its log in the report", || (count(&path) > empty).then_some(()));

    // What is asked for, and what is sent.
    for path in [
        format!("/?q={evil}&show={evil}"),
        format!("/events?child={evil}&kind={evil}&from={evil}&to={evil}&q={evil}&after={evil}"),
        format!("/faults?child={evil}"),
        format!("/logs/mouth?q={evil}&level={evil}"),
        format!("/io/history?line={evil}&source={evil}&from={evil}&after={evil}"),
        format!("/system?done={evil}"),
        format!("/children/{evil}"),
        format!("/configuration/children/{evil}"),
        format!("/configuration/{evil}/x?view={evil}&of={evil}"),
        format!("/logs/{evil}"),
        format!("/faults/{evil}/{evil}"),
        format!("/{evil}"),
        format!("/log-in?to={evil}"),
    ] {
        let (status, page) = text(&admin, &path);
        assert!(status < 500 && is_harmless(&page), "{path}: {status}: {page}");
        let (status, page) = text(&Browser::new(admin.address), &path);
        assert!(status < 500 && is_harmless(&page), "{path}, of a stranger: {status}: {page}");
    }
    let fields = [
        "name", "level", "password", "old", "new", "again", "target", "seconds", "line", "value", "text", "comment",
        "version", "code", "to", "back",
    ];
    for (path, actions) in [
        ("/users", &["add", "change", "remove", EVIL][..]),
        ("/tokens", &["add", "remove", EVIL]),
        ("/system", &["notify-test", "reboot", EVIL]),
        ("/io", &["set", "hold", "release", EVIL]),
        ("/account", &["password", EVIL]),
        ("/children/mouth/snooze", &[""]),
        ("/configuration/children/mouth", &["review", "save", EVIL]),
        ("/configuration/config/mouth", &["review", "save", EVIL]),
        ("/log-in", &[""]),
    ] {
        for action in actions {
            let mut body = format!("csrf={}&action={}", admin.csrf, encoded(action));
            fields.iter().for_each(|field| body.push_str(&format!("&{field}={evil}")));
            let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "text/html")];
            let reply = admin.bytes("POST", path, &headers, body.as_bytes());
            let page = String::from_utf8(reply.body).expect("pages are UTF-8");
            assert!(reply.status < 500 && is_harmless(&page), "{path} {action}: {}: {page}", reply.status);
        }
    }
    // Names of users, tokens and lines are no texts: these are refused.
    for (path, body) in [
        ("/api/v1/users", json!({"name": EVIL, "level": 100, "password": "long enough, really"})),
        ("/api/v1/tokens", json!({"name": EVIL, "level": 100})),
    ] {
        assert_eq!(admin.send("POST", path, Some(body)).status, 422, "{path}");
    }
    assert_eq!(admin.send("POST", &format!("/api/v1/io/{evil}/set"), Some(json!({"value": 1}))).status, 404);
}

/// A basic string of TOML.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
