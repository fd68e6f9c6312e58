use std::net::Ipv4Addr;

use super::sessions::{IDLE, LIFE};
use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PASSWORD: &str = "pump house three";

struct World {
    auth: Auth,
    dir: tempfile::TempDir,
    now: Instant,
}

impl World {
    fn new(users: &[(&str, u32, bool)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let auth = Auth::new(dir.path(), dir.path());
        let hash = Hash::of(PASSWORD).expect("random numbers");
        for &(name, level, read_only) in users {
            let user = User { level, read_only, password: hash.clone() };
            auth.change(|users| users.set(name, user).map_err(Error::Internal)).expect("writable");
        }
        Self { auth, dir, now: Instant::now() }
    }

    fn log_in(&self, name: &str, password: &str) -> Result<Opened, Refusal> {
        self.auth.log_in(self.now, HERE, name, password)
    }

    fn visitor(&self, opened: &Opened, after: Duration) -> Visitor {
        self.auth.visitor(self.now + after, Some(&opened.id), None, Use::OfPerson).expect("a cookie is never an error")
    }

    fn code(&self) -> String {
        fs::read_to_string(self.dir.path().join("setup-code")).expect("it is hidden, as there are tokens")
    }
}

fn admin() -> Caller {
    Caller::new("admin", Caller::ADMIN)
}

fn kind<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    match result.expect_err("refused") {
        Refusal::Wait(_) => "wait",
        Refusal::Other(error) => error.kind(),
    }
}

#[test]
fn a_session_is_somebody_until_it_ends() {
    let world = World::new(&[("admin", 10, false), ("guest", 100, true)]);
    let opened = world.log_in("admin", PASSWORD).expect("right");
    let minute = Duration::from_secs(60);
    let Visitor::Session(session) = world.visitor(&opened, minute) else { panic!("somebody") };
    assert_eq!((&session.caller, session.read_only), (&admin(), false));
    assert!(session.has_csrf(&opened.session.csrf) && !session.has_csrf("") && !session.has_csrf(&opened.id));
    let other = world.log_in("guest", PASSWORD).expect("right");
    assert!(!session.has_csrf(&other.session.csrf), "each session has its own");

    let looked = Visitor::Session(session.clone());
    assert_eq!(world.auth.still(world.now + minute, &looked), looked);
    for forged in ["", "x", &opened.session.csrf, &opened.id.to_lowercase(), &opened.id[1..]] {
        let visitor =
            world.auth.visitor(world.now, Some(forged), None, Use::OfPerson).expect("a cookie is never an error");
        assert_eq!(visitor, Visitor::Nobody, "{forged}");
    }
    assert_eq!(world.visitor(&other, IDLE), Visitor::Nobody, "idle");
    world.auth.log_out(&session);
    assert_eq!(world.visitor(&opened, minute), Visitor::Nobody);
    assert_eq!(world.auth.still(world.now + minute, &looked), Visitor::Nobody);
    let opened = world.log_in("admin", PASSWORD).expect("right");
    for quarter in 1..48 {
        assert_ne!(world.visitor(&opened, quarter * 15 * minute), Visitor::Nobody);
    }
    assert_eq!(world.visitor(&opened, LIFE), Visitor::Nobody, "old, though used all the time");
}

#[test]
fn a_page_that_shows_what_is_new_keeps_nobody_logged_in() {
    let world = World::new(&[("admin", 10, false)]);
    let opened = world.log_in("admin", PASSWORD).expect("right");
    let refresh = |after: Duration| {
        let visitor = world.auth.visitor(world.now + after, Some(&opened.id), None, Use::OfPage);
        visitor.expect("a cookie is never an error")
    };
    let minute = Duration::from_secs(60);
    assert_ne!(world.visitor(&opened, 10 * minute), Visitor::Nobody);
    for after in (11..40).map(|minutes| minutes * minute) {
        assert_ne!(refresh(after), Visitor::Nobody);
    }
    assert_eq!(refresh(10 * minute + IDLE), Visitor::Nobody);
    assert_eq!(world.auth.visitor(world.now, Some("forged"), None, Use::OfPage), Ok(Visitor::Nobody));
}

