//! What can be seen and done.

use multus_contract::api::command::Request;
use serde_json::{Value, json};

use super::http::Browser;
use super::world::{Small, World, skip};
use super::{ANY_PORT, AT_ONCE, address, logged_in, up, user};

#[test]
fn children_are_seen_and_ordered_about() {
    let mut world = World::new();
    let address = up(&mut world);
    world.wait_state("idle", "running");
    let admin = logged_in(address, "admin");
    let status = admin.get("/api/v1/status").json();
    assert_eq!(status["children"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["daemon"]["version"], env!("CARGO_PKG_VERSION"));
    let information = admin.get("/api/v1/information").json();
    assert_eq!(information["control_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(information["daemon"]["last_reset"]["cause"], "first-start", "{information}");
    let page = world.wait("the watchdog is petted", || {
        let page = admin.bytes("GET", "/system", &[("Accept", "text/html")], b"");
        Some(String::from_utf8(page.body).expect("text")).filter(|page| page.contains("petted"))
    });
    assert!(page.contains("Last reset of the machine") && page.contains("first-start"), "{page}");
    assert_eq!(admin.get("/api/v1/children/idle").json()["children"][0]["state"], "running");

    let order = |word: &str| admin.send("POST", &format!("/api/v1/children/idle/{word}"), None).status;
    assert_eq!(order("stop"), 204);
    world.wait_state("idle", "stopped");
    assert_eq!(order("start"), 204);
    let first = world.wait_state("idle", "running").pid;
    assert_eq!(order("restart"), 204);
    world.wait("another process", || Some(world.of("idle").pid).filter(|pid| pid.is_some() && *pid != first));
    let snooze = |body: Value| admin.send("POST", "/api/v1/children/idle/snooze", Some(body));
    assert_eq!(snooze(json!({"seconds": 60})).status, 204);
    assert!(world.of("idle").snoozed_until.is_some());
    assert_eq!(snooze(json!({"seconds": 0})).status, 204);
    assert_eq!(snooze(json!({"seconds": 86401})).status, 422);
    assert_eq!(order("disable"), 204);
    world.wait_state("idle", "disabled");
    assert_eq!(order("enable"), 204);
    world.wait_state("idle", "running");
    let reply = admin.send("PUT", "/api/v1/children/idle/instances", Some(json!({"instances": 2})));
    assert_eq!(reply.status, 200, "{reply:?}");
    world.wait_state("idle_1", "running");
    assert_eq!(admin.get("/api/v1/children/idle").json()["children"].as_array().map(Vec::len), Some(2));
    assert_eq!(admin.get("/api/v1/children/nobody").status, 404);
    assert_eq!(admin.send("POST", "/api/v1/children/nobody/stop", None).status, 404);
    assert!(matches!(admin.get("/api/v1/children/idle_0/advice").status, 409));
    assert_eq!(admin.get("/api/v1/children/control/advice").status, 200);
    assert_eq!(admin.send("POST", "/api/v1/reload", None).status, 200);
    assert_eq!(admin.send("DELETE", "/api/v1/reboot", None).status, 409, "none is scheduled");
}

/// However large it is: it is never in memory as a whole.
#[test]
fn events_are_exported_bit_by_bit_by_the_page_as_by_the_api() {
    let mut world = World::new();
    let address = up(&mut world);
    let guest = logged_in(address, "guest");
    world.wait("an event is stored", || {
        let reply = guest.get("/api/v1/history?kinds=daemon-started");
        (reply.status == 200 && !reply.json()["rows"].as_array()?.is_empty()).then_some(())
    });
    for path in ["/api/v1/history/export", "/events/export?kind=daemon-started", "/events/export?format=csv"] {
        let mut raw = guest.stream(path);
        let text = raw.until("daemon-started");
        raw.hangs_up();
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{path}: {head}");
        let name = if path.ends_with("csv") { "events.csv" } else { "events.jsonl" };
        assert!(head.contains(&format!("attachment; filename=\"{name}\"")), "{path}: {head}");
    }
}

#[test]
fn the_machine_is_started_anew_when_it_is_asked_for_and_not_called_off() {
    let mut world = World::new();
    let address = up(&mut world);
    let (admin, operator) = (logged_in(address, "admin"), logged_in(address, "operator"));
    let reboot =
        |who: &Browser, seconds: u64| who.send("POST", "/api/v1/reboot", Some(json!({ "seconds": seconds }))).status;
    let scheduled = || {
        let notes = admin.get("/api/v1/status").json()["daemon"]["notes"].clone();
        notes.as_array().is_some_and(|notes| notes.iter().any(|note| note.to_string().contains("started anew in")))
    };
    assert_eq!((reboot(&operator, 300), reboot(&admin, 86_401)), (403, 422));
    assert_eq!(reboot(&admin, 300), 204);
    world.wait("it is told", || scheduled().then_some(()));
    assert_eq!(operator.send("DELETE", "/api/v1/reboot", None).status, 403);
    assert_eq!(admin.send("DELETE", "/api/v1/reboot", None).status, 204);
    world.wait("it is called off", || (!scheduled()).then_some(()));
    assert_eq!(admin.send("DELETE", "/api/v1/reboot", None).status, 409);
    assert!(!world.was_rebooted());
    assert_eq!(reboot(&admin, 0), 204);
    assert!(world.wait_end().success() && world.was_rebooted());
}

#[test]
fn the_lan_is_shown_and_its_change_confirmed_where_there_is_one() {
    super::world::build("multus-lan");
    let mut world = World::new();
    // Without an interface it changes nothing, but tells so.
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address").port()
    };
    world.child("net", "command = [\"multus-lan\"]\n[heartbeat]\ndeadline = \"10s\"\n");
    let mut port = free();
    world.parameters("net", &format!("port = {port}\n"));
    let address = up(&mut world);
    // Somebody else may have been faster: then another one.
    while !world.wait("it listens, or cannot", || {
        let log = world.log("net");
        let listens = log.contains(&format!("listening on 127.0.0.1:{port}\n"));
        (listens || log.contains(&format!("gRPC on 127.0.0.1:{port}: "))).then_some(listens)
    }) {
        port = free();
        world.parameters("net", &format!("port = {port}\n"));
        world.tell(&Request::Restart { name: "net".into() });
    }
    world.wait_state("net", "running");
    let operator = logged_in(address, "operator");
    let shown = || operator.get("/api/v1/children/net/lan").json();
    let lan = world.wait("it answers", || Some(shown()).filter(|lan| lan["state"] != "silent"));
    assert_eq!((&lan["state"], &lan["interface"]), (&json!("idle"), &json!("")), "{lan}");
    let page = operator.bytes("GET", "/children/net", &[("Accept", "text/html")], b"");
    let page = String::from_utf8(page.body).expect("text");
    assert!(page.contains("no interface is configured") && !page.contains("Let the change stand"), "{page}");
    let refused = operator.send("POST", "/api/v1/children/net/lan/confirm", None);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.body).contains("nothing waits for a confirmation"), "{refused:?}");
    let guest = logged_in(address, "guest");
    assert_eq!(guest.send("POST", "/api/v1/children/net/lan/confirm", None).status, 403);
    assert_eq!(guest.get("/api/v1/children/net/lan").status, 200);
    for other in ["/api/v1/children/idle/lan", "/api/v1/children/nobody/lan"] {
        assert_eq!(guest.get(other).status, 404, "{other}");
    }
    assert_eq!(operator.send("POST", "/api/v1/children/idle/lan/confirm", None).status, 409);
    // Its place on the page stays while it does not answer.
    world.tell(&Request::Stop { name: "net".into() });
    world.wait("nobody answers", || Some(shown()).filter(|lan| lan["state"] == "silent"));
    let page = operator.bytes("GET", "/children/net", &[("Accept", "text/html")], b"");
    assert!(String::from_utf8_lossy(&page.body).contains("net does not answer"));
}

