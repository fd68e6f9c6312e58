//! Inputs and outputs: a real multus-io on a simulated board.

use serde_json::{Value, json};

use super::http::Browser;
use super::world::World;
use super::{logged_in, up};

/// A world with a plant, and one that is up.
fn plant(world: &mut World) -> Browser {
    world.plant();
    let address = up(world);
    let admin = logged_in(address, "admin");
    world.wait("multus-io scans", || {
        let io = admin.get("/api/v1/io").json();
        (io["fresh"] == true && io["driven_by"] == "multus-io").then_some(())
    });
    admin
}

fn order(browser: &Browser, line: &str, order: &str, value: f64) -> u16 {
    let body = (order != "release").then(|| json!({ "value": value }));
    browser.send("POST", &format!("/api/v1/io/{line}/{order}"), body).status
}

fn form(browser: &Browser, fields: &[(&str, &str)]) -> super::http::Reply {
    let mut body = format!("csrf={}", browser.csrf);
    for (name, value) in fields {
        body.push_str(&format!("&{name}={value}"));
    }
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "text/html")];
    browser.bytes("POST", "/io", &headers, body.as_bytes())
}

#[test]
fn lines_are_seen_set_held_and_released_by_whom_they_may() {
    let mut world = World::new();
    let admin = plant(&mut world);
    let [operator, guest, viewer] = ["operator", "guest", "viewer"].map(|name| logged_in(admin.address, name));
    let line = |name: &str| guest.get(&format!("/api/v1/io/{name}")).json();

    let io = guest.get("/api/v1/io").json();
    assert_eq!((io["simulated"].as_bool(), io["lines"].as_array().map(Vec::len)), (Some(true), Some(8)));
    let ao = line("AO1");
    assert_eq!((ao["unit"].as_str(), ao["owner"].as_str(), &ao["safe"]), (Some("V"), Some("operator"), &json!(2.5)));
    let missing = guest.get("/api/v1/io/DO9");
    assert_eq!((missing.status, missing.header("content-type")), (404, Some("application/problem+json")));

    // Who may, and what. What was done can be seen at once.
    assert_eq!([&guest, &viewer, &operator].map(|who| order(who, "DO3", "set", 1.0)), [403, 403, 204]);
    assert_eq!((line("DO3")["value"].clone(), line("DO3")["source"].clone()), (json!(1.0), json!("requested")));
    assert_eq!([&guest, &viewer, &operator, &admin].map(|who| order(who, "DO3", "force", 0.0)), [403, 403, 403, 204]);
    let held = line("DO3");
    assert_eq!((&held["value"], &held["source"], &held["held"]), (&json!(0.0), &json!("forced"), &json!(0.0)));
    assert_eq!([&operator, &viewer, &admin].map(|who| order(who, "DO3", "release", 0.0)), [403, 403, 204]);
    assert_eq!((line("DO3")["value"].clone(), line("DO3")["held"].clone()), (json!(1.0), Value::Null));
    assert_eq!(order(&admin, "DO3", "release", 0.0), 409, "nobody holds it");
    assert_eq!(order(&operator, "DO2", "set", 0.0), 409, "a child owns it");
    assert_eq!(order(&operator, "T1", "set", 20.1), 204);
    world.wait("the nearest that the sensor can tell", || (line("T1")["value"] == 20.0).then_some(()));
    assert_eq!(order(&operator, "T1", "set", 200.0), 409, "no sensor tells that");
    assert_eq!(order(&operator, "DI1", "set", 1.0), 204);
    assert_eq!(line("DI1")["value"], 1.0);
    assert_eq!(order(&admin, "DI1", "force", 1.0), 409, "an input cannot be held");
    let wrong = operator.send("POST", "/api/v1/io/AO1/set", Some(json!({"value": 10.5})));
    assert_eq!((wrong.status, wrong.json()["errors"][0]["field"].clone()), (422, json!("value")));
    for body in [json!({}), json!({"value": "on"}), json!({"value": 1, "more": 1}), json!(1)] {
        assert_eq!(operator.send("POST", "/api/v1/io/AO1/set", Some(body)).status, 422);
    }
    assert_eq!(
        operator.bytes("POST", "/api/v1/io/AO1/set", &[("Content-Type", "application/json")], b"1e999").status,
        400
    );
    let log = world.log("control");
    assert!(log.contains("operator: Set(1.0) DO3") && log.contains("admin: Force(0.0) DO3"), "{log}");
}

