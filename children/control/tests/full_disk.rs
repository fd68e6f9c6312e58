//! A full disk: what was there stays there, whole.

#[path = "world/mod.rs"]
mod world;

use std::fs;

use multus_contract::dirs::Dirs;
use multus_control::service::configuration::{Document, Save};
use multus_control::service::{Caller, Service, Settings};
use world::Small;

#[test]
fn a_full_disk_leaves_the_old_file_and_its_version() {
    let temp = tempfile::tempdir().expect("a temporary directory can be made");
    let small = match Small::mount(temp.path(), "256k") {
        Ok(small) => small,
        Err(why) => return world::skip("a_full_disk_leaves_the_old_file_and_its_version", &format!("no mount: {why}")),
    };
    let at = |name: &str| small.path().join(name);
    let dirs = Dirs { config: at("etc"), runtime: at("run"), logs: at("log"), state: at("state") };
    fs::create_dir_all(dirs.children_dir()).expect("room");
    let file = dirs.child_file("idle");
    let old = "command = [\"/bin/sleep\", \"9\"]\n";
    fs::write(&file, old).expect("room");
    let service = Service::new(dirs, Settings::default());
    let (root, document) = (Caller::new("root", Caller::ROOT), Document::Child("idle".into()));
    let before = service.document(&root, &document).expect("readable");
    assert_eq!((before.version, before.text.as_str()), (1, old));

    let filler = small.fill();
    // Larger than what may be left of the last page.
    let new = format!("{old}description = \"new\"\n{}", "# comment\n".repeat(2000));
    let save = Save { text: &new, expected_version: 1, comment: "" };
    let error = service.save(&root, &document, &save).expect_err("there is no room");
    assert_eq!(error.kind(), "internal", "{error}");
    assert_eq!(fs::read_to_string(&file).expect("readable"), old);
    let now = service.document(&root, &document).expect("readable");
    assert_eq!((now.version, now.etag), (1, before.etag));

    fs::remove_file(filler).expect("own file");
    assert_eq!(service.save(&root, &document, &save).expect("there is room").version, 2);
    assert_eq!(fs::read_to_string(&file).expect("readable"), new);
    let left = fs::read_dir(file.parent().expect("in a directory")).expect("readable").count();
    assert_eq!(left, 1, "nothing else is left");
}
