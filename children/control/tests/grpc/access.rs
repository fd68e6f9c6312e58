//! Who may do what, and how it is known who asks.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use multus_proto::v1::children_service_client::ChildrenServiceClient;
use multus_proto::v1::configuration_service_client::ConfigurationServiceClient;
use multus_proto::v1::daemon_service_client::DaemonServiceClient;
use multus_proto::v1::events_service_client::EventsServiceClient;
use multus_proto::v1::faults_service_client::FaultsServiceClient;
use multus_proto::v1::io_service_client::IoServiceClient;
use multus_proto::v1::logs_service_client::LogsServiceClient;
use multus_proto::v1::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::world::{PAUSE, World};
use super::{ANY_PORT, IDLE, local, plain, secured, started, until, with_token};

async fn health(channel: &Channel) -> ServingStatus {
    let asked = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
    asked.expect("health is told to everybody").into_inner().status()
}

#[tokio::test]
async fn plain_text_without_a_good_token_does_nothing_but_tell_the_health() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    started(&mut world);
    let channel = plain(&world).await;
    assert_eq!(health(&channel).await, ServingStatus::Serving);

    let (document, child) = ("children/idle".to_owned(), "idle".to_owned());
    let wrong = "multus_0000000000000000000000000000000000000000000000000000000000000000";
    for token in [None, Some(wrong), Some(""), Some("x y")] {
        // Every method of every service.
        let mut refused = Vec::new();
        macro_rules! call {
            ($client:ident: $($method:ident($request:expr)),+ $(,)?) => {$(
                let answer = match token {
                    None => $client::new(channel.clone()).$method($request).await.err(),
                    Some(token) => $client::new(with_token(&channel, token)).$method($request).await.err(),
                };
                let code = answer.map(|status| status.code());
                refused.push((concat!(stringify!($client), "::", stringify!($method)), code));
            )+};
        }
        call!(ChildrenServiceClient:
            list(ListChildrenRequest {}), get(GetChildRequest { name: child.clone() }),
            start(StartRequest { name: child.clone() }), stop(StopRequest { name: child.clone() }),
            restart(RestartRequest { name: child.clone() }), enable(EnableRequest { name: child.clone() }),
            disable(DisableRequest { name: child.clone() }), snooze(SnoozeRequest { name: child.clone(), seconds: 9 }),
            set_instances(SetInstancesRequest { name: child.clone(), instances: 2 }),
            watch_status(WatchStatusRequest::default()), advise(AdviseRequest { name: child.clone() }));
        call!(EventsServiceClient: list(ListEventsRequest::default()), watch(WatchEventsRequest::default()));
        call!(ConfigurationServiceClient:
            list(ListDocumentsRequest {}), get(GetDocumentRequest { document: document.clone() }),
            validate(ValidateRequest::default()), save(SaveRequest { document: document.clone(), ..Default::default() }),
            history(HistoryRequest { document: document.clone() }), get_version(GetVersionRequest::default()),
            roll_back(RollBackRequest::default()), pending(PendingRequest {}),
            apply_now(ApplyNowRequest { document: document.clone() }),
            revert(RevertRequest { document: document.clone() }));
        call!(LogsServiceClient: list(ListLogsRequest {}),
            tail(TailRequest { name: "control".into(), ..Default::default() }), search(SearchRequest::default()));
        call!(FaultsServiceClient: list(ListFaultsRequest::default()), get(GetFaultRequest::default()));
        call!(DaemonServiceClient: get_info(GetInfoRequest {}), reload(ReloadRequest {}),
            reboot(RebootRequest { seconds: 86_400 }), cancel_reboot(CancelRebootRequest {}));
        call!(IoServiceClient: list(ListLinesRequest::default()), watch(WatchLinesRequest {}),
            set(SetLineRequest::default()), force(ForceLineRequest::default()), release(ReleaseLineRequest::default()));
        assert_eq!(refused.len(), 37);
        for (method, code) in refused {
            assert_eq!(code, Some(Code::Unauthenticated), "{method} with token {token:?}");
        }
    }
    let before = world.of("idle");
    assert!(before.enabled && before.state == "running" && before.snoozed_until.is_none());
}