#[test]
fn a_full_disk_is_told_and_leaves_the_file_whole() {
    let mut world = World::new();
    let small = match Small::mount(&world.dirs().config, "512k") {
        Ok(small) => small,
        Err(why) => return skip("a_full_disk_is_told_and_leaves_the_file_whole", &format!("no mount: {why}")),
    };
    for dir in [world.dirs().children_dir(), world.dirs().config.join("config")] {
        std::fs::create_dir_all(dir).expect("room");
    }
    let address = up(&mut world);
    world.wait_state("idle", "running");
    let admin = logged_in(address, "admin");
    let path = "/api/v1/documents/children/idle";
    let before = admin.get(path).json();
    let filler = small.fill();
    // More than what may be left of the last page.
    let text = format!("description = \"new\"\n{}{}", super::IDLE, "# comment\n".repeat(2000));
    let save = || admin.send("PUT", path, Some(json!({ "text": text, "version": before["version"] })));
    let full = save();
    assert!(full.status == 500 && full.json()["detail"].to_string().contains("No space left"), "{full:?}");
    let page = admin.bytes("GET", "/configuration/children/idle", &[("Accept", "text/html")], b"");
    assert_eq!(page.status, 200, "pages work");
    let now = admin.get(path).json();
    assert_eq!((&now["version"], &now["etag"], &now["text"]), (&before["version"], &before["etag"], &before["text"]));
    assert_eq!(std::fs::read_to_string(world.dirs().child_file("idle")).expect("readable"), super::IDLE);
    std::fs::remove_file(filler).expect("own file");
    let saved = save();
    assert_eq!(saved.status, 200, "{saved:?}");
    assert_eq!(std::fs::read_to_string(world.dirs().child_file("idle")).expect("readable"), text);
}