#[test]
fn the_page_shows_every_line_and_asks_before_it_acts() {
    let mut world = World::new();
    let admin = plant(&mut world);
    let page = |who: &Browser, path: &str| {
        let reply = who.bytes("GET", path, &[("Accept", "text/html")], b"");
        (reply.status, String::from_utf8(reply.body).expect("text"))
    };
    let (status, text) = page(&admin, "/io");
    assert_eq!(status, 200);
    for words in
        ["NO HARDWARE", "2.500 V", "0 to 10 V", "100.000 %", "l-DI1", "T1", "Release", "until somebody releases it"]
    {
        assert_eq!(text.contains(words), words != "Release", "{words}");
    }
    let rest = ["operator", "guest", "viewer"].map(|name| page(&logged_in(admin.address, name), "/io").1);
    assert_eq!(rest.each_ref().map(|text| text.contains("value=\"set\"")), [true, false, false]);
    assert_eq!(rest.each_ref().map(|text| text.contains("value=\"hold\"")), [false, false, false]);

    // A form is answered by the page, with a word; an error, too, and nothing was done.
    let done = form(&admin, &[("line", "VALVE"), ("action", "hold"), ("value", "40")]);
    assert_eq!((done.status, done.header("location").is_some_and(|to| to.starts_with("/io?done="))), (303, true));
    let (_, text) = page(&admin, "/io");
    assert!(text.contains("Held by a person: VALVE at 40.000 %") && text.contains("Release VALVE"), "{text}");
    for (fields, status, words) in [
        (
            [("line", "VALVE"), ("action", "hold"), ("value", "140")],
            422,
            "140 is out of range for VALVE, expected 0 to 100 %",
        ),
        ([("line", "VALVE"), ("action", "hold"), ("value", "much")], 422, "expected a number"),
        ([("line", "DO2"), ("action", "set"), ("value", "1")], 409, "DO2 is owned by pump"),
        ([("line", "%3Cscript%3E"), ("action", "set"), ("value", "1")], 404, "&lt;script&gt;"),
        ([("line", "DO3"), ("action", "fly"), ("value", "1")], 422, "unknown"),
    ] {
        let reply = form(&admin, &fields);
        let text = String::from_utf8(reply.body).expect("text");
        assert_eq!(reply.status, status, "{fields:?}");
        assert!(
            text.contains(words) && text.contains("id=\"l-DO3\"") && !text.contains("<script>"),
            "{fields:?}: {text}"
        );
    }
    let forged = Browser { csrf: "x".into(), ..admin.clone() };
    assert_eq!(form(&forged, &[("line", "DO3"), ("action", "set"), ("value", "1")]).status, 403);
    let viewer = logged_in(admin.address, "viewer");
    assert_eq!(form(&viewer, &[("line", "VALVE"), ("action", "release")]).status, 403);
    assert_eq!(form(&admin, &[("line", "VALVE"), ("action", "release")]).status, 303);
}

#[test]
fn the_stream_tells_of_lines_to_those_who_want_it() {
    let mut world = World::new();
    let admin = plant(&mut world);
    let mut wants = admin.stream("/api/v1/stream?io=true");
    let first = wants.until("event: io");
    let first = first + &wants.until("\n\n");
    assert!(first.contains("\"DO3\"") && first.contains("\"fresh\":true"), "all lines come first: {first}");
    let mut other = admin.stream("/api/v1/stream");
    other.until("event: status");
    world.ctl(&["io", "set", "DI1", "on"]);
    let told = wants.until("\"name\":\"DI1\"");
    assert!(told.contains("event: io"), "{told}");
    world.tell(&multus_contract::api::command::Request::Restart { name: "idle".into() });
    let told = other.until("idle") + &other.until("event: status");
    assert!(!told.contains("event: io"), "{told}");
    assert_eq!(admin.get("/api/v1/stream?io=maybe").status, 422);
}

