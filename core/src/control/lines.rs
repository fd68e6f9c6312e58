//! What people may do with lines: look at all, ask for outputs that no child owns, hold outputs at a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use multus_contract::api::io::IoStatus;
use multus_contract::api::time::Clock;
use multus_contract::config::hardware::HardwareConfig;
use multus_contract::dirs::Dirs;
use multus_hardware::sim::{self, Panel};
use multus_ipc::MonoNs;
use multus_ipc::io::{Definition, OPERATOR, Reader, Requester, SIMULATED};
use multus_ipc::sync::AtomicU64;
use multus_ipc::text::{Name, Text};
use multus_ipc::time::unix_ns;

use crate::guard::{Holder, Shared};
use crate::wake::Wake;
use crate::watch::{Ask, MAX_HELD, Output};

/// What the control thread gets of inputs and outputs.
#[derive(Debug)]
pub struct Lines {
    /// The process image.
    pub image: Reader<'static>,
    /// The request page of people.
    pub operator: &'static [AtomicU64],
    /// To the guard of the outputs: the lines.
    pub setups: rtrb::Producer<Option<Box<HardwareConfig>>>,
    /// Wakes the guard.
    pub wake_guard: Arc<Wake>,
    /// What the guard has done.
    pub guard: Arc<Shared>,
}

/// What people have asked for.
#[derive(Debug)]
pub(super) struct Operator {
    image: Reader<'static>,
    page: &'static [AtomicU64],
    guard: Arc<Shared>,
    /// Outputs that are held: their place, and the value.
    held: BTreeMap<String, (usize, f64)>,
}

impl Operator {
    pub(super) fn new(image: Reader<'static>, page: &'static [AtomicU64], guard: Arc<Shared>) -> Self {
        Self { image, page, guard, held: BTreeMap::new() }
    }

    /// All lines.
    pub(super) fn status(&self) -> IoStatus {
        let clock = Clock { mono: MonoNs::now().0, unix: unix_ns() };
        let holder = self.guard.holder();
        let driven_by = match holder {
            Holder::Nobody => "nobody",
            Holder::Scanner => "multus-io",
            Holder::Guard => "multusd",
        };
        let mut status = IoStatus {
            driven_by: driven_by.into(),
            unsafe_outputs: self.guard.failed(),
            ..IoStatus::of(&self.image, clock)
        };
        for line in &mut status.lines {
            line.held = self.held.get(&line.name).map(|(_, value)| *value);
        }
        if holder == Holder::Guard {
            // The image is that of the last scan; what the guard has written is known here.
            status.fresh = false;
            for line in &mut status.lines {
                let Some(safe) = line.safe else { continue };
                (line.value, line.source, line.good) = (safe, "safe".into(), status.unsafe_outputs.is_empty());
            }
        }
        status
    }

    /// What everybody should know who looks at the status.
    pub(super) fn notes(&self) -> Vec<String> {
        let held = self.held.iter().map(|(name, (_, value))| {
            format!("the output {name} is held at {value} by a person (multusctl io release {name})")
        });
        let failed = self.guard.failed().into_iter().map(|what| format!("an output is NOT SAFE: {what}"));
        failed.chain(held).collect()
    }

    /// Asks for a value, as the owner of outputs that no child owns; drives an input of a simulated board.
    pub(super) fn set(
        &self,
        (name, value): (&str, f64),
        who: &str,
        hardware: Option<&HardwareConfig>,
        dirs: &Dirs,
    ) -> Result<(), String> {
        let (layout, number, line) = self.find(name)?;
        if !line.kind.is_output() {
            return self.drive(name, value, hardware, dirs);
        }
        if line.owner != Name::new(OPERATOR) {
            let owner = line.owner;
            return Err(format!("{name} is owned by {owner}; hold it with \"multusctl io force\" if that is meant"));
        }
        accepts(&line, value)?;
        let page = Requester::new(self.page).map_err(|refused| refused.to_string())?;
        page.ask(layout, number, value, MonoNs::now());
        log::info!("{name} is to be {value}: {who}");
        Ok(())
    }

    /// What is to be asked of the watch thread to hold an output.
    pub(super) fn force(&mut self, name: &str, value: f64, who: &str) -> Result<Ask, String> {
        let (_, _, line) = self.find(name)?;
        if !line.kind.is_output() {
            return Err(format!("{name} is an input: only outputs can be held"));
        }
        accepts(&line, value)?;
        let used = |place: &usize| self.held.values().any(|(other, _)| other == place);
        let known = self.held.get(name).map(|(place, _)| *place);
        let place = known.or_else(|| (0..MAX_HELD).find(|place| !used(place)));
        let place = place.ok_or_else(|| format!("{MAX_HELD} outputs are held already; release one"))?;
        self.held.insert(name.to_owned(), (place, value));
        log::warn!("{name} is held at {value}: {who}");
        Ok(Ask::Hold { place, output: Output { name: Text::new(name), value }, held: true })
    }

    /// What is to be asked of the watch thread to hold it no longer.
    pub(super) fn release(&mut self, name: &str, who: &str) -> Result<Ask, String> {
        let (place, value) = self.held.remove(name).ok_or_else(|| {
            let held: Vec<&str> = self.held.keys().map(String::as_str).collect();
            let held = if held.is_empty() { "none is".to_owned() } else { format!("there are {}", held.join(", ")) };
            format!("{name} is not held by a person; {held}")
        })?;
        log::warn!("{name} is no longer held by a person: {who}");
        Ok(Ask::Hold { place, output: Output { name: Text::new(name), value }, held: false })
    }

    fn find(&self, name: &str) -> Result<(u64, usize, Definition), String> {
        let found = self.image.find(&Text::new(name)).filter(|_| name.len() <= 32);
        found.and_then(|(layout, number)| Some((layout, number, self.image.definition_of(layout, number)?))).ok_or_else(
            || match self.image.layout() {
                None => "there are no lines: multus-io has not started (hardware.toml, children/io.toml)".to_owned(),
                Some(_) => format!("there is no line {name:?}; \"multusctl io list\" shows those there are"),
            },
        )
    }

    /// On a simulated board a person stands for the plant.
    fn drive(&self, name: &str, value: f64, hardware: Option<&HardwareConfig>, dirs: &Dirs) -> Result<(), String> {
        if self.image.flags() & SIMULATED == 0 {
            return Err(format!("{name} is an input: only those of a simulated board can be set"));
        }
        let line = hardware.and_then(|hardware| hardware.lines.iter().find(|line| line.name == name));
        let line = line.ok_or_else(|| format!("{name} is not in hardware.toml any more"))?;
        let path = sim::file_of(dirs);
        let panel = Panel::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        panel.show(line, value)
    }
}

fn accepts(line: &Definition, value: f64) -> Result<(), String> {
    if line.accepts(value) {
        return Ok(());
    }
    let range = if line.kind.is_digital() {
        "0 or 1".to_owned()
    } else {
        format!("{} to {} {}", line.lowest, line.highest, line.unit)
    };
    Err(format!("{value} is out of range for {}, expected {range}", line.name))
}
