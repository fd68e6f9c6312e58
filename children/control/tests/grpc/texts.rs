//! A parameter that names a text file: the text is a document of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use multus_proto::v1::configuration_service_client::ConfigurationServiceClient;
use multus_proto::v1::*;
use tonic::Code;

use super::world::{PAUSE, World};
use super::{ANY_PORT, plain, started, with_token};

/// Runs with a text; ends at once when it says "crash".
const VPN: &str = r#"#!/bin/sh
case "$1" in
--print-schema)
    cat <<'END'
{ "type": "object", "additionalProperties": false, "properties": {
  "tunnel": { "title": "Tunnel", "type": "string", "format": "multus-text-file", "default": "client.conf" },
  "again": { "type": "string", "format": "multus-text-file", "x-display-level": 10, "x-edit-level": 0 },
  "other": { "type": "string", "format": "multus-text-file", "x-edit-level": 100 },
  "login": { "type": "object", "properties": {
    "file": { "type": "string", "format": "multus-text-file", "x-secret-file": true } } },
  "version": { "type": "string", "format": "multus-version", "default": "1.0.0" } } }
END
    ;;
--check-config) ;;
*)
    grep -q crash "${MULTUS_CONFIG%/config/*}/files/$MULTUS_NAME/client.conf" && exit 3
    exec sleep 100000
    ;;
esac
"#;

#[tokio::test]
async fn a_text_that_a_parameter_names_is_a_document_with_rights_and_history() {
    let mut world = World::new();
    let allowed = world.path("allowed");
    fs::create_dir(&allowed).expect("own directory");
    world.control(&format!(
        "{ANY_PORT}[configuration]\nsettle = \"0s\"\n[configuration.text_folders]\nvpn = [{allowed:?}]\n"
    ));
    let program = world.script("vpn", VPN);
    world.child(
        "vpn",
        &format!("command = [{program:?}]\n[heartbeat]\nmethod = \"none\"\n[restart]\ndelays = [\"0s\", \"1s\"]\n"),
    );
    world.parameters("vpn", "[login]\nfile = \"login.txt\"\n");
    let (user, admin) = (world.token("user", 100), world.token("admin", 10));
    started(&mut world);
    let channel = plain(&world).await;
    let mut user = ConfigurationServiceClient::new(with_token(&channel, &user));
    let mut admin = ConfigurationServiceClient::new(with_token(&channel, &admin));
    let get = |document: &str| GetDocumentRequest { document: document.into() };
    let save = |document: &str, text: &str, expected_version| SaveRequest {
        document: document.into(),
        text: text.into(),
        expected_version,
        comment: String::new(),
    };
    let files = world.dirs().config.join("files/vpn");
    let (tunnel, login) = ("files/vpn:tunnel", "files/vpn:login.file");

    // It is in the list with its default path, and those that name none are not.
    let all = user.list(ListDocumentsRequest {}).await.expect("may look").into_inner().documents;
    let texts: Vec<_> = all.iter().filter(|info| info.document.starts_with("files/")).collect();
    assert_eq!(texts.iter().map(|info| info.document.as_str()).collect::<Vec<_>>(), [login, tunnel]);
    assert!(texts.iter().all(|info| info.child == "vpn" && !info.exists));

    // Written, applied by a restart, versioned, rolled back.
    let empty = admin.get(get(tunnel)).await.expect("may look").into_inner();
    assert_eq!((empty.version, empty.exists, empty.text.as_str()), (0, false, ""));
    let first = world.wait_state("vpn", "running").pid;
    let saved = admin.save(save(tunnel, "remote a\n# port = [\n", 0)).await.expect("no TOML is needed").into_inner();
    assert_eq!(fs::read_to_string(files.join("client.conf")).expect("written"), "remote a\n# port = [\n");
    let done = async |client: &mut ConfigurationServiceClient<_>, document: &str| loop {
        let changes = client.pending(PendingRequest {}).await.expect("told").into_inner().changes;
        let change = changes.into_iter().find(|change| change.document == document).expect("there was a change");
        if !matches!(change.state(), PendingState::Waiting | PendingState::Applying) {
            return change;
        }
        tokio::time::sleep(PAUSE).await;
    };
    assert_eq!(done(&mut admin, tunnel).await.state(), PendingState::Healthy);
    assert_ne!(world.of("vpn").pid, first, "the child was restarted");
    let stale = admin.save(save(tunnel, "remote b\n", 0)).await.expect_err("somebody was faster");
    assert_eq!(stale.code(), Code::Aborted);
    admin.save(save(tunnel, "crash\n", saved.version)).await.expect("a text is a text");
    assert_eq!(done(&mut admin, tunnel).await.state(), PendingState::Unhealthy);
    admin.revert(RevertRequest { document: tunnel.into() }).await.expect("there is a version before");
    assert_eq!(fs::read_to_string(files.join("client.conf")).expect("written"), "remote a\n# port = [\n");

    // Who may only look sees it and changes nothing. What stands in no text is refused.
    let seen = user.get(get(tunnel)).await.expect("may look").into_inner();
    assert_eq!(seen.text, "remote a\n# port = [\n");
    let status = user.save(save(tunnel, "mine\n", seen.version)).await.expect_err("level 10");
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = admin.save(save(tunnel, "a\nb\u{0}\n", seen.version)).await.expect_err("no text");
    assert!(status.code() == Code::InvalidArgument && status.message().contains("line 2"), "{status}");

    // A secret one is for its reader only, and never comes back.
    let secret = admin.save(save(login, "swordfish\n", 0)).await.expect("may change").into_inner();
    assert_eq!(files.join("login.txt").metadata().expect("written").mode() & 0o777, 0o600);
    assert_eq!(admin.get(get(login)).await.expect("may look").into_inner().text, "********");
    let old = GetVersionRequest { document: login.into(), version: secret.version };
    assert_eq!(admin.get_version(old).await.expect("kept").into_inner().text, "********");
    let same = admin.save(save(login, "********\n", secret.version)).await.expect("the mask").into_inner();
    assert_eq!(
        (same.version, fs::read_to_string(files.join("login.txt")).expect("there").as_str()),
        (1, "swordfish\n")
    );

    // A parameter is no way to another file: neither by a path nor by a link, nor to what a stricter one names.
    let config = "config/vpn";
    let version = admin.get(get(config)).await.expect("may look").into_inner().version;
    let parameters = "again = \"client.conf\"\n[login]\nfile = \"login.txt\"\n";
    admin.save(save(config, parameters, version)).await.expect_err("level 0");
    world.parameters("vpn", &format!("other = \"login.txt\"\n{parameters}"));
    assert_eq!(user.get(get(tunnel)).await.expect("may look").into_inner().text, "********", "level 10 by \"again\"");
    assert_eq!(user.get(get("files/vpn:other")).await.expect("may look").into_inner().text, "********");
    let users = world.dirs().config.join("users.toml");
    fs::write(&users, "root's").expect("own file");
    fs::create_dir_all(&allowed).expect("own directory");
    symlink(&users, files.join("link")).expect("own link");
    symlink(world.dirs().config.clone(), allowed.join("link")).expect("own link");
    for (path, is_good) in [
        (allowed.join("client.conf").display().to_string(), true),
        (allowed.join("link/users.toml").display().to_string(), false),
        ("link".into(), false),
        ("../../users.toml".into(), false),
        (users.display().to_string(), false),
        (world.dirs().config.join("files/other/x").display().to_string(), false),
        ("/etc/shadow".into(), false),
    ] {
        world.parameters("vpn", &format!("other = {path:?}\n"));
        let found = admin.get(get("files/vpn:other")).await;
        match is_good {
            true => assert_eq!(found.expect(&path).into_inner().version, 0, "{path}: there is no file yet"),
            false => assert_eq!(found.expect_err(&path).code(), Code::FailedPrecondition, "{path}"),
        }
        // The text of another file that was once named does not come back by the history.
        let old = GetVersionRequest { document: "files/vpn:other".into(), version: 1 };
        admin.get_version(old).await.expect_err("nothing is kept of this one");
        if !is_good {
            let refused = admin.save(save("files/vpn:other", "owned\n", 0)).await.expect_err(&path);
            assert_eq!(refused.code(), Code::FailedPrecondition, "{path}");
        }
    }
    assert_eq!(fs::read_to_string(&users).expect("there"), "root's");
    for document in ["files/vpn:nothing", "files/nobody:tunnel", "files/vpn:version"] {
        assert_eq!(admin.get(get(document)).await.expect_err(document).code(), Code::NotFound, "{document}");
    }
    let told = format!("{}{}", world.log("control"), world.log("multusd"));
    assert!(!told.contains("swordfish"));
}