#[tokio::test]
async fn a_token_gives_its_level_until_it_is_removed() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    let (viewer, operator) = (world.token("viewer", 100), world.token("operator", 30));
    started(&mut world);
    assert_eq!(fs::metadata(world.dirs().config.join("tokens.toml")).expect("it is there").mode() & 0o777, 0o600);

    let channel = plain(&world).await;
    let mut children = ChildrenServiceClient::new(with_token(&channel, &viewer));
    let list = children.list(ListChildrenRequest {}).await.expect("a viewer may look").into_inner().children;
    assert_eq!(list.iter().map(|child| child.name.as_str()).collect::<Vec<_>>(), ["control", "idle"]);
    let denied = children.stop(StopRequest { name: "idle".into() }).await.expect_err("a viewer may not stop");
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains("viewer has right level 100"), "{}", denied.message());

    let mut children = ChildrenServiceClient::new(with_token(&channel, &operator));
    children.stop(StopRequest { name: "idle".into() }).await.expect("an operator may");
    world.wait_state("idle", "stopped");
    let denied = children.disable(DisableRequest { name: "idle".into() }).await.expect_err("it would last");
    assert_eq!(denied.code(), Code::PermissionDenied);

    // A token made now is known soon; one that is removed soon is not.
    let late = world.token("late", 100);
    let mut children = ChildrenServiceClient::new(with_token(&channel, &late));
    let until = async |children: &mut ChildrenServiceClient<_>, wanted: Option<Code>| {
        loop {
            let code = children.list(ListChildrenRequest {}).await.err().map(|status| status.code());
            if code == wanted {
                break;
            }
            assert!(matches!(code, None | Some(Code::Unauthenticated)), "{code:?}");
            tokio::time::sleep(PAUSE).await;
        }
    };
    until(&mut children, None).await;
    world.ctl(&["token", "remove", "late"]);
    until(&mut children, Some(Code::Unauthenticated)).await;
    assert!(!world.ctl(&["token", "list"]).contains("late"));
    assert!(!world.log("control").contains(&late), "a token is never in the log");
}

#[tokio::test]
async fn the_user_of_the_process_may_do_everything_at_the_socket() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    started(&mut world);
    let socket = world.dirs().runtime.join("grpc.sock");
    assert_eq!(fs::metadata(&socket).expect("it is there").mode() & 0o777, 0o660);
    let channel = local(&world).await;
    assert_eq!(health(&channel).await, ServingStatus::Serving);
    let mut children = ChildrenServiceClient::new(channel.clone());
    children.disable(DisableRequest { name: "idle".into() }).await.expect("the owner may");
    world.wait_state("idle", "disabled");
    let unknown = children.start(StartRequest { name: "none".into() }).await.expect_err("there is no such child");
    assert_eq!(unknown.code(), Code::NotFound);
    let info = DaemonServiceClient::new(channel).get_info(GetInfoRequest {}).await.expect("answered").into_inner();
    let daemon = info.daemon.expect("it can be reached");
    let reset = daemon.last_reset.expect("it is known");
    assert_eq!((daemon.children, reset.cause.as_str(), reset.boots), (2, "first-start", 1));
    assert_eq!(reset.counts.get("first-start"), Some(&1));
}

