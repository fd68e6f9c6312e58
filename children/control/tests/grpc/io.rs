//! Inputs and outputs: a real multus-io on a simulated board.

use multus_proto::v1::io_service_client::IoServiceClient;
use multus_proto::v1::watch_lines_response::What;
use multus_proto::v1::*;
use tonic::Code;

use super::world::{PATIENCE, PAUSE, World};
use super::{ANY_PORT, plain, started, with_token};

#[tokio::test]
async fn lines_are_listed_watched_set_held_and_released() {
    let mut world = World::new();
    world.plant();
    world.control(ANY_PORT);
    let (user, operator, admin) = (world.token("user", 100), world.token("operator", 30), world.token("admin", 10));
    started(&mut world);
    let channel = plain(&world).await;
    let [mut user, mut operator, mut admin] =
        [user, operator, admin].map(|token| IoServiceClient::new(with_token(&channel, &token)));
    let status = loop {
        let status = user.list(ListLinesRequest::default()).await.expect("may look").into_inner();
        if status.fresh && status.driven_by == "multus-io" {
            break status;
        }
        tokio::time::sleep(PAUSE).await;
    };
    assert!(status.simulated && status.lines.len() == 8 && status.period_us > 0.0, "{status:?}");
    let valve = status.lines.iter().find(|line| line.name == "VALVE").expect("there").clone();
    assert_eq!((valve.unit.as_str(), valve.owner.as_str(), valve.safe), ("%", "pump", Some(100.0)));
    assert_eq!((valve.lowest, valve.highest, valve.held), (Some(0.0), Some(100.0), None));

    let mut watched = user.watch(WatchLinesRequest {}).await.expect("may look").into_inner();
    let mut next = async |wanted: &str, source: &str| loop {
        let message = tokio::time::timeout(PATIENCE, watched.message()).await.expect("in time").expect("good");
        match message.and_then(|message| message.what).expect("it goes on") {
            What::Line(line) if line.name == wanted && line.source == source => return line,
            What::Line(_) | What::Fresh(_) => {}
            What::Lost(lost) => panic!("{lost} were lost"),
        }
    };
    assert_eq!(next("DO3", "safe").await.value, 0.0, "all that there are come first");

    let set = |name: &str, value| SetLineRequest { name: name.into(), value };
    let force = |name: &str, value| ForceLineRequest { name: name.into(), value };
    let release = |name: &str| ReleaseLineRequest { name: name.into() };
    assert_eq!(user.set(set("DO3", 1.0)).await.expect_err("level 30").code(), Code::PermissionDenied);
    assert_eq!(operator.force(force("DO3", 1.0)).await.expect_err("level 10").code(), Code::PermissionDenied);
    operator.set(set("DO3", 1.0)).await.expect("nobody owns it");
    assert_eq!(next("DO3", "requested").await.value, 1.0);
    admin.force(force("DO3", 0.0)).await.expect("may");
    assert_eq!(next("DO3", "forced").await.value, 0.0);
    let one = user.list(ListLinesRequest { name: "DO3".into() }).await.expect("there").into_inner().lines;
    assert_eq!(one.iter().map(|line| line.held).collect::<Vec<_>>(), [Some(0.0)]);
    assert_eq!(operator.release(release("DO3")).await.expect_err("level 10").code(), Code::PermissionDenied);
    admin.release(release("DO3")).await.expect("it is held");
    assert_eq!(next("DO3", "requested").await.value, 1.0);

    assert_eq!(operator.set(set("DO2", 1.0)).await.expect_err("pump owns it").code(), Code::FailedPrecondition);
    assert_eq!(admin.release(release("DO3")).await.expect_err("nobody holds it").code(), Code::FailedPrecondition);
    assert_eq!(admin.force(force("VALVE", f64::NAN)).await.expect_err("no number").code(), Code::InvalidArgument);
    assert_eq!(admin.force(force("DO9", 1.0)).await.expect_err("no line").code(), Code::NotFound);
    let missing = user.list(ListLinesRequest { name: "DO9".into() }).await.expect_err("no line");
    assert_eq!(missing.code(), Code::NotFound);

    // The level is looked at in every call.
    world.ctl(&["token", "remove", "operator"]);
    world.ctl(&["token", "add", "operator", "--level", "100"]);
    let ended = async {
        while operator.set(set("DO3", 0.0)).await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("a token that is gone may do nothing");
}

#[tokio::test]
async fn without_lines_there_is_nothing_to_watch() {
    let mut world = World::new();
    world.control(ANY_PORT);
    let user = world.token("user", 100);
    started(&mut world);
    let mut user = IoServiceClient::new(with_token(&plain(&world).await, &user));
    let status = user.list(ListLinesRequest::default()).await.expect("may look").into_inner();
    assert_eq!((status.driven_by.as_str(), status.lines.len()), ("nobody", 0));
    let refused = user.watch(WatchLinesRequest {}).await.expect_err("there is no image");
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("hardware.toml"), "{refused}");
}