#[test]
fn configurations_are_saved_by_version_and_taken_back() {
    let mut world = World::new();
    let address = up(&mut world);
    world.wait_state("idle", "running");
    let admin = logged_in(address, "admin");
    let path = "/api/v1/documents/children/idle";
    let reply = admin.get(path);
    let document = reply.json();
    let version = document["version"].as_u64().expect("a version");
    assert_eq!(reply.header("etag"), Some(format!("\"{version}\"").as_str()));
    assert!(document["schema"].is_object());

    let edit = json!({"changes": [{"path": ["description"], "value": "does nothing"}]});
    let text =
        admin.send("POST", &format!("{path}/edit"), Some(edit)).json()["text"].as_str().expect("a text").to_owned();
    assert!(text.contains("description = \"does nothing\""), "{text}");
    let check = |text: &str| admin.send("POST", &format!("{path}/validate"), Some(json!({"text": text}))).json();
    assert_eq!(check(&text)["valid"], true);
    let bad = check("command = [\"/bin/sleep\", \"1\"]\n[heartbeat]\nmethot = \"none\"\n");
    assert_eq!((bad["valid"].as_bool(), bad["errors"][0]["line"].as_u64()), (Some(false), Some(3)), "{bad}");
    assert_eq!(bad["errors"][0]["nearest"], "method", "{bad}");

    let save = |headers: &[(&str, &str)], body: Value| {
        let headers: Vec<_> = headers.iter().copied().chain([("Content-Type", "application/json")]).collect();
        admin.bytes("PUT", path, &headers, body.to_string().as_bytes())
    };
    assert_eq!(save(&[], json!({"text": text})).status, 422, "no version");
    let saved = save(&[], json!({"text": text, "version": version, "comment": "a word"}));
    assert_eq!(saved.status, 200, "{saved:?}");
    let newer = saved.json()["version"].as_u64().expect("a version");
    assert!(newer > version);
    let late = save(&[], json!({"text": text, "version": version}));
    assert_eq!((late.status, late.json()["current_version"].as_u64()), (409, Some(newer)));
    let tag = format!("\"{version}\"");
    assert_eq!(save(&[("If-Match", &tag)], json!({"text": text})).status, 409);
    assert_eq!(save(&[("If-Match", "\"x\"")], json!({"text": text})).status, 412);
    assert_eq!(save(&[("If-Match", &tag)], json!({"text": text, "version": newer})).status, 422);
    let invalid = save(&[], json!({"text": format!("colour = 3\n{text}"), "version": newer}));
    assert_eq!((invalid.status, invalid.json()["errors"][0]["field"].as_str()), (422, Some("colour")), "{invalid:?}");
    assert_eq!(invalid.header("content-type"), Some("application/problem+json"));

    let history = admin.get(&format!("{path}/history")).json();
    assert_eq!(history["versions"][0]["comment"], "a word");
    assert_eq!(history["versions"][0]["who"], "admin");
    assert!(admin.get(&format!("{path}/history/{newer}")).json()["text"].as_str().is_some_and(|old| old == text));
    assert_eq!(admin.get(&format!("{path}/history/9999")).status, 404);
    assert_eq!(admin.get(&format!("{path}/history/x")).status, 404);
    let back = admin.send("POST", &format!("{path}/rollback"), Some(json!({"to": version, "version": newer})));
    assert_eq!(back.status, 200, "{back:?}");
    assert!(!admin.get(path).json()["text"].as_str().expect("a text").contains("does nothing"));
    world.wait("the change is applied", || {
        let changes = admin.get("/api/v1/changes").json();
        changes["changes"].as_array()?.iter().find(|change| change["document"] == "children/idle").cloned()
    });
    let guest = logged_in(address, "guest");
    let latest = admin.get(path).json()["version"].as_u64();
    let body = json!({"text": text, "version": latest}).to_string();
    assert_eq!(guest.bytes("PUT", path, &[("Content-Type", "application/json")], body.as_bytes()).status, 403);
    for unknown in ["/api/v1/documents/children/", "/api/v1/documents/daemon/x", "/api/v1/documents/x/y"] {
        assert_eq!(admin.get(unknown).status, 404, "{unknown}");
    }
    assert_eq!(admin.get("/api/v1/documents/daemon/multusd").status, 200);
}

