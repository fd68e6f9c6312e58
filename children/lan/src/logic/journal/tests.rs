//! A simulated device: a disk that survives, memory that does not, and a clock that jumps where it is told. What is applied is
//! one word; a crash may come between any two things that are done.

use super::*;

const WITHIN: Duration = Duration::from_secs(60);

fn plan(address: &str) -> Plan {
    Plan {
        interface: "eth0".into(),
        dhcp: false,
        addresses: vec![address.parse().expect("good")],
        gateway: None,
        gateway_v6: None,
        is_default_way: true,
        name_servers: Vec::new(),
        backend: None,
        nat: Default::default(),
    }
}

fn old() -> Plan {
    plan("192.168.1.2/24")
}

fn new() -> Plan {
    plan("192.168.9.2/24")
}

/// What the back end would have found: the text of a file.
fn found(text: &str) -> Snapshot {
    Snapshot::Networkd { file: Some(text.to_owned()) }
}

struct Device {
    /// The journal as it is on the disk, as text.
    disk: String,
    /// What is set: the address, on the disk as well.
    set: String,
    now: Now,
    /// So many things are still done until the crash; `None`: it does not come.
    left: Option<usize>,
    done: usize,
}

/// The program is gone.
struct Crashed;

impl Device {
    fn new() -> Self {
        let mut journal = Journal::default();
        let now = Now { boot: "a".into(), at: Duration::from_secs(100) };
        journal.begin(old(), Kind::Networkd, found("at first"), &now, WITHIN);
        assert!(journal.confirm("gateway", &now));
        let disk = serde_json::to_string(&journal).expect("JSON");
        Self { disk, set: "192.168.1.2/24".into(), now, left: None, done: 0 }
    }

    fn journal(&self) -> Journal {
        serde_json::from_str(&self.disk).expect("whole: it is replaced in one step")
    }

