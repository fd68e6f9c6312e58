//! Configurations: versions, checks, secrets, rights, and what becomes of a change.

use std::fs;

use multus_proto::v1::configuration_service_client::ConfigurationServiceClient;
use multus_proto::v1::*;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::world::{PAUSE, World};
use super::{ANY_PORT, AT_ONCE, IDLE, local, plain, started, with_token};

/// A child with parameters: it knows its schema, checks a file, and ends at once when its file says "crash".
const PUMP: &str = r#"#!/bin/sh
case "$1" in
--print-schema)
    cat <<'END'
{ "type": "object", "additionalProperties": false, "properties": {
  "name": { "type": "string" },
  "speed": { "type": "integer", "x-edit-level": 100 },
  "pin": { "type": "integer", "x-display-level": 10 },
  "password": { "type": "string", "writeOnly": true },
  "servers": { "type": "array", "items": { "type": "object", "properties": {
    "host": { "type": "string" }, "token": { "type": "string", "format": "password" } } } } } }
END
    ;;
--check-config)
    line=$(grep -n nonsense "$2" | head -1 | cut -d: -f1)
    if [ -n "$line" ]; then
        echo "$2:$line: nonsense: unknown key; did you mean \"name\"?" >&2
        exit 1
    fi
    ;;
*)
    grep -q crash "$MULTUS_CONFIG" && exit 3
    exec sleep 100000
    ;;
esac
"#;

fn pump(world: &World) {
    let program = world.script("pump", PUMP);
    let text = format!(
        "command = [{program:?}]\n[heartbeat]\nmethod = \"none\"\n[restart]\ndelays = [\"0s\", \"1s\"]\n[stop]\ntimeout = \"1s\"\n"
    );
    world.child("pump", &text);
}

type Client = ConfigurationServiceClient<Channel>;

async fn get(client: &mut Client, document: &str) -> GetDocumentResponse {
    client.get(GetDocumentRequest { document: document.into() }).await.expect("it is there").into_inner()
}

fn save(document: &str, text: &str, expected_version: u64) -> SaveRequest {
    SaveRequest { document: document.into(), text: text.into(), expected_version, comment: "because".into() }
}