#[test]
fn events_logs_and_live_values_are_told() {
    let mut world = World::new();
    let address = up(&mut world);
    world.wait_state("idle", "running");
    let admin = logged_in(address, "admin");
    let events = world.wait("events", || {
        let events = admin.get("/api/v1/events?child=idle&kind=ready").json()["events"].as_array()?.clone();
        (!events.is_empty()).then_some(events)
    });
    assert!(events.iter().all(|event| event["kind"] == "ready" && event["child"] == "idle"));
    assert_eq!(admin.get("/api/v1/events?limit=x").status, 422);

    let mut live = admin.stream("/api/v1/stream");
    let begin = live.until("event: status");
    assert!(begin.contains("content-type: text/event-stream"), "{begin}");
    let mut quiet = admin.stream("/api/v1/stream?status=false");
    live.until("event: status");
    assert_eq!(admin.send("POST", "/api/v1/children/idle/restart", None).status, 204);
    let text = live.until("event: event");
    let told = quiet.until("event: event");
    assert!(!told.contains("event: status"), "{told}");
    let seq = events[0]["seq"].as_u64().expect("a number");
    drop(live);
    let again = Browser { headers: vec![("Last-Event-ID".into(), (seq - 1).to_string())], ..admin.clone() };
    let mut missed = again.stream("/api/v1/stream");
    assert!(missed.until(&format!("id: {seq}\n")).contains("event: event"), "{text}");

    let names: Vec<String> = admin.get("/api/v1/logs").json()["logs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|log| log["name"].as_str().expect("a name").to_owned())
        .collect();
    assert!(names.contains(&"multusd".to_owned()) && names.contains(&"control".to_owned()), "{names:?}");
    let lines = admin.get("/api/v1/logs/control?lines=1000").json();
    let lines = lines["lines"].as_array().expect("a list");
    assert!(lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains("pages and API on"))));
    assert!(!admin.get("/api/v1/logs/multusd").json()["lines"].as_array().expect("a list").is_empty());
    let found = admin.get("/api/v1/logs/control/search?words=PAGES+and").json();
    assert_eq!(found["found"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(admin.get("/api/v1/logs/control/search").status, 422, "what to look for?");
    let file = admin.get("/api/v1/logs/control/download");
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"control.log\""));
    assert!(String::from_utf8_lossy(&file.body).contains("pages and API on"));
    let mut follow = admin.stream("/api/v1/logs/control/stream?lines=5000");
    follow.until("pages and API on");
    logged_in(address, "guest");
    assert!(follow.until("guest logged in").contains("event: lines"));
    for path in [
        "/api/v1/logs/nobody",
        "/api/v1/logs/nobody/download",
        "/api/v1/logs/nobody/stream",
        "/api/v1/faults/idle/latest",
    ] {
        assert_eq!(admin.get(path).status, 404, "{path}");
    }
    assert_eq!(admin.get("/api/v1/faults").json(), json!({"faults": []}));
}