#[tokio::test]
async fn the_version_among_the_parameters_rises_by_itself() {
    let mut world = World::new();
    world.control(&format!("{ANY_PORT}[configuration]\nsettle = \"1h\"\n"));
    let program = world.script("vpn", VPN);
    world.child("vpn", &format!("command = [{program:?}]\n[heartbeat]\nmethod = \"none\"\n"));
    let admin = world.token("admin", 10);
    started(&mut world);
    let channel = plain(&world).await;
    let mut admin = ConfigurationServiceClient::new(with_token(&channel, &admin));
    let text = || fs::read_to_string(world.dirs().parameter_file("vpn")).expect("written");
    for (version, path, raised) in [(0, "a.conf", "1.0.1"), (1, "b.conf", "1.0.2")] {
        let save = SaveRequest {
            document: "config/vpn".into(),
            text: format!("tunnel = {path:?}\n"),
            expected_version: version,
            comment: String::new(),
        };
        admin.save(save).await.expect("may change");
        assert_eq!(text(), format!("tunnel = {path:?}\nversion = {raised:?}\n"));
    }
    let back = RollBackRequest { document: "config/vpn".into(), version: 1, expected_version: 2 };
    admin.roll_back(back).await.expect("kept");
    assert_eq!(text(), "tunnel = \"a.conf\"\nversion = \"1.0.3\"\n", "a number is never used twice");
}
