//! What goes out to those who watch many boxes: a real Prometheus that scrapes, and notifications that are tried.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::http::Browser;
use super::world::{World, skip};
use super::{ANY_PORT, address, logged_in, up, user};

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[test]
fn a_real_prometheus_scrapes_a_real_multus_control() {
    const NAME: &str = "a_real_prometheus_scrapes_a_real_multus_control";
    let Some(prometheus) = program("prometheus") else {
        return skip(NAME, "no prometheus; apt-get install prometheus");
    };
    let mut world = World::new();
    let control = up(&mut world);
    let token = world.token("prometheus", 100);
    let dir = world.path("prometheus");
    fs::create_dir(&dir).expect("own directory");
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n- job_name: multus\n  \
         authorization: {{ credentials: \"{token}\" }}\n  static_configs: [{{ targets: [\"{control}\"] }}]\n"
    );
    fs::write(dir.join("prometheus.yml"), config).expect("own file");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let out = fs::File::create(dir.join("out")).expect("own file");
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stderr(out);
    let _running = Running(command.spawn().expect("it can be started"));
    let engine = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let value = |query: &str| -> Option<f64> {
        // It may not listen yet.
        std::net::TcpStream::connect(engine).ok()?;
        let reply = Browser::new(engine).get(&format!("/api/v1/query?query={query}"));
        let answer: Value = serde_json::from_slice(&reply.body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    world.wait("it was scraped", || value("up%7Bjob=%22multus%22%7D").filter(|up| *up == 1.0));
    assert_eq!(world.wait("the daemon is up", || value("multus_up")), 1.0);

    // The beats of multus-control itself, bucket by bucket, from the daemon's page to the engine.
    let beats = "multus_child_beat_interval_seconds_bucket%7Bchild=%22control%22,le=%22%2BInf%22%7D";
    let first = world.wait("beats are counted", || value(beats).filter(|beats| *beats > 0.0));
    world.wait("more of them", || value(beats).filter(|beats| *beats > first));

    let restarts = "multus_child_restarts_total%7Bchild=%22idle%22%7D";
    assert_eq!(world.wait("restarts are counted", || value(restarts)), 0.0);
    let pid = world.wait_state("idle", "running").pid.expect("it runs");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("own process");
    world.wait("one more", || value(restarts).filter(|restarts| *restarts == 1.0));
    let faults = "multus_child_faults_by_kind_total%7Bchild=%22idle%22,kind=%22crash%22%7D";
    world.wait("the crash is counted", || value(faults).filter(|faults| *faults == 1.0));
}

#[test]
fn the_test_button_of_a_notification_tells_what_came_of_it() {
    let mut world = World::new();
    user(&world, "admin", 10, false);
    user(&world, "guest", 100, false);
    let told = world.path("told");
    let good = world.script("good", &format!("#!/bin/sh\ncat > {}\n", told.display()));
    let bad = world.script("bad", "#!/bin/sh\necho no such pager >&2\nexit 3\n");
    let target =
        |name: &str, program: &Path| format!("[notify.targets.{name}]\ncommand = [\"{}\"]\n", program.display());
    world.control(&format!("{ANY_PORT}{}{}", target("pager", &good), target("broken", &bad)));
    world.start();
    let admin = logged_in(address(&world), "admin");
    assert_eq!(admin.get("/api/v1/notifications").json()["targets"], serde_json::json!(["broken", "pager"]));
    let test = |name: &str| admin.send("POST", &format!("/api/v1/notifications/{name}/test"), None);
    assert_eq!(test("pager").status, 200);
    let event: Value = serde_json::from_str(&fs::read_to_string(&told).expect("it was told")).expect("an event");
    assert!(event["kind"].is_string() && event["detail"].is_string(), "{event}");
    let refused = test("broken");
    assert!((400..500).contains(&refused.status), "{refused:?}");
    assert!(refused.json()["detail"].as_str().is_some_and(|why| why.contains('3')), "{refused:?}");
    assert_eq!(test("nobody").status, 404);
    let guest = logged_in(address(&world), "guest");
    assert_eq!(guest.send("POST", "/api/v1/notifications/pager/test", None).status, 403);
}