#[test]
fn metrics_and_history_are_for_those_who_may_look() {
    let mut world = World::new();
    let address = up(&mut world);
    let stranger = Browser::new(address);
    assert_eq!((stranger.get("/metrics").status, stranger.get("/api/v1/history").status), (401, 401));
    let program = Browser::with_token(address, &world.token("prometheus", 100));
    let metrics = program.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(String::from_utf8_lossy(&metrics.body).contains("# TYPE multus"), "{metrics:?}");
    // Until its tables are there it says "try again".
    let history = world.wait("the history is open", || {
        Some(program.get("/api/v1/history?children=idle&limit=5")).filter(|reply| reply.status != 503)
    });
    assert!(matches!(history.status, 200 | 409), "{history:?}");
    assert_eq!(program.get("/api/v1/history?limit=0").status, 422);
    assert_eq!(program.get("/api/v1/history?from=yesterday").status, 422);
    assert_eq!(program.get("/api/v1/notifications").status, 200);
    assert_eq!(program.send("POST", "/api/v1/notifications/x/test", None).status, 403);
}

#[test]
fn bodies_that_are_not_what_is_expected_are_told_apart() {
    let mut world = World::new();
    let address = up(&mut world);
    let admin = logged_in(address, "admin");
    let post = |media_type: &str, body: &[u8]| {
        admin.bytes("POST", "/api/v1/children/idle/snooze", &[("Content-Type", media_type)], body)
    };
    for (media_type, body, status) in [
        ("application/json", &b"{\"seconds\": 0}"[..], 204),
        ("application/json; charset=utf-8", b"{\"seconds\": 0}", 204),
        ("text/plain", b"{\"seconds\": 0}", 415),
        ("application/x-www-form-urlencoded", b"seconds=0", 415),
        ("", b"{\"seconds\": 0}", 415),
        ("application/json", b"", 400),
        ("application/json", b"{", 400),
        ("application/json", b"{\"seconds\": 0} x", 400),
        ("application/json", b"{\"seconds\": \xff}", 400),
        ("application/json", b"[]", 422),
        ("application/json", b"{}", 422),
        ("application/json", b"{\"seconds\": \"0\"}", 422),
        ("application/json", b"{\"seconds\": -1}", 422),
        ("application/json", b"{\"seconds\": 1e400}", 400),
        ("application/json", b"{\"seconds\": 0, \"more\": 1}", 422),
    ] {
        let reply = post(media_type, body);
        assert_eq!(reply.status, status, "{media_type} {}: {reply:?}", String::from_utf8_lossy(body));
        if status != 204 {
            assert_eq!(reply.header("content-type"), Some("application/problem+json"));
            assert_eq!(reply.json()["status"], status);
        }
    }
    assert_eq!(post("application/json", b"{\"seconds\": \"0\"}").json()["errors"][0]["field"], "seconds");
    let deep = format!("{{\"seconds\": {}", "[".repeat(10_000));
    assert_eq!(post("application/json", deep.as_bytes()).status / 100, 4);
}

