//! The two text formats: OpenMetrics 1.0, and the older one of Prometheus.

use std::fmt::Write as _;

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What Prometheus asks for today.
    OpenMetrics,
    /// What everything understands.
    Prometheus,
}

impl Format {
    /// What suits the `Accept` of a request.
    pub fn of_accept(accept: Option<&str>) -> Self {
        if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// For HTTP.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
    Summary,
    Info,
}

/// The text as far as it is written.
pub(super) struct Text {
    out: String,
    format: Format,
    name: String,
}

impl Text {
    pub(super) fn new(format: Format) -> Self {
        Self { out: String::new(), format, name: String::new() }
    }

    /// Begins a family; all samples that follow are its own. Names of counters and infos come without their ending.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        self.name = name.to_owned();
        let open = self.format == Format::OpenMetrics;
        // The older format knows no infos, and counts the ending to the name.
        let (shown, word) = match kind {
            Kind::Gauge => (name.to_owned(), "gauge"),
            Kind::Histogram => (name.to_owned(), "histogram"),
            Kind::Summary => (name.to_owned(), "summary"),
            Kind::Counter if open => (name.to_owned(), "counter"),
            Kind::Counter => (format!("{name}_total"), "counter"),
            Kind::Info if open => (name.to_owned(), "info"),
            Kind::Info => (format!("{name}_info"), "gauge"),
        };
        // Writing to a text cannot fail.
        let _ = writeln!(self.out, "# TYPE {shown} {word}");
        if let Some(unit) = UNITS.into_iter().find(|unit| open && name.ends_with(&format!("_{unit}"))) {
            let _ = writeln!(self.out, "# UNIT {shown} {unit}");
        }
        let _ = writeln!(self.out, "# HELP {shown} {}", help.replace('\\', r"\\").replace('\n', r"\n"));
    }

    /// A family with one sample.
    pub(super) fn one(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(if kind == Kind::Counter { "_total" } else { "" }, &[], value);
    }

    pub(super) fn sample(&mut self, ending: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.out, "{}{ending}", self.name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            let _ = write!(self.out, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A bucket of a histogram up to `limit`, or the one without a limit; `count` includes all smaller ones.
    pub(super) fn bucket(&mut self, labels: &[(&str, &str)], limit: Option<f64>, count: u64) {
        let limit = match limit {
            // 1 is written 1.0: both formats want the same text at all times.
            Some(limit) if limit.fract() == 0.0 => format!("{limit:.1}"),
            Some(limit) => limit.to_string(),
            None => "+Inf".to_owned(),
        };
        self.sample("_bucket", &[labels, &[("le", &limit)]].concat(), count as f64);
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

const UNITS: [&str; 3] = ["seconds", "bytes", "celsius"];