#[tokio::test]
async fn there_are_not_more_connections_than_configured() {
    use tokio::io::AsyncReadExt as _;

    let mut world = World::new();
    world.control(&format!("{ANY_PORT}connections = 2\n"));
    let token = world.token("user", 100);
    started(&mut world);
    let connect = || tokio::net::TcpStream::connect(("127.0.0.1", super::port(&world)));
    // Two who say nothing keep nobody out who shows a token, however long they have been there.
    let (mut silent, _mute) = (connect().await.expect("room"), connect().await.expect("room"));
    let known = async || {
        let uri = format!("http://127.0.0.1:{}", super::port(&world));
        let channel = tonic::transport::Endpoint::from_shared(uri).expect("an address").connect().await.ok()?;
        let mut client = ChildrenServiceClient::new(with_token(&channel, &token));
        client.list(ListChildrenRequest {}).await.is_ok().then_some(client)
    };
    let (first, _second) = (until("let in", known).await, until("let in, too", known).await);
    let gone = async { while !matches!(silent.read(&mut [0u8; 64]).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(super::world::PATIENCE, gone).await.expect("it made room");

    let mut byte = [0u8; 1];
    // The server speaks first as soon as a connection is taken; one too many is hung up on.
    let mut hung_up = async || {
        let mut third = connect().await.expect("the port is open");
        let read = tokio::time::timeout(super::world::PATIENCE, third.read(&mut byte)).await.expect("in time");
        !matches!(read, Ok(1..))
    };
    until("the third is hung up on", async || hung_up().await.then_some(())).await;
    drop(first);
    until("there is room again", async || (!hung_up().await).then_some(())).await;
    world.wait_log("control", "2 connections on TCP are open");
    assert_eq!(world.of("control").state, "running");
}

#[tokio::test]
async fn a_token_whose_time_is_over_counts_no_more_and_ends_its_streams() {
    let mut world = World::new();
    world.control(ANY_PORT);
    let token = world.token("late", 100);
    started(&mut world);
    let channel = plain(&world).await;
    let mut client = ChildrenServiceClient::new(with_token(&channel, &token));
    client.list(ListChildrenRequest {}).await.expect("it counts");
    let watch = WatchStatusRequest { interval_ms: 200, ..Default::default() };
    let mut stream = client.watch_status(watch).await.expect("followed").into_inner();
    world.expire("late");
    let ended = tokio::time::timeout(super::world::PATIENCE, async {
        loop {
            if let Err(why) = stream.message().await {
                return why;
            }
        }
    });
    assert_eq!(ended.await.expect("in time").code(), Code::Unauthenticated);
    let refused = client.list(ListChildrenRequest {}).await.expect_err("it is over");
    assert!(refused.code() == Code::Unauthenticated && refused.message().contains("expired"), "{refused}");
}

/// A certificate authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("random numbers");
        Self(CertifiedIssuer::self_signed(parameters, key).expect("a good request"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a common name, good for 127.0.0.1.
    fn sign(&self, common_name: &str) -> (String, String) {
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("random numbers");
        let certificate = parameters.signed_by(&key, &self.0).expect("a good request");
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn over_tls_a_certificate_or_a_token_says_who_asks() {
    let mut world = World::new();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.sign("device");
    for (name, text) in [("server.pem", &certificate), ("server.key", &key), ("ca.pem", &authority.pem())] {
        fs::write(world.path(name), text).expect("own file");
    }
    let path = |name: &str| world.path(name).display().to_string();
    world.control(&format!(
        "{ANY_PORT}certificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    ));
    world.child("idle", IDLE);
    let token = world.token("scada", 30);
    started(&mut world);

    let trust = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let identity = |(certificate, key): (String, String)| Identity::from_pem(certificate, key);
    let list = |channel: Channel| async move {
        ChildrenServiceClient::new(channel).list(ListChildrenRequest {}).await.err().map(|status| status.code())
    };

    let nobody = secured(&world, trust()).await.expect("the server is trusted");
    assert_eq!(list(nobody.clone()).await, Some(Code::Unauthenticated));
    let mut children = ChildrenServiceClient::new(with_token(&nobody, &token));
    children.list(ListChildrenRequest {}).await.expect("a token counts over TLS, too");

    let scada = secured(&world, trust().identity(identity(authority.sign("scada")))).await.expect("a good certificate");
    let mut children = ChildrenServiceClient::new(scada);
    children.stop(StopRequest { name: "idle".into() }).await.expect("the level of the token of that name");
    let denied = children.disable(DisableRequest { name: "idle".into() }).await.expect_err("level 30");
    assert_eq!(denied.code(), Code::PermissionDenied);

    let unknown = secured(&world, trust().identity(identity(authority.sign("nobody")))).await.expect("it is signed");
    assert_eq!(list(unknown).await, Some(Code::PermissionDenied));

    // A certificate of somebody else's authority ends the connection, at the latest with the first call.
    if let Ok(channel) = secured(&world, trust().identity(identity(stranger.sign("scada")))).await {
        let code = list(channel).await;
        let by_transport = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled];
        assert!(code.is_some_and(|code| by_transport.contains(&code)), "{code:?}");
    }
    // Plain text is not understood.
    let uri = format!("http://127.0.0.1:{}", super::port(&world));
    let plain = Channel::from_shared(uri).expect("an address").connect_lazy();
    assert!(list(plain).await.is_some());
}

#[tokio::test]
async fn a_renewed_certificate_counts_without_a_restart_and_a_broken_one_does_not() {
    let mut world = World::new();
    let (before, after) = (Authority::new(), Authority::new());
    let files = ["server.pem", "server.key"].map(|name| world.path(name));
    let put = |(certificate, key): (String, String)| {
        fs::write(&files[0], certificate).expect("own file");
        fs::write(&files[1], key).expect("own file");
    };
    put(before.sign("device"));
    let keys = format!("certificate = {:?}\nkey = {:?}\n", files[0], files[1]);
    world.control(&format!("{ANY_PORT}{keys}"));
    started(&mut world);
    let pid = world.of("control").pid;
    let is_trusted = async |authority: &Authority| {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
        match secured(&world, tls).await {
            Ok(channel) => HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok(),
            Err(_) => false,
        }
    };
    assert!(is_trusted(&before).await && !is_trusted(&after).await);
    put(after.sign("device"));
    world.wait_log("control", "grpc: the certificate was renewed");
    assert!(is_trusted(&after).await && !is_trusted(&before).await);
    let (certificate, _) = before.sign("device");
    let (_, key) = before.sign("device");
    put((certificate, key));
    world.wait_log("control", "the certificate that was read before stays in force");
    assert!(is_trusted(&after).await, "two that do not belong together change nothing");
    assert_eq!(world.of("control").pid, pid);
}