#[test]
fn nothing_that_is_sent_makes_it_fail() {
    let mut world = World::new();
    let address = up(&mut world);
    let admin = logged_in(address, "admin");
    let document = Browser::new(address).get("/api/v1/openapi.json").json();
    let odd = [
        "..",
        "%2e%2e",
        "%00",
        "%ff",
        "a%2Fb",
        "\u{1f}",
        "-1",
        "idle",
        "config",
        "%F0%9F%92%A7",
        "'\"<>",
        "x".repeat(300).leak(),
    ];
    let bodies: [&[u8]; 6] =
        [b"", b"null", b"{}", b"\xff\xfe", b"{\"text\":\"\\u0000\",\"version\":18446744073709551615}", b"[[[["];
    let mut asked = 0;
    for (template, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            // These end our session or the machine.
            if template.ends_with("/reboot") || (template.ends_with("/session") && method == "delete") {
                continue;
            }
            let is_stream = template.ends_with("/stream");
            for part in odd {
                let path = template
                    .split('/')
                    .map(|one| if one.starts_with('{') { part } else { one })
                    .collect::<Vec<_>>()
                    .join("/");
                let path = path.replace(['\u{1f}', ' '], "%1f");
                for body in bodies {
                    if is_stream && !path.contains("/logs/") {
                        continue;
                    }
                    let query = if asked % 3 == 0 { "?limit=-1&since=%ff&words=%00&lines=999999999999" } else { "" };
                    let mut raw = super::http::Raw::connect(address);
                    let head = admin.head(&method.to_uppercase(), &format!("{path}{query}"));
                    let head =
                        format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
                    raw.write([head.as_bytes(), body].concat()).expect("connected");
                    let status = raw.reply().expect("an answer").status;
                    assert!(status < 500, "{method} {path}{query}: {status}");
                    asked += 1;
                    if !template.contains('{') && body.is_empty() {
                        break;
                    }
                }
            }
        }
    }
    assert!(asked > 500, "{asked}");
    assert_eq!(admin.get("/api/v1/status").status, 200);
}

#[test]
fn an_old_report_tells_its_story_although_its_events_are_gone() {
    use multus_contract::api::event::Event;
    use multus_contract::api::report;

    let mut world = World::new();
    let address = up(&mut world);
    let event =
        Event { last_beat_ns: Some(1), detected_ns: Some(50_000_001), safe_ns: Some(50_004_001), ..Event::default() };
    let cause = "no beat for 50.000 ms of 50.000 ms";
    let text = report::summary(Some(("hang", cause)), 1_700_000_000_000_000_000)
        + &report::time_line(&event, 50_000_001)
        + report::BODY
        + "threads\n";
    let dir = world.dirs().state.join("faults/idle");
    std::fs::create_dir_all(&dir).expect("own directory");
    std::fs::write(dir.join("1700000000000000.txt"), text).expect("own file");
    let admin = logged_in(address, "admin");
    let list = String::from_utf8(admin.get("/faults").body).expect("text");
    assert!(list.contains("hang") && list.contains(cause), "{list}");
    let page = String::from_utf8(admin.get("/faults/idle/1700000000000000").body).expect("text");
    assert!(page.contains("What happened when") && page.contains("last beat") && page.contains("safe"), "{page}");
    assert!(page.contains(cause), "{page}");
}

#[test]
fn broken_utf_8_in_bodies_is_told_and_changes_nothing() {
    let mut world = World::new();
    let address = up(&mut world);
    let admin = logged_in(address, "admin");
    let document: Value = admin.get("/api/v1/openapi.json").json();
    let mut tried = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            if operation["requestBody"].is_null() {
                continue;
            }
            let path = path.replace("{name}", "idle").replace("{kind}", "children").replace("{id}", "1");
            for body in [&b"{\"value\": \"\xff\xfe\"}"[..], b"\xc3", b"{\"\xed\xa0\x80\": 1}", b"\xf8\x88\x80\x80\x80"]
            {
                let reply = admin.bytes(&method.to_uppercase(), &path, &[("Content-Type", "application/json")], body);
                assert_eq!(reply.status, 400, "{method} {path}: {reply:?}");
                assert!(reply.json()["detail"].as_str().is_some_and(|said| said.contains("UTF-8")), "{reply:?}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 60, "{tried}");
    for path in
        ["/log-in", "/users", "/tokens", "/system", "/io", "/account", "/configuration/children/idle", "/set-up"]
    {
        for broken in ["action=%ff", "name=%c3&action=add", "%ed%a0%80=1"] {
            let body = format!("csrf={}&{broken}", admin.csrf);
            let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "text/html")];
            assert_eq!(admin.bytes("POST", path, &headers, body.as_bytes()).status, 400, "{path} {broken}");
            let body = [format!("csrf={}&text=", admin.csrf).as_bytes(), b"\xff\xfe"].concat();
            assert_eq!(admin.bytes("POST", path, &headers, &body).status, 400, "{path}, raw");
        }
    }
    assert_eq!(admin.get("/api/v1/users").json()["users"].as_array().map(Vec::len), Some(4));
}

