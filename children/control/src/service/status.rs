//! The status of the daemon and its children, asked for at most once in [`FRESH`], however many look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use multus_contract::api::command::Request;
use multus_contract::api::status::{ChildStatus, Status};

use super::{Caller, Error, Inner, Result, Service};

/// The status as of a moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the daemon said.
    pub status: Status,
    /// When.
    pub taken: Instant,
}

/// The last answer, good or bad: a daemon that does not answer is not asked by everybody in turn either.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    last: Mutex<Option<(Instant, Result<Arc<Snapshot>>)>>,
}

impl Service {
    /// What the daemon and every child are doing, not older than 200 ms.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the daemon cannot be reached.
    pub fn status(&self, caller: &Caller) -> Result<Arc<Snapshot>> {
        caller.needs(Caller::USER)?;
        self.inner.snapshot()
    }

    /// Every child instance, or those of `name` (an instance, or a child with all its instances).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`].
    pub fn children(&self, caller: &Caller, name: Option<&str>) -> Result<Vec<ChildStatus>> {
        caller.needs(Caller::USER)?;
        let snapshot = self.inner.snapshot()?;
        let Some(name) = name else { return Ok(snapshot.status.children.clone()) };
        let found: Vec<ChildStatus> = of_name(&snapshot.status.children, name).cloned().collect();
        if found.is_empty() {
            return Err(no_child(name));
        }
        Ok(found)
    }
}

impl Inner {
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        let mut last = self.status.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = self
            .daemon
            .ask::<Status>(&Request::Status { name: None })
            .map(|status| Arc::new(Snapshot { status, taken: Instant::now() }));
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    /// After an order: what was known before it is old.
    pub(crate) fn forget_snapshot(&self) {
        *self.status.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The instances that `name` means: the instance of that name, or all of the child of that name.
pub(crate) fn of_name<'a>(children: &'a [ChildStatus], name: &'a str) -> impl Iterator<Item = &'a ChildStatus> {
    let is_instance = children.iter().any(|child| child.name == name);
    children.iter().filter(move |child| child.name == name || (!is_instance && child_of(child) == name))
}

/// The name of the child that an instance belongs to. A child with one instance has its own name.
fn child_of(status: &ChildStatus) -> &str {
    let number = format!("_{}", status.instance);
    status.name.strip_suffix(number.as_str()).unwrap_or(&status.name)
}

/// How many instances each child has, by its name; those with one are not among them, because they have the name of the child.
pub(crate) fn families(children: &[ChildStatus]) -> BTreeMap<&str, usize> {
    let mut families = BTreeMap::new();
    for child in children {
        let family = child_of(child);
        if family != child.name {
            *families.entry(family).or_default() += 1;
        }
    }
    families.retain(|_, instances| *instances > 1);
    families
}

/// The child of an instance, and how many instances it has.
pub(crate) fn family<'a>(child: &'a ChildStatus, families: &BTreeMap<&str, usize>) -> (&'a str, usize) {
    let family = child_of(child);
    families.get(family).filter(|_| family != child.name).map_or((&child.name, 1), |instances| (family, *instances))
}

pub(crate) fn no_child(name: &str) -> Error {
    Error::NotFound(format!("there is no child {name:?}"))
}

/// A status older than this is asked for again.
const FRESH: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_a_child_are_counted() {
        let child = |name: &str, instance| ChildStatus { name: name.into(), instance, ..ChildStatus::default() };
        let all = [child("pump_0", 0), child("pump_1", 1), child("lamp", 0), child("fan_0", 0), child("x_1", 0)];
        let families = families(&all);
        let of: Vec<_> = all.iter().map(|child| family(child, &families)).collect();
        assert_eq!(of, [("pump", 2), ("pump", 2), ("lamp", 1), ("fan_0", 1), ("x_1", 1)]);
    }

    #[test]
    fn a_name_means_an_instance_or_all_of_a_child() {
        let child = |name: &str, instance| ChildStatus { name: name.into(), instance, ..ChildStatus::default() };
        let all = [child("pump_0", 0), child("pump_1", 1), child("lamp", 0), child("fan_0", 0), child("fan", 0)];
        let names = |name| of_name(&all, name).map(|child| child.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names("pump"), ["pump_0", "pump_1"]);
        assert_eq!(names("pump_1"), ["pump_1"]);
        assert_eq!(names("fan"), ["fan"], "the instance of that name wins");
        assert!(names("pum").is_empty());
    }
}
