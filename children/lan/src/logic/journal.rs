//! Commit-confirm: what was there before a change, until when it may stand without confirmation, and what happens next.
//!
//! ```text
//!             begin                 confirm
//!   at rest ---------> pending ------------------> confirmed (at rest)
//!                        |
//!                        | deadline, another boot, another plan, it cannot be applied
//!                        v
//!                    take back -------------------> rejected (at rest, with what was confirmed before)
//! ```
//! The journal is written safely *before* each arrow is acted upon, and everything done for an arrow can be done twice. So a
//! crash at any point leads to the same end: [`Journal::step`] says what is to be done, whatever happened before.
//!
//! Time is that of CLOCK_BOOTTIME together with the id of the boot: a jump of the wall clock changes nothing, and a change that
//! was not confirmed before a restart of the machine is taken back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use super::plan::{Kind, Plan};

/// What a back end has found before it changes something; enough to take the change back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Snapshot {
    /// Text of the own profile, if there was one, and the profile that was active on the interface (its UUID).
    NetworkManager {
        /// Of `multus-lan.nmconnection`.
        profile: Option<String>,
        /// The active one.
        active: Option<String>,
    },
    /// Text of the own file, if there was one.
    Networkd {
        /// Of `10-multus-lan.network`.
        file: Option<String>,
    },
    /// The own block, if there was one.
    Dhcpcd {
        /// Without its markers.
        block: Option<String>,
    },
    /// What the kernel had, and `/etc/resolv.conf`.
    Rtnetlink {
        /// The boot in which it was so: the kernel forgets it at the next one.
        boot: String,
        /// Addresses with a meaning beyond the link.
        addresses: Vec<KeptAddress>,
        /// Default routes through the interface.
        routes: Vec<KeptRoute>,
        /// `None`: it is no file that is written here, or there was none.
        resolv: Option<String>,
    },
}

impl Snapshot {
    /// The same back end has another interface now: what was found of that one takes the place of what belongs to an interface.
    /// Own files are the same for all.
    fn move_to(&mut self, other: Self) {
        match (self, other) {
            (Self::NetworkManager { active, .. }, Self::NetworkManager { active: other, .. }) => *active = other,
            (
                Self::Rtnetlink { boot, addresses, routes, .. },
                Self::Rtnetlink { boot: other_boot, addresses: other_addresses, routes: other_routes, .. },
            ) => (*boot, *addresses, *routes) = (other_boot, other_addresses, other_routes),
            _ => {}
        }
    }
}

/// An address that was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAddress {
    /// The address.
    pub cidr: Cidr,
    /// Seconds for which it was valid; `None`: for ever.
    pub valid_s: Option<u32>,
}

/// A default route that was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRoute {
    /// The router.
    pub gateway: std::net::IpAddr,
    /// Its metric.
    pub metric: u32,
    /// `RTPROT_*`.
    pub protocol: u8,
}

/// A point in time that no jump of a clock moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// The id of the boot, see random(4).
    pub boot: String,
    /// CLOCK_BOOTTIME: since the boot, suspended time included.
    pub at: Duration,
}

/// Everything that must survive a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// What stands.
    pub confirmed: Option<Confirmed>,
    /// What stands until it is confirmed or its time is over.
    pub pending: Option<Pending>,
    /// What was taken back the last time.
    pub rejected: Option<Rejected>,
    /// What each back end that sets up something had found at the very beginning, by its word; of the interface of the plan
    /// that stands, or else of that on trial.
    pub original: BTreeMap<String, Snapshot>,
    /// Whether the machine forwarded packets before this program switched it on; `None`: it did not.
    pub forwarding: Option<bool>,
}

/// A plan that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// What it is.
    pub plan: Plan,
    /// Who set it up.
    pub backend: Kind,
    /// Who confirmed it, for people.
    pub by: String,
}

/// A plan on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What it is.
    pub plan: Plan,
    /// Who sets it up.
    pub backend: Kind,
    /// What that back end found.
    pub before: Snapshot,
    /// The boot in which it began.
    pub boot: String,
    /// When it began, milliseconds of CLOCK_BOOTTIME.
    pub began_ms: u64,
    /// When it is taken back, milliseconds of CLOCK_BOOTTIME.
    pub deadline_ms: u64,
}

/// A plan that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// [`Plan::mark`].
    pub mark: String,
    /// Why.
    pub reason: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is wanted, or what is wanted was rejected and nothing was confirmed before.
    Rest,
    /// See to it that what was confirmed is there.
    Keep,
    /// Something new is wanted: write it down, apply it.
    Begin,
    /// See to it that the plan on trial is there; wait for an answer, so long at most.
    Wait(Duration),
    /// The trial is over: undo it.
    TakeBack(Reason),
}

/// Why a plan is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody confirmed it in time.
    Expired,
    /// The machine was started anew before somebody did.
    Restarted,
    /// Something else is wanted by now.
    Superseded,
    /// It cannot be applied; why.
    Failed(String),
}

