//! Templates. They are part of the program; their names end in `.html`, so that everything put into them is escaped.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use super::look;

/// What a template gets: names with values of any type that can be serialized, and all of another context that has not a
/// name of its own here.
macro_rules! context {
    ($($key:ident $(=> $value:expr)?),* $(, ..$base:expr)? $(,)?) => {{
        #[allow(unused_mut)]
        let mut own: std::collections::BTreeMap<String, minijinja::Value> = std::collections::BTreeMap::new();
        $(own.insert(stringify!($key).to_owned(), $crate::web::pages::render::context!(@value $key $(=> $value)?));)*
        #[allow(unused_mut, unused_assignments)]
        let mut base = None;
        $(base = Some($base);)?
        $crate::web::pages::render::merged(own, base)
    }};
    (@value $key:ident) => { minijinja::Value::from(minijinja::value::Serde(&$key)) };
    (@value $key:ident => $value:expr) => { minijinja::Value::from(minijinja::value::Serde(&$value)) };
}
pub(super) use context;

pub(super) fn merged(own: std::collections::BTreeMap<String, Value>, base: Option<Value>) -> Value {
    let own = Value::from(own);
    match base {
        Some(base) => minijinja::value::merge_maps([own, base]),
        None => own,
    }
}

/// All templates, read once.
#[derive(Debug)]
pub(super) struct Templates(Environment<'static>);

macro_rules! templates {
    ($($name:literal)+) => { &[$(($name, include_str!(concat!("../../../../../www/templates/", $name)))),+] };
}

const ALL: &[(&str, &str)] = templates! {
    "layout.html" "parts.html" "problem.html" "log-in.html" "set-up.html" "services.html" "services-list.html" "child.html" "documents.html" "document-head.html"
    "form.html" "text.html" "review.html" "versions.html" "faults.html" "fault.html" "logs.html" "log.html" "events.html"
    "io.html" "line.html" "io-history.html" "users.html" "tokens.html" "account.html" "system.html"
};

impl Templates {
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        // Lines that hold nothing but tags of the template leave no empty lines behind.
        if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
            environment.set_syntax(syntax);
        }
        environment.add_global("version", crate::web::statics::version());
        environment.add_filter("ago", |time: &str| look::ago(time));
        environment.add_filter("lasting", |time: &str| look::lasting(time));
        environment.add_filter("exact", |time: &str| look::exact(time));
        environment.add_filter("clock", |time: &str| look::clock(time).to_owned());
        environment.add_filter("bytes", look::bytes);
        environment.add_filter("part", |text: &str| super::encoded(text));
        for (name, text) in ALL {
            if let Err(error) = environment.add_template(name, text) {
                // A test reads all of them.
                log::error!("template {name}: {error:#}");
            }
        }
        Self(environment)
    }

    /// A page. One that cannot be made is said to be so; the rest of the program goes on.
    pub(super) fn render(&self, name: &str, context: Value) -> String {
        let rendered = self.0.get_template(name).and_then(|template| template.render(context));
        rendered.unwrap_or_else(|error| {
            log::error!("page {name}: {error:#}");
            "<!doctype html><title>multusd</title><p>This page cannot be shown; the log of multus-control says why."
                .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_together_is_below_sixty_kilobytes() {
        let www = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../www");
        let files = ["templates", "static"].map(|dir| std::fs::read_dir(www.join(dir)).expect("it is in the tree"));
        let mut total = 0;
        for file in files.into_iter().flatten().flatten() {
            // Each by itself, as it goes over the line.
            let packed = std::process::Command::new("gzip").arg("-9c").arg(file.path()).output();
            let Ok(packed) = packed else { return crate::testing::skip("size of the pages", "there is no gzip") };
            total += packed.stdout.len();
        }
        println!("{total} bytes with gzip");
        assert!((10_000..60_000).contains(&total), "{total}");
    }

    #[test]
    fn every_template_can_be_read() {
        let templates = Templates::new();
        for (name, _) in ALL {
            assert!(templates.0.get_template(name).is_ok(), "{name}");
        }
    }
}