#[test]
fn changes_are_in_the_history_and_in_the_metrics_and_what_was_missed_is_counted() {
    let mut world = World::new();
    let admin = plant(&mut world);
    let rows = |query: &str| {
        let page = admin.get(&format!("/api/v1/history/io?oldest_first=true&{query}")).json();
        page["rows"].as_array().cloned().unwrap_or_default()
    };
    world.wait("the first look", || (rows("lines=DI1").len() == 1).then_some(()));
    world.ctl(&["io", "set", "DI1", "on"]);
    let row = world.wait("the change", || rows("lines=DI1").get(1).cloned());
    assert_eq!(
        (&row["value"], &row["previous"], &row["source"], &row["missed"]),
        (&json!("1"), &json!("0"), &json!("read"), &json!(0))
    );
    assert!(row["duration_ns"].as_u64().is_some_and(|ns| ns > 0));
    assert_eq!(order(&admin, "DO3", "force", 1.0), 204);
    world.wait("held", || rows("lines=DO3,DI1&sources=forced").first().filter(|row| row["line"] == "DO3").cloned());
    assert_eq!(admin.get("/api/v1/history/io?from=yesterday").status, 422);
    assert_eq!(admin.get("/api/v1/history/io?limit=0").status, 422);

    // While multus-control is down DI2 changes four times.
    world.tell(&multus_contract::api::command::Request::Stop { name: "control".into() });
    world.wait_state("control", "stopped");
    for value in ["on", "off", "on", "off"] {
        world.ctl(&["io", "set", "DI2", value]);
        let wanted = if value == "on" { "on" } else { "off" };
        world.wait("driven", || {
            let list = world.ctl(&["io", "list", "DI2"]);
            list.lines().last().is_some_and(|line| line.split_whitespace().any(|word| word == wanted)).then_some(())
        });
    }
    world.tell(&multus_contract::api::command::Request::Start { name: "control".into() });
    let address = world.wait("it listens again", || {
        let log = world.log("control");
        (log.matches("pages and API on http://").count() == 2).then(|| super::address(&world))
    });
    let admin = logged_in(address, "admin");
    let row = world.wait("the gap", || {
        let page = admin.get("/api/v1/history/io?lines=DI2").json();
        page["rows"].as_array()?.iter().find(|row| row["missed"].as_u64() > Some(0)).cloned()
    });
    assert_eq!((&row["value"], &row["previous"], &row["missed"]), (&json!("0"), &json!("0"), &json!(4)), "{row}");
    let reply = admin.bytes("GET", "/io/history?line=DI2", &[("Accept", "text/html")], b"");
    let text = String::from_utf8(reply.body).expect("text");
    assert!(text.contains("4 changes") && text.contains("the same"), "{text}");

    let metrics = String::from_utf8(admin.get("/metrics").body).expect("text");
    for line in [
        r#"multus_io_value{name="DO3",kind="digital-output",unit=""} 1"#,
        r#"multus_io_output_held{name="DO3"} 1"#,
        r#"multus_io_driven_by{by="multus-io"} 1"#,
        "multus_io_outputs_unsafe 0",
        "multus_io_simulated 1",
    ] {
        assert!(metrics.lines().any(|said| said == line), "{line}\n{metrics}");
    }
    assert!(metrics.contains("multus_io_scan_seconds{quantile=\"0.99\"} "));
}

#[test]
fn while_multus_io_is_away_the_page_says_that_all_outputs_are_safe() {
    let mut world = World::new();
    let admin = plant(&mut world);
    assert_eq!(order(&admin, "DO3", "set", 1.0), 204);
    world.tell(&multus_contract::api::command::Request::Stop { name: "io".into() });
    let io = world.wait("multusd has the outputs", || {
        let io = admin.get("/api/v1/io").json();
        (io["driven_by"] == "multusd").then_some(io)
    });
    let line = io["lines"].as_array().and_then(|lines| lines.iter().find(|line| line["name"] == "DO3")).expect("there");
    assert_eq!((&io["fresh"], &line["value"], &line["source"]), (&json!(false), &json!(0.0), &json!("safe")));
    let reply = admin.bytes("GET", "/io", &[("Accept", "text/html")], b"");
    let text = String::from_utf8(reply.body).expect("text");
    assert!(text.contains("multusd holds all of them at their safe values"), "{text}");
}
