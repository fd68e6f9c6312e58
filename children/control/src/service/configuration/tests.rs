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

/// A program that tells in a file how often it was asked, and stays as long as there is a file "wait".
fn counting(root: &Path) -> std::path::PathBuf {
    let at = |name: &str| root.join(name).display().to_string();
    let (asked, wait) = (at("asked"), at("wait"));
    program(
        root,
        &format!(
            "#!/bin/sh\n[ \"$1\" = --check-config ] || exit 0\necho >> '{asked}'\nwhile [ -e '{wait}' ]; do sleep 0.01; done\n\
             echo \"$2:1: speed: too fast\" >&2\nexit 1\n"
        ),
    )
}

fn times_asked(root: &Path) -> usize {
    fs::read_to_string(root.join("asked")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_file_that_many_look_at_is_checked_once() {
    let temp = tempfile::tempdir().expect("a temporary directory can be made");
    let service = service(temp.path());
    let document = Document::Parameters("pump".into());
    let program = counting(temp.path());
    child(&service, &program);
    let findings = || service.findings(&user(), &document).expect("it can be asked");
    assert!(findings().is_empty(), "there is no file");
    fs::write(service.dirs().parameter_file("pump"), "speed = 1\n").expect("own file");
    for _ in 0..3 {
        assert_eq!(findings()[0].message, "too fast");
    }
    assert_eq!(times_asked(temp.path()), 1);
    fs::write(service.dirs().parameter_file("pump"), "speed = 2\n").expect("own file");
    assert_eq!(findings().len(), 1);
    assert_eq!(times_asked(temp.path()), 2, "another text");
    fs::write(&program, fs::read_to_string(&program).expect("readable") + "# new\n").expect("own file");
    assert_eq!(findings().len(), 1);
    assert_eq!(times_asked(temp.path()), 3, "another program");
}

#[test]
fn those_who_are_no_administrators_let_one_program_run_at_a_time() {
    let temp = tempfile::tempdir().expect("a temporary directory can be made");
    let service = service(temp.path());
    let document = Document::Parameters("pump".into());
    child(&service, &counting(temp.path()));
    let wait = temp.path().join("wait");
    fs::write(&wait, "").expect("own file");
    let check = |caller: &Caller| {
        service.inner.configuration.validate(caller, &document, "speed = 1\n", std::time::Duration::ZERO)
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| check(&user()));
        crate::testing::until("the first one is asked", || (times_asked(temp.path()) == 1).then_some(()));
        assert_eq!(check(&user()).expect_err("one is under way").kind(), "busy");
        assert_eq!(times_asked(temp.path()), 1);
        let second = scope.spawn(|| check(&admin()));
        crate::testing::until("an administrator does not wait", || (times_asked(temp.path()) == 2).then_some(()));
        fs::remove_file(&wait).expect("own file");
        for check in [first, second] {
            assert_eq!(check.join().expect("no panic").expect("it can be asked").len(), 1);
        }
    });
    assert_eq!(check(&user()).expect("it is free again").len(), 1);
}