    /// One thing is done, unless the crash comes first.
    fn act(&mut self, act: impl FnOnce(&mut Self)) -> Result<(), Crashed> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(Crashed)?;
        }
        self.done += 1;
        act(self);
        Ok(())
    }

    fn write(&mut self, journal: &Journal) -> Result<(), Crashed> {
        let text = serde_json::to_string(journal).expect("JSON");
        self.act(|device| device.disk = text)
    }

    /// As the keeper does it, until it would wait; the gateway answers if the address that is set is in `answers`.
    fn run(&mut self, wanted: &Plan, answers: &[&str]) -> Result<Step, Crashed> {
        let mut journal = self.journal();
        loop {
            let step = journal.step(Some(wanted), &self.now);
            match &step {
                Step::Rest => return Ok(step),
                Step::Keep => {
                    let address = journal.confirmed.as_ref().expect("confirmed").plan.addresses[0].to_string();
                    if self.set != address {
                        self.act(|device| device.set = address)?;
                    }
                    return Ok(step);
                }
                Step::Begin => {
                    journal.begin(wanted.clone(), Kind::Networkd, found(&self.set), &self.now.clone(), WITHIN);
                    self.write(&journal)?;
                }
                Step::Wait(_) => {
                    let address = journal.pending.as_ref().expect("pending").plan.addresses[0].to_string();
                    if self.set != address {
                        // A file, then what reads it: half of it may be done.
                        self.act(|device| device.set = format!("half {address}"))?;
                        self.act(|device| device.set = address)?;
                    }
                    if !answers.contains(&self.set.as_str()) {
                        return Ok(step);
                    }
                    assert!(journal.confirm("gateway", &self.now));
                    self.write(&journal)?;
                }
                Step::TakeBack(reason) => {
                    let Some(Snapshot::Networkd { file: Some(text) }) =
                        journal.pending.as_ref().map(|p| p.before.clone())
                    else {
                        panic!("there is something to go back to");
                    };
                    self.act(|device| device.set = text)?;
                    journal.taken_back(reason);
                    self.write(&journal)?;
                }
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now.at += Duration::from_secs(seconds);
    }
}

#[test]
fn a_change_that_is_answered_stands() {
    let mut device = Device::new();
    assert_eq!(device.run(&new(), &["192.168.9.2/24"]).ok(), Some(Step::Keep));
    let journal = device.journal();
    assert_eq!(journal.confirmed.map(|confirmed| confirmed.plan), Some(new()));
    assert_eq!((journal.pending, journal.rejected, device.set.as_str()), (None, None, "192.168.9.2/24"));
}

#[test]
fn a_change_that_nobody_answers_is_taken_back_once_and_not_tried_again() {
    let mut device = Device::new();
    assert_eq!(device.run(&new(), &[]).ok(), Some(Step::Wait(WITHIN)));
    device.pass(59);
    assert_eq!(device.run(&new(), &[]).ok(), Some(Step::Wait(Duration::from_secs(1))));
    device.pass(1);
    assert_eq!(device.run(&new(), &["192.168.9.2/24"]).ok(), Some(Step::Keep), "too late for an answer");
    assert_eq!(device.set, "192.168.1.2/24");
    let done = device.done;
    for _ in 0..3 {
        device.pass(3600);
        assert_eq!(device.run(&new(), &[]).ok(), Some(Step::Keep), "a restart does not try it again");
    }
    assert_eq!((device.done, device.set.as_str()), (done, "192.168.1.2/24"));
    let other = plan("192.168.9.3/24");
    assert_eq!(device.run(&other, &[]).ok(), Some(Step::Wait(WITHIN)), "another one is tried");
}

#[test]
fn whenever_the_program_crashes_the_end_is_the_same() {
    for answers in [&["192.168.9.2/24"][..], &[]] {
        let wanted_end = if answers.is_empty() { "192.168.1.2/24" } else { "192.168.9.2/24" };
        // Each crash comes after one more thing than the last; enough for all there is to do.
        for first in 0..12 {
            for second in 0..12 {
                let mut device = Device::new();
                for left in [first, second] {
                    device.left = Some(left);
                    if device.run(&new(), answers).is_ok() {
                        device.pass(61);
                        let _ = device.run(&new(), answers);
                    }
                }
                device.left = None;
                for _ in 0..2 {
                    assert!(device.run(&new(), answers).is_ok());
                    device.pass(61);
                }
                if answers.is_empty() {
                    assert_eq!(device.set, wanted_end, "{first} {second}");
                    assert!(device.journal().is_rejected(&new()));
                } else {
                    // With the time over before the answer it is taken back; never anything between.
                    let is_rejected = device.journal().is_rejected(&new());
                    let expected = if is_rejected { "192.168.1.2/24" } else { wanted_end };
                    assert_eq!(device.set, expected, "{first} {second}");
                }
                assert_eq!(device.journal().pending, None);
            }
        }
    }
}

#[test]
fn whenever_the_power_is_cut_the_old_configuration_is_back_unless_the_new_one_was_confirmed() {
    for answers in [&["192.168.9.2/24"][..], &[]] {
        for left in 0..12 {
            let mut device = Device::new();
            device.left = Some(left);
            let _ = device.run(&new(), answers);
            let was_begun = device.journal().pending.is_some();
            let was_confirmed = device.journal().confirmed.is_some_and(|confirmed| confirmed.plan == new());
            device.left = None;
            device.now = Now { boot: "b".into(), at: Duration::from_secs(5) };
            assert!(device.run(&new(), answers).is_ok());
            if was_confirmed {
                assert_eq!(device.set, "192.168.9.2/24");
            } else if was_begun {
                assert_eq!(device.set, "192.168.1.2/24", "after {left} things");
                assert!(device.journal().rejected.is_some_and(|rejected| rejected.reason.contains("started anew")));
            }
        }
    }
}

#[test]
fn another_wish_ends_the_trial_without_a_rejection() {
    let mut device = Device::new();
    assert_eq!(device.run(&new(), &[]).ok(), Some(Step::Wait(WITHIN)));
    device.pass(10);
    assert_eq!(device.run(&old(), &[]).ok(), Some(Step::Keep), "back to what stands");
    assert_eq!((device.set.as_str(), device.journal().rejected), ("192.168.1.2/24", None));
    assert_eq!(device.run(&new(), &[]).ok(), Some(Step::Wait(WITHIN)), "it may be tried again");
}

#[test]
fn only_an_open_trial_of_this_boot_is_confirmed() {
    let now = |boot: &str, seconds| Now { boot: boot.into(), at: Duration::from_secs(seconds) };
    let mut journal = Journal::default();
    assert!(!journal.confirm("somebody", &now("a", 100)), "nothing is pending");
    journal.begin(new(), Kind::Networkd, found(""), &now("a", 100), WITHIN);
    for late in [now("a", 160), now("a", 99), now("b", 100)] {
        assert!(!journal.clone().confirm("somebody", &late), "{late:?}");
        assert!(matches!(journal.step(Some(&new()), &late), Step::TakeBack(_)), "{late:?}");
    }
    assert!(journal.confirm("somebody", &now("a", 159)));
    assert_eq!(journal.to_undo(), [(found(""), new())], "what was there at first is remembered");
}

/// What netlink would have found on an interface.
fn kernel(address: &str, resolv: &str) -> Snapshot {
    Snapshot::Rtnetlink {
        boot: "a".into(),
        addresses: vec![KeptAddress { cidr: address.parse().expect("good"), valid_s: None }],
        routes: Vec::new(),
        resolv: Some(resolv.into()),
    }
}

#[test]
fn what_was_found_belongs_to_the_interface_that_is_set_up() {
    let now = Now { boot: "a".into(), at: Duration::from_secs(100) };
    let other = Plan { interface: "eth1".into(), ..new() };
    let mut journal = Journal::default();
    journal.begin(old(), Kind::Rtnetlink, kernel("10.0.0.2/8", "first"), &now, WITHIN);
    assert_eq!(journal.to_free(&old(), Kind::Rtnetlink), None, "nothing stands");
    assert!(journal.confirm("gateway", &now));
    assert_eq!(journal.to_free(&new(), Kind::Rtnetlink), None, "the same interface is changed in place");
    let found_first = (kernel("10.0.0.2/8", "first"), old());
    for (plan, kind) in [(&other, Kind::Rtnetlink), (&new(), Kind::Networkd)] {
        assert_eq!(journal.to_free(plan, kind), Some(found_first.clone()), "{kind:?}");
    }
    journal.begin(other.clone(), Kind::Rtnetlink, kernel("10.1.0.2/16", "second"), &now, WITHIN);
    let on_trial = (kernel("10.1.0.2/16", "second"), other.clone());
    assert_eq!(journal.to_undo(), [on_trial, found_first.clone()], "each on its interface");
    let mut rejected = journal.clone();
    rejected.taken_back(&Reason::Expired);
    assert_eq!(rejected.to_undo(), [found_first]);
    assert!(journal.confirm("gateway", &now));
    assert_eq!(journal.to_undo(), [(kernel("10.1.0.2/16", "first"), other.clone())]);
    // Another back end.
    journal.begin(other.clone(), Kind::Networkd, found(""), &now, WITHIN);
    assert!(journal.confirm("gateway", &now));
    assert_eq!(journal.to_undo(), [(found(""), other)], "what netlink had set was undone");
}

#[test]
fn of_what_was_taken_back_nothing_is_left_to_undo() {
    let now = Now { boot: "a".into(), at: Duration::from_secs(100) };
    let mut journal = Journal::default();
    journal.begin(new(), Kind::Rtnetlink, kernel("10.0.0.2/8", ""), &now, WITHIN);
    journal.taken_back(&Reason::Expired);
    assert_eq!(journal.to_undo(), []);
}

#[test]
fn without_a_wish_nothing_new_begins_but_what_began_ends() {
    let now = Now { boot: "a".into(), at: Duration::from_secs(100) };
    let mut journal = Journal::default();
    assert_eq!(journal.step(None, &now), Step::Rest);
    journal.begin(new(), Kind::Networkd, found(""), &now, WITHIN);
    assert_eq!(journal.step(None, &now), Step::Wait(WITHIN));
    journal.taken_back(&Reason::Failed("no".into()));
    assert_eq!((journal.step(None, &now), journal.step(Some(&new()), &now)), (Step::Rest, Step::Rest));
    assert_eq!(journal.step(Some(&old()), &now), Step::Begin);
}