/// Waits until the change of a document is no longer under way.
async fn result(client: &mut Client, document: &str) -> PendingChange {
    loop {
        let changes = client.pending(PendingRequest {}).await.expect("told").into_inner().changes;
        let change = changes.into_iter().find(|change| change.document == document).expect("there was a change");
        if !matches!(change.state(), PendingState::Waiting | PendingState::Applying) {
            return change;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn a_change_is_versioned_applied_and_can_be_rolled_back() {
    let mut world = World::new();
    world.control(&format!("{ANY_PORT}{AT_ONCE}"));
    pump(&world);
    world.parameters("pump", "name = \"one\" # a comment\n");
    started(&mut world);
    let mut client = Client::new(local(&world).await);
    let first = get(&mut client, "config/pump").await;
    assert_eq!((first.version, first.text.as_str()), (1, "name = \"one\" # a comment\n"));
    assert!(first.schema_json.contains("x-edit-level"));

    let pid = world.wait_state("pump", "running").pid;
    let saved = client.save(save("config/pump", "name = \"two\"\n", 1)).await.expect("good").into_inner();
    assert_eq!((saved.version, saved.pending.map(|pending| pending.previous)), (2, Some(1)));
    let stale = client.save(save("config/pump", "name = \"three\"\n", 1)).await.expect_err("somebody was faster");
    assert_eq!(stale.code(), Code::Aborted);
    let info = stale.get_details_error_info().expect("details");
    assert_eq!(info.metadata.get("current_version").map(String::as_str), Some("2"));
    let done = result(&mut client, "config/pump").await;
    assert_eq!((done.state(), done.version), (PendingState::Healthy, 2), "{}", done.message);
    assert_ne!(world.of("pump").pid, pid, "the child was restarted");

    // A change by hand is noticed: it is a version, too, and nobody overwrites it unseen.
    world.parameters("pump", "name = \"by hand\"\n");
    let blind = client.save(save("config/pump", "name = \"four\"\n", 2)).await.expect_err("changed by hand");
    assert_eq!(blind.code(), Code::Aborted);
    assert_eq!(get(&mut client, "config/pump").await.version, 3);

    let back = RollBackRequest { document: "config/pump".into(), version: 1, expected_version: 3 };
    assert_eq!(client.roll_back(back).await.expect("kept").into_inner().version, 4);
    assert_eq!(fs::read_to_string(world.dirs().parameter_file("pump")).expect("readable"), first.text);
    let history = client.history(HistoryRequest { document: "config/pump".into() }).await.expect("told").into_inner();
    let told: Vec<_> = history.versions.iter().map(|v| (v.version, v.who.is_empty(), v.comment.as_str())).collect();
    let expected =
        [(4, false, "as version 1"), (3, true, "changed by hand"), (2, false, "because"), (1, true, "found")];
    assert_eq!(told, expected);
    let old = GetVersionRequest { document: "config/pump".into(), version: 2 };
    assert_eq!(client.get_version(old).await.expect("kept").into_inner().text, "name = \"two\"\n");
    assert_eq!(result(&mut client, "config/pump").await.state(), PendingState::Healthy);
}

#[tokio::test]
async fn a_change_that_breaks_the_child_is_told_and_taken_back() {
    let mut world = World::new();
    world.control(&format!("{ANY_PORT}{AT_ONCE}"));
    pump(&world);
    world.parameters("pump", "name = \"fine\"\n");
    started(&mut world);
    world.wait_state("pump", "running");
    let mut client = Client::new(local(&world).await);
    assert_eq!(get(&mut client, "config/pump").await.version, 1);
    client.save(save("config/pump", "name = \"crash\"\n", 1)).await.expect("nothing is wrong with the text");
    let bad = result(&mut client, "config/pump").await;
    assert_eq!((bad.state(), bad.previous), (PendingState::Unhealthy, 1), "{}", bad.message);
    assert!(bad.message.contains("pump failed"), "{}", bad.message);

    client.revert(RevertRequest { document: "config/pump".into() }).await.expect("there is a version before");
    world.wait("the child runs for good", || {
        let now = world.of("pump");
        let file = fs::read_to_string(world.dirs().parameter_file("pump")).ok()?;
        (now.state == "running" && file == "name = \"fine\"\n").then_some(())
    });
    let end = result(&mut client, "config/pump").await;
    assert_eq!((end.state(), end.version), (PendingState::Reverted, 3));
    let again = client.revert(RevertRequest { document: "config/pump".into() }).await.expect_err("only once");
    assert_eq!(again.code(), Code::NotFound);
}

#[tokio::test]
async fn by_configuration_a_bad_change_is_taken_back_by_itself() {
    let mut world = World::new();
    world.control(&format!("{ANY_PORT}{AT_ONCE}auto_roll_back = true\n"));
    pump(&world);
    started(&mut world);
    world.wait_state("pump", "running");
    let mut client = Client::new(local(&world).await);
    assert_eq!(get(&mut client, "config/pump").await.version, 0, "there is no file yet");
    client.save(save("config/pump", "name = \"crash\"\n", 0)).await.expect("nothing is wrong with the text");
    let end = loop {
        let change = result(&mut client, "config/pump").await;
        if change.state() == PendingState::Reverted {
            break change;
        }
        tokio::time::sleep(PAUSE).await;
    };
    assert!(end.message.contains("version 1 taken back"), "{}", end.message);
    assert!(!world.dirs().parameter_file("pump").exists(), "as it was before");
    world.wait_state("pump", "running");
}

#[tokio::test]
async fn a_change_waits_and_can_be_taken_back_or_applied_before_its_time() {
    let mut world = World::new();
    world.control(&format!("{ANY_PORT}[configuration]\nsettle = \"1h\"\n"));
    world.child("idle", IDLE);
    started(&mut world);
    let before = world.wait_state("idle", "running");
    let mut client = Client::new(local(&world).await);
    let name = || "children/idle".to_owned();
    assert_eq!(get(&mut client, &name()).await.version, 1);
    let changed = format!("description = \"changed\"\n{IDLE}");
    let saved = client.save(save(&name(), &changed, 1)).await.expect("good").into_inner();
    let pending = saved.pending.expect("it waits");
    assert_eq!(pending.state(), PendingState::Waiting);
    assert!(pending.applies_in_ms > 3_000_000 && pending.applies_at.is_some());
    let more = changed.replace("changed", "more");
    client.save(save(&name(), &more, 2)).await.expect("good");
    client.revert(RevertRequest { document: name() }).await.expect("it waits");
    assert_eq!(fs::read_to_string(world.dirs().child_file("idle")).expect("readable"), IDLE, "both saves");
    assert_eq!(world.of("idle").description, "");

    client.save(save(&name(), &changed, 4)).await.expect("good");
    client.apply_now(ApplyNowRequest { document: name() }).await.expect("it waits");
    let done = result(&mut client, &name()).await;
    assert_eq!(done.state(), PendingState::Healthy, "{}", done.message);
    assert_eq!(world.of("idle").description, "changed");
    assert_eq!(world.of("idle").pid.is_some(), before.pid.is_some());
    let nothing = client.apply_now(ApplyNowRequest { document: name() }).await.expect_err("nothing waits");
    assert_eq!(nothing.code(), Code::NotFound);
}

#[tokio::test]
async fn mistakes_are_told_with_their_place_and_nothing_is_written() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    pump(&world);
    started(&mut world);
    let mut client = Client::new(local(&world).await);
    let place = |problem: &Problem| (problem.line, problem.column, problem.key.clone(), problem.nearest.clone());
    let validate = async |client: &mut Client, document: &str, text: &str| {
        let request = ValidateRequest { document: document.into(), text: text.into() };
        client.validate(request).await.expect("judged").into_inner().problems
    };
    let wrong = format!("{IDLE}dedline = \"1s\"\n");
    let found = validate(&mut client, "children/idle", &wrong).await;
    assert_eq!(found.iter().map(place).collect::<Vec<_>>(), [(4, 1, "heartbeat.dedline".into(), "deadline".into())]);
    let found = validate(&mut client, "config/pump", "# x\n  nonsense = 1\n").await;
    assert_eq!(found.iter().map(place).collect::<Vec<_>>(), [(2, 3, "nonsense".into(), "name".into())]);
    let found = validate(&mut client, "config/pump", "name = \n").await;
    assert_eq!(found.iter().map(|problem| problem.line).collect::<Vec<_>>(), [1]);
    let found = validate(&mut client, "multusd", "[realtime]\npriority = 200\n").await;
    assert_eq!(found.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), ["realtime.priority"]);
    let circle = format!("after = [\"pump\"]\n{IDLE}");
    assert!(validate(&mut client, "children/idle", &circle).await.is_empty());
    let unknown = format!("after = [\"pmup\"]\n{IDLE}");
    assert_eq!(validate(&mut client, "children/idle", &unknown).await[0].nearest, "pump");

    let version = get(&mut client, "children/idle").await.version;
    let status = client.save(save("children/idle", &wrong, version)).await.expect_err("it has a mistake");
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_details_bad_request().expect("details");
    assert_eq!(details.field_violations[0].field, "heartbeat.dedline");
    assert!(details.field_violations[0].description.contains("line 4"), "{details:?}");
    assert_eq!(fs::read_to_string(world.dirs().child_file("idle")).expect("readable"), IDLE);
    for document in ["", "users", "config/../users", "children/", "config/nobody"] {
        let refused = client.get(GetDocumentRequest { document: document.into() }).await.expect_err(document);
        assert!(matches!(refused.code(), Code::InvalidArgument | Code::NotFound), "{document}: {refused}");
    }
    let long = save("children/idle", &"#".repeat(600 * 1024), version);
    assert_eq!(client.save(long).await.expect_err("too long").code(), Code::InvalidArgument);
    let longer = save("children/idle", &"#".repeat(2 << 20), version);
    assert_eq!(client.save(longer).await.expect_err("too long").code(), Code::OutOfRange);
}

#[tokio::test]
async fn secrets_stay_here_and_each_parameter_has_its_own_rights() {
    let mut world = World::new();
    world.control(&format!("{ANY_PORT}[configuration]\nsettle = \"1h\"\n"));
    pump(&world);
    let file =
        "name = \"x\"\npin = 4711 # why\npassword = \"swordfish\"\n\n[[servers]]\nhost = \"a\"\ntoken = \"tadpole\"\n";
    world.parameters("pump", file);
    let (user, admin) = (world.token("user", 100), world.token("admin", 10));
    started(&mut world);
    let channel = plain(&world).await;
    let mut user = ConfigurationServiceClient::new(with_token(&channel, &user));
    let mut admin = ConfigurationServiceClient::new(with_token(&channel, &admin));
    let document = || "config/pump".to_owned();
    let ask = || GetDocumentRequest { document: document() };

    let seen = admin.get(ask()).await.expect("may look").into_inner();
    let masked = file.replace("swordfish", "********").replace("tadpole", "********");
    assert_eq!(seen.text, masked, "comments and layout stay");
    let less = user.get(ask()).await.expect("may look").into_inner();
    assert_eq!(less.text, masked.replace("4711", "\"********\""));

    // What was hidden comes back as it was; a new secret is taken.
    let text = seen.text.replace("\"x\"", "\"y\"").replacen("\"********\"", "\"trout\"", 1);
    let saved = admin.save(save("config/pump", &text, seen.version)).await.expect("may change").into_inner();
    let now = fs::read_to_string(world.dirs().parameter_file("pump")).expect("readable");
    assert_eq!(now, file.replace("\"x\"", "\"y\"").replace("swordfish", "trout"));

    // A user may change what says so, and nothing else.
    let less = user.get(ask()).await.expect("may look").into_inner();
    let faster = less.text.replacen("name", "speed = 5\nname", 1);
    let version = user.save(save("config/pump", &faster, saved.version)).await.expect("level 100").into_inner().version;
    for (from, to, key) in
        [("\"y\"", "\"z\"", "name"), ("\"********\"", "1", "pin"), ("host = \"a\"", "", "servers[0].host")]
    {
        let status =
            user.save(save("config/pump", &faster.replacen(from, to, 1), version)).await.expect_err("level 10");
        assert_eq!(status.code(), Code::PermissionDenied, "{key}");
        assert!(status.message().contains(key), "{}", status.message());
    }
    // Who may run programs as anybody has level 0.
    let request = GetDocumentRequest { document: "children/pump".into() };
    let pump = admin.get(request).await.expect("may look").into_inner();
    let other = pump.text.replacen("/pump\"", "/other\"", 1);
    let status = admin.save(save("children/pump", &other, pump.version)).await.expect_err("command");
    assert!(status.code() == Code::PermissionDenied && status.message().contains("command"), "{status}");

    // Neither old versions nor errors nor logs tell.
    let mut told = String::new();
    for version in 1..=version {
        let old = admin.get_version(GetVersionRequest { document: document(), version }).await.expect("kept");
        told += &old.into_inner().text;
    }
    let empty = "password = \"********\"\n[[servers]]\n[[servers]]\ntoken = \"********\"\n";
    let status: Status = admin.save(save("config/pump", empty, version)).await.expect_err("whose token?");
    assert!(status.message().contains("not clear"), "{status}");
    told += &format!("{status:?}");
    told += &format!("{:?}", admin.pending(PendingRequest {}).await.expect("told").into_inner());
    told += &(world.log("control") + &world.log("multusd"));
    for secret in ["swordfish", "tadpole", "trout", "4711"] {
        assert!(secret == "4711" || !told.contains(secret), "{secret} in {told}");
    }
    let history = world.dirs().state.join("config-history");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(history).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o700);
}