#[test]
fn a_change_that_makes_a_child_ill_is_taken_back_by_itself() {
    let mut world = World::new();
    user(&world, "admin", 10, false);
    let program = world.script("panel", "#!/bin/sh\ngrep -q crash \"$MULTUS_CONFIG\" && exit 3\nexec sleep 100000\n");
    world.child(
        "panel",
        &format!("command = [{program:?}]\n[heartbeat]\nmethod = \"none\"\n[restart]\ndelays = [\"0s\", \"1h\"]\n"),
    );
    world.parameters("panel", "mode = \"good\"\n");
    world.control(&format!("{ANY_PORT}{AT_ONCE}auto_roll_back = true\n"));
    world.start();
    let admin = logged_in(address(&world), "admin");
    world.wait_state("panel", "running");
    let path = "/api/v1/documents/config/panel";
    let version = admin.get(path).json()["version"].as_u64().expect("a version");
    let save = json!({"text": "mode = \"crash\"\n", "version": version, "comment": "bold"});
    assert_eq!(admin.send("PUT", path, Some(save)).status, 200);
    let change = world.wait("it is taken back", || {
        let changes = admin.get("/api/v1/changes").json();
        changes["changes"].as_array()?.iter().find(|change| change["state"] == "reverted").cloned()
    });
    assert_eq!(change["document"], "config/panel");
    let text = std::fs::read_to_string(world.dirs().parameter_file("panel")).expect("own file");
    assert_eq!(text, "mode = \"good\"\n");
    world.wait_state("panel", "running");
    // The page says so, and the versions tell who did it.
    let page =
        |path: &str| String::from_utf8(admin.bytes("GET", path, &[("Accept", "text/html")], b"").body).expect("text");
    let pending = page("/configuration/config/panel");
    assert!(pending.contains("Reverted"), "{pending}");
    let history = admin.get(&format!("{path}/history")).json();
    assert_eq!(
        (&history["versions"][0]["who"], &history["versions"][1]["comment"]),
        (&json!("multus-control"), &json!("bold"))
    );
}

#[test]
fn a_lower_level_of_a_token_counts_from_the_next_call_on() {
    let mut world = World::new();
    let (begun, go) = (world.path("begun"), world.path("go"));
    let slow = world.script(
        "slow",
        &format!("#!/bin/sh\ncat > /dev/null\n: > {begun:?}\nwhile [ ! -e {go:?} ]; do sleep 0.02; done\n"),
    );
    world.child("idle", super::IDLE);
    user(&world, "admin", 10, false);
    world.control(&format!("{ANY_PORT}{AT_ONCE}[notify.targets.slow]\ncommand = [{slow:?}]\n"));
    let token = world.token("scada", 10);
    world.start();
    let program = Browser::with_token(address(&world), &token);
    world.wait_state("idle", "running");
    let mut stream = program.stream("/api/v1/stream");
    stream.until("event: status");
    let call = {
        let program = program.clone();
        std::thread::spawn(move || program.send("POST", "/api/v1/notifications/slow/test", None).status)
    };
    world.wait("the call is under way", || begun.exists().then_some(()));
    let file = world.dirs().config.join("tokens.toml");
    let tokens = std::fs::read_to_string(&file).expect("it was made");
    assert!(tokens.contains("level = 10"), "{tokens}");
    let new = world.path("tokens.toml");
    std::fs::write(&new, tokens.replace("level = 10", "level = 100")).expect("own file");
    std::fs::set_permissions(&new, std::fs::metadata(&file).expect("there").permissions()).expect("own file");
    std::fs::rename(&new, &file).expect("own file");
    // From the very next call on, while the one before still works.
    let order = || program.send("POST", "/api/v1/children/idle/restart", None).status;
    assert_eq!((order(), program.get("/api/v1/users").status, program.get("/api/v1/status").status), (403, 403, 200));
    assert!(!call.is_finished());
    std::fs::write(&go, "").expect("own file");
    assert_eq!(call.join().expect("no panic"), 200, "what was allowed when it began goes on");
    assert_eq!(program.send("POST", "/api/v1/notifications/slow/test", None).status, 403);
    // A stream that began with other rights ends; who may look begins anew.
    stream.until("event: end");
    program.stream("/api/v1/stream").until("event: status");
}