#[test]
fn who_looks_does_not_wait_for_who_writes() {
    let world = World::new(&[("admin", 10, false)]);
    let auth = &world.auth;
    std::thread::scope(|scope| {
        // As long as it takes to write: another one asks who there is.
        let (writing, there) = std::sync::mpsc::channel::<()>();
        let (asked, answer) = std::sync::mpsc::channel();
        scope.spawn(move || {
            there.recv().expect("it is being written");
            let _ = asked.send(auth.list(&admin()).map(|users| users.len()));
        });
        let written = auth.change(|users| {
            writing.send(()).expect("somebody waits");
            let seen = answer.recv_timeout(Duration::from_secs(60));
            let user = users.get("admin").cloned().expect("there");
            users.set("other", user).map_err(Error::Internal)?;
            Ok(seen)
        });
        assert_eq!(written.expect("writable").1, Ok(Ok(1)), "it is answered at once, with what was there before");
    });
    assert_eq!(auth.list(&admin()).map(|users| users.len()), Ok(2));
}

#[test]
fn wrong_and_unknown_are_told_alike_and_slowed_down() {
    let mut world = World::new(&[("admin", 10, false)]);
    let wrong = world.log_in("admin", "wrong").expect_err("wrong");
    assert_eq!(world.log_in("nobody", PASSWORD).expect_err("unknown"), wrong);
    assert_eq!(world.log_in("no body?", PASSWORD).expect_err("unknown"), wrong);
    for _ in 0..2 {
        assert_eq!(world.log_in("admin", "wrong").expect_err("wrong"), wrong);
    }
    assert_eq!(world.log_in("admin", PASSWORD).expect_err("five failures"), Refusal::Wait(Duration::from_secs(1)));
    world.now += Duration::from_secs(1);
    world.log_in("admin", PASSWORD).expect("right, after the wait");
    assert_eq!(world.log_in("admin", "wrong").expect_err("wrong"), wrong, "the count was taken away");
}

#[test]
fn the_first_user_needs_the_code_and_is_made_once() {
    let world = World::new(&[]);
    Tokens::add(&Tokens::file(world.dir.path()), "scada", 100, None).expect("writable");
    assert!(!world.auth.is_set_up());
    world.auth.tend();
    let code = world.code();
    let set_up = |code: &str, name: &str, password: &str| world.auth.set_up(world.now, HERE, code, name, password);
    assert_eq!(kind(set_up(&code, "a b", PASSWORD)), "invalid");
    assert_eq!(kind(set_up(&code, "admin", "short")), "invalid");
    assert_eq!(kind(set_up("", "admin", PASSWORD)), "forbidden");
    for _ in 0..4 {
        assert_eq!(kind(set_up("AAAA-AAAA", "admin", PASSWORD)), "forbidden");
    }
    assert_eq!(kind(set_up(&code, "admin", PASSWORD)), "wait");
    let later = world.now + Duration::from_secs(1);
    world.auth.set_up(later, HERE, &code, "admin", PASSWORD).expect("right");
    assert!(world.auth.is_set_up() && !world.dir.path().join("setup-code").exists());
    let again = world.auth.set_up(later, HERE, &code, "second", PASSWORD);
    assert_eq!(kind(again), "refused");
    world.log_in("admin", PASSWORD).expect("right");
}

#[test]
fn a_broken_file_lets_nobody_in_and_is_no_reason_for_a_set_up() {
    let world = World::new(&[("admin", 10, false)]);
    let opened = world.log_in("admin", PASSWORD).expect("right");
    fs::write(Users::file(world.dir.path()), "users = 3").expect("writable");
    assert!(world.auth.is_set_up());
    assert_eq!(world.visitor(&opened, Duration::ZERO), Visitor::Nobody);
    assert_eq!(kind(world.log_in("admin", PASSWORD)), "internal");
    assert_eq!(kind(world.auth.set_up(world.now, HERE, "", "x", PASSWORD)), "refused");
}

#[test]
fn changes_by_others_count_at_once() {
    let world = World::new(&[("admin", 10, false), ("other", 10, false)]);
    let opened = world.log_in("admin", PASSWORD).expect("right");
    let path = Users::file(world.dir.path());
    let change = |user: User| {
        Users::change(&path, |users| {
            let set = users.set("admin", user);
            assert_eq!(set, Ok(()));
            Ok::<_, UsersError>(())
        })
        .expect("writable");
    };
    let old = world.auth.users().expect("good").get("admin").expect("there").clone();
    change(User { level: 100, read_only: true, ..old });
    let Visitor::Session(session) = world.visitor(&opened, Duration::ZERO) else { panic!("somebody") };
    assert_eq!((session.caller.level, session.read_only), (100, true));
    change(User { level: 10, read_only: false, password: Hash::of("another password").expect("random numbers") });
    assert_eq!(world.visitor(&opened, Duration::ZERO), Visitor::Nobody, "another password ends all sessions");
    let opened = world.log_in("admin", "another password").expect("right");
    Users::change(&path, |users| Ok::<_, UsersError>(users.remove("admin"))).expect("writable");
    assert_eq!(world.visitor(&opened, Duration::ZERO), Visitor::Nobody);
}

