//! Inputs and outputs.

use multus_contract::api::io::{IoLine, IoStatus};

use super::quantiles;
use super::text::{Kind, Text};

pub(super) fn write(text: &mut Text, io: &IoStatus) {
    let yes = |yes: bool| f64::from(u8::from(yes));
    let count = |which: &dyn Fn(&IoLine) -> bool| io.lines.iter().filter(|line| which(line)).count() as f64;
    text.one("multus_io_simulated", Kind::Gauge, "Whether there is no hardware behind the lines.", yes(io.simulated));
    let help = "Whether multus-io scans; if not, values are those of its last scan.";
    text.one("multus_io_fresh", Kind::Gauge, help, yes(io.fresh));
    let help = "1 for who has the outputs, 0 for the others. With multusd all outputs have their safe values.";
    text.family("multus_io_driven_by", Kind::Gauge, help);
    for by in ["multus-io", "multusd", "nobody"] {
        text.sample("", &[("by", by)], yes(io.driven_by == by));
    }
    let help = "Outputs that multusd could not bring to their safe values.";
    text.one("multus_io_outputs_unsafe", Kind::Gauge, help, io.unsafe_outputs.len() as f64);
    let help = "Lines that cannot be read or written.";
    text.one("multus_io_lines_bad", Kind::Gauge, help, count(&|line| !line.good));
    text.one("multus_io_outputs_held", Kind::Gauge, "Outputs that a person holds.", count(&|line| line.held.is_some()));
    each_line(text, &io.lines);
    text.one("multus_io_scans", Kind::Counter, "Scans of multus-io.", io.scans as f64);
    let help = "Scans that were left out because one before took too long.";
    text.one("multus_io_overruns", Kind::Counter, help, io.overruns as f64);
    let help = "Requests for outputs that were refused: not the owner, out of range.";
    text.one("multus_io_refused", Kind::Counter, help, io.refused as f64);
    text.one("multus_io_period_seconds", Kind::Gauge, "Time from scan to scan.", io.period_us / 1e6);
    for (name, what, spread) in [
        ("multus_io_scan", "How long a scan takes", io.scan_us),
        ("multus_io_forced", "From the decision to force outputs to the last of them being written", io.forced_us),
    ] {
        text.family(&format!("{name}_seconds"), Kind::Summary, &format!("{what}."));
        quantiles(text, &[], &spread);
        text.one(&format!("{name}_max_seconds"), Kind::Gauge, &format!("{what}: the longest."), spread.max / 1e6);
    }
}

fn each_line(text: &mut Text, lines: &[IoLine]) {
    let yes = |yes: bool| f64::from(u8::from(yes));
    let help = "0 or 1, or a number in the unit of the line; of a bad line the last good one.";
    text.family("multus_io_value", Kind::Gauge, help);
    for line in lines {
        text.sample("", &[("name", &line.name), ("kind", &line.kind), ("unit", &line.unit)], line.value);
    }
    let mut each = |name: &str, kind, help: &str, value: &dyn Fn(&IoLine) -> Option<f64>| {
        text.family(name, kind, help);
        for (line, value) in lines.iter().filter_map(|line| Some((line, value(line)?))) {
            text.sample(if kind == Kind::Counter { "_total" } else { "" }, &[("name", &line.name)], value);
        }
    };
    each("multus_io_bad", Kind::Gauge, "Whether the line cannot be read or written.", &|line| Some(yes(!line.good)));
    let output = |line: &IoLine, what: bool| line.safe.map(|_| yes(what));
    let help = "Whether the output has its value because multusd or a person wants it.";
    each("multus_io_output_forced", Kind::Gauge, help, &|line| output(line, line.source == "forced"));
    let help = "Whether a person holds the output.";
    each("multus_io_output_held", Kind::Gauge, help, &|line| output(line, line.held.is_some()));
    each("multus_io_changes", Kind::Counter, "Changes of the value.", &|line| Some(line.changes as f64));
}