impl Journal {
    /// What is to be done when `wanted` is configured; `None`: nothing is.
    pub fn step(&self, wanted: Option<&Plan>, now: &Now) -> Step {
        if let Some(pending) = &self.pending {
            let at = millis(now.at);
            // A time before its beginning is one of a boot that has the same id by mistake.
            if pending.boot != now.boot || at < pending.began_ms {
                return Step::TakeBack(Reason::Restarted);
            }
            if at >= pending.deadline_ms {
                return Step::TakeBack(Reason::Expired);
            }
            if wanted.is_some_and(|wanted| *wanted != pending.plan) {
                return Step::TakeBack(Reason::Superseded);
            }
            return Step::Wait(Duration::from_millis(pending.deadline_ms - at));
        }
        let Some(wanted) = wanted else { return Step::Rest };
        if self.confirmed.as_ref().is_some_and(|confirmed| confirmed.plan == *wanted) {
            return Step::Keep;
        }
        if !self.is_rejected(wanted) {
            return Step::Begin;
        }
        if self.confirmed.is_some() { Step::Keep } else { Step::Rest }
    }

    /// Whether a plan was taken back the last time.
    pub fn is_rejected(&self, plan: &Plan) -> bool {
        self.rejected.as_ref().is_some_and(|rejected| rejected.mark == plan.mark())
    }

    /// A trial begins. Write this down before anything is changed.
    pub fn begin(&mut self, plan: Plan, backend: Kind, before: Snapshot, now: &Now, within: Duration) {
        self.original.entry(backend.word().to_owned()).or_insert_with(|| before.clone());
        let began_ms = millis(now.at);
        self.pending = Some(Pending {
            plan,
            backend,
            before,
            boot: now.boot.clone(),
            began_ms,
            deadline_ms: began_ms.saturating_add(millis(within)),
        });
        self.rejected = None;
    }

    /// The trial ends well. `false`: there is none, or its time is over.
    pub fn confirm(&mut self, by: &str, now: &Now) -> bool {
        let is_open = self.pending.as_ref().is_some_and(|pending| {
            pending.boot == now.boot && (pending.began_ms..pending.deadline_ms).contains(&millis(now.at))
        });
        if !is_open {
            return false;
        }
        let Some(Pending { plan, backend, before, .. }) = self.pending.take() else { return false };
        if let Some(former) = self.confirmed.take() {
            // What stood before was undone when this was applied.
            if former.backend != backend {
                self.original.remove(former.backend.word());
            } else if former.plan.interface != plan.interface
                && let Some(original) = self.original.get_mut(backend.word())
            {
                original.move_to(before);
            }
        }
        self.confirmed = Some(Confirmed { plan, backend, by: by.into() });
        true
    }

    /// The trial was undone. Write this down after that.
    pub fn taken_back(&mut self, reason: &Reason) {
        let Some(pending) = self.pending.take() else { return };
        if self.confirmed.as_ref().is_none_or(|confirmed| confirmed.backend != pending.backend) {
            // Nothing of that back end stands any more; it may find something else the next time.
            self.original.remove(pending.backend.word());
        }
        // Who wants something else has rejected nothing.
        if *reason != Reason::Superseded {
            self.rejected = Some(Rejected { mark: pending.plan.mark(), reason: reason.to_string() });
        }
    }

    /// What has to be undone in this order so that nothing of this program is left: what was found, and the plan that came
    /// instead.
    pub fn to_undo(&self) -> Vec<(Snapshot, Plan)> {
        let on_trial = self.pending.as_ref().map(|pending| (pending.before.clone(), pending.plan.clone()));
        let stands = self.confirmed.as_ref().map(|confirmed| (confirmed.backend, &confirmed.plan));
        let other = self.pending.as_ref().map(|pending| (pending.backend, &pending.plan));
        let first =
            [Kind::NetworkManager, Kind::Networkd, Kind::Dhcpcd, Kind::Rtnetlink].into_iter().filter_map(|kind| {
                let original = self.original.get(kind.word())?;
                let of_kind = [stands, other].into_iter().flatten().find(|(backend, _)| *backend == kind);
                // A journal of an earlier version keeps more than one.
                let (_, plan) = of_kind.or(stands).or(other)?;
                Some((original.clone(), plan.clone()))
            });
        on_trial.into_iter().chain(first).collect()
    }

    /// The plan that stands, by whom, and what was found before it, where it has to be undone before this one is applied: it is
    /// of another back end or another interface, which would keep what it has.
    pub fn to_free(&self, plan: &Plan, backend: Kind) -> Option<(Snapshot, Plan)> {
        let former = self.confirmed.as_ref()?;
        let is_another = former.backend != backend || former.plan.interface != plan.interface;
        let original = self.original.get(former.backend.word()).filter(|_| is_another)?;
        Some((original.clone(), former.plan.clone()))
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Expired => f.write_str("nobody confirmed it in time, and the gateway did not answer"),
            Self::Restarted => f.write_str("the machine was started anew before it was confirmed"),
            Self::Superseded => f.write_str("something else is configured by now"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