#[test]
fn nobody_makes_himself_mightier_and_one_administrator_stays() {
    let world = World::new(&[("root", 0, false), ("admin", 10, false), ("guest", 100, false)]);
    let auth = &world.auth;
    let level = |level| UserChange { level: Some(level), ..UserChange::default() };
    let password = UserChange { password: Some("another password".to_owned()), ..UserChange::default() };
    let guest = Caller::new("guest", Caller::USER);
    for error in [
        auth.list(&guest).expect_err("level"),
        auth.edit(&guest, "guest", &level(0)).expect_err("level"),
        auth.edit(&admin(), "admin", &level(0)).expect_err("mightier than himself"),
        auth.edit(&admin(), "root", &password).expect_err("mightier than himself"),
        auth.remove(&admin(), "root").expect_err("mightier than himself"),
        auth.add(&admin(), "new", 0, false, PASSWORD).expect_err("mightier than himself"),
        auth.add_token(&admin(), "new", 0, None).expect_err("mightier than himself"),
    ] {
        assert_eq!(error.kind(), "forbidden", "{error}");
    }
    let root = Caller::new("root", Caller::ROOT);
    auth.remove(&admin(), "admin").expect("root stays");
    for error in [
        auth.remove(&root, "root").expect_err("the last"),
        auth.edit(&root, "root", &level(30)).expect_err("the last"),
        auth.edit(&root, "root", &UserChange { read_only: Some(true), ..UserChange::default() }).expect_err("the last"),
        auth.add(&root, "guest", 100, false, PASSWORD).expect_err("there is one"),
    ] {
        assert_eq!(error.kind(), "refused", "{error}");
    }
    assert_eq!(auth.add(&root, "x", 101, false, PASSWORD).expect_err("no such level").kind(), "invalid");
    assert_eq!(auth.remove(&root, "nobody").expect_err("nobody").kind(), "not-found");
    let names: Vec<_> = auth.list(&root).expect("good").into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["guest", "root"]);
}

#[test]
fn an_own_password_is_changed_with_the_old_one_and_ends_the_other_sessions() {
    let world = World::new(&[("guest", 100, true)]);
    let (here, there) =
        (world.log_in("guest", PASSWORD).expect("right"), world.log_in("guest", PASSWORD).expect("right"));
    let change = |old: &str, new: &str| world.auth.change_password(world.now, HERE, &here.session, old, new);
    assert_eq!(kind(change("wrong", "another password")), "forbidden");
    assert_eq!(kind(change(PASSWORD, "short")), "invalid");
    change(PASSWORD, "another password").expect("right");
    assert_ne!(world.visitor(&here, Duration::ZERO), Visitor::Nobody);
    assert_eq!(world.visitor(&there, Duration::ZERO), Visitor::Nobody);
    assert_eq!(kind(world.log_in("guest", PASSWORD)), "unauthenticated");
    world.log_in("guest", "another password").expect("right");
}

#[test]
fn tokens_count_until_they_are_removed() {
    let world = World::new(&[("admin", 10, false)]);
    let token = world.auth.add_token(&admin(), "scada", 30, None).expect("writable");
    assert_eq!(world.auth.add_token(&admin(), "scada", 30, None).expect_err("there is one").kind(), "refused");
    let over = Some(SystemTime::UNIX_EPOCH);
    assert_eq!(world.auth.add_token(&admin(), "late", 30, over).expect_err("over").kind(), "invalid");
    let show = |header: &str| world.auth.visitor(world.now, Some("not looked at"), Some(header), Use::OfPerson);
    let visitor = show(&format!("Bearer {token}")).expect("good");
    assert_eq!(visitor, Visitor::Token(Caller::new("scada", 30)));
    assert_eq!(show(&format!("bearer  {token} ")), Ok(visitor.clone()));
    for bad in
        ["", "Bearer", "Bearer ", &token, &format!("Basic {token}"), &format!("Bearer {token}x"), "Bearer \u{e9}"]
    {
        assert_eq!(show(bad).expect_err(bad).kind(), "unauthenticated");
    }
    assert_eq!(world.auth.still(world.now, &visitor), visitor);
    world.auth.remove_token(&admin(), "scada").expect("writable");
    assert_eq!(world.auth.still(world.now, &visitor), Visitor::Nobody);
    assert_eq!(show(&format!("Bearer {token}")).expect_err("gone").kind(), "unauthenticated");
    assert_eq!(world.auth.remove_token(&admin(), "scada").expect_err("gone").kind(), "not-found");
}
