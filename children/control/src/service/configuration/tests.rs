//! Configurations without a daemon: what is shown to whom, and what is written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Document, MASK, Save, Service, Settings};
use crate::service::Caller;
use crate::testing::dirs;

/// A program with a secret.
const PUMP: &str = r#"#!/bin/sh
[ "$1" = --print-schema ] && echo '{ "properties": { "speed": {}, "password": { "writeOnly": true } } }'
exit 0
# --check-config
"#;
const PARAMETERS: &str = "speed = 1\npassword = \"secret\"\n";

fn service(root: &Path) -> Service {
    let service = Service::new(dirs(root), Settings::default());
    let dirs = service.dirs();
    fs::create_dir_all(dirs.children_dir()).expect("own directory");
    fs::create_dir_all(dirs.config.join("config")).expect("own directory");
    service
}

fn child(service: &Service, program: &Path) {
    let text = format!("command = [{program:?}]\n[heartbeat]\nmethod = \"none\"\n");
    fs::write(service.dirs().child_file("pump"), text).expect("own file");
}

fn program(root: &Path, text: &str) -> std::path::PathBuf {
    let path = root.join("pump");
    fs::write(&path, text).expect("own file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own file");
    path
}

fn user() -> Caller {
    Caller::new("user", Caller::USER)
}

fn admin() -> Caller {
    Caller::new("admin", Caller::ADMIN)
}

fn shown(service: &Service) -> String {
    service.document(&user(), &Document::Parameters("pump".into())).expect("it is there").text
}

#[test]
fn parameters_of_which_nobody_knows_what_they_are_are_hidden() {
    let temp = tempfile::tempdir().expect("a temporary directory can be made");
    let service = service(temp.path());
    let document = Document::Parameters("pump".into());
    fs::write(service.dirs().parameter_file("pump"), PARAMETERS).expect("own file");
    let all_hidden = format!("speed = \"{MASK}\"\npassword = \"{MASK}\"\n");

    assert_eq!(shown(&service), all_hidden, "no child belongs to it");
    fs::write(service.dirs().child_file("pump"), "command = nonsense").expect("own file");
    assert_eq!(shown(&service), all_hidden, "nobody can tell which program");
    child(&service, &temp.path().join("pump"));
    assert_eq!(shown(&service), all_hidden, "its program is not there");
    let version = service.version(&user(), &document, 1).expect("it was found").1;
    assert_eq!(version, all_hidden);

    let program = program(temp.path(), PUMP);
    assert_eq!(shown(&service), format!("speed = 1\npassword = \"{MASK}\"\n"));
    fs::write(program, "#!/bin/sh\nexec sleep 1000\n").expect("own file");
    assert_eq!(shown(&service), PARAMETERS, "a program without a schema has no secrets");
}

#[test]
fn only_root_changes_what_nobody_knows_and_a_file_stays_as_readable_as_it_was() {
    let temp = tempfile::tempdir().expect("a temporary directory can be made");
    let service = service(temp.path());
    let document = Document::Parameters("pump".into());
    let path = service.dirs().parameter_file("pump");
    fs::write(&path, PARAMETERS).expect("own file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("own file");
    child(&service, &temp.path().join("pump"));
    let text = format!("speed = 2\npassword = \"{MASK}\"\n");
    let save = Save { text: &text, expected_version: 1, comment: "" };
    shown(&service);
    assert_eq!(service.save(&admin(), &document, &save).expect_err("level 0 is needed").kind(), "forbidden");
    service.save(&Caller::own(), &document, &save).expect("root may");
    assert_eq!(fs::read_to_string(&path).expect("readable"), "speed = 2\npassword = \"secret\"\n");
    assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_list_is_reordered_with_its_secrets() {
    let temp = tempfile::tempdir().expect("a temporary directory can be made");
    let service = service(temp.path());
    let schema = r#"{ "properties": { "servers": { "items": { "properties": { "host": {}, "token": { "writeOnly": true } } } } } }"#;
    let text = format!("#!/bin/sh\n[ \"$1\" = --print-schema ] && echo '{schema}'\nexit 0\n# --check-config\n");
    child(&service, &program(temp.path(), &text));
    let of = |a: (&str, &str), b: (&str, &str)| {
        let entry = |(host, token)| format!("[[servers]]\nhost = \"{host}\"\ntoken = \"{token}\"\n");
        entry(a) + &entry(b)
    };
    let path = service.dirs().parameter_file("pump");
    fs::write(&path, of(("a", "of a"), ("b", "of b"))).expect("own file");
    assert_eq!(shown(&service), of(("a", MASK), ("b", MASK)));
    let document = Document::Parameters("pump".into());
    let save =
        |text: &str, expected_version| service.save(&admin(), &document, &Save { text, expected_version, comment: "" });
    save(&of(("b", MASK), ("a", MASK)), 1).expect("it is clear which is which");
    assert_eq!(fs::read_to_string(&path).expect("readable"), of(("b", "of b"), ("a", "of a")));
    let error = save(&of(("x", MASK), ("y", MASK)), 2).expect_err("nobody knows whose these are");
    let keys: Vec<&str> = error.problems().iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["servers[0].token", "servers[1].token"]);
}
